"""Settings: read whole, refused whole, each problem by its key's path, no secret in any message."""

import tomllib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from gateway.config.settings import (
    Address,
    AddressField,
    ClientIp,
    Gateway,
    GatewaySettings,
    HeaderName,
    NetworkField,
    Rate,
    RateField,
    Raw,
    ServerField,
    load,
    read,
    validate,
)
from gateway.errors import ConfigError

MINIMAL = """
[stores]
postgres = "postgresql://gate@db/gerbang"
redis = "redis://127.0.0.1"
[vault]
keys = "k1:c2VjcmV0"
"""


@pytest.fixture
def written(tmp_path):
    """Writes a configuration file and returns its path."""

    def write(text):
        path = tmp_path / "gateway.toml"
        path.write_text(text)
        return path

    return write


def problems_of(path):
    with pytest.raises(ConfigError) as raised:
        load(path, GatewaySettings)
    return {problem.path: problem.message for problem in raised.value.problems}


def test_a_minimal_file_is_enough(written):
    settings = load(written(MINIMAL), GatewaySettings)
    assert settings.listen.workers == 1
    assert settings.limits.per_key == Rate(1200, 60_000)


def test_every_problem_is_told_at_once(written):
    problems = problems_of(
        written(
            MINIMAL
            + """
            [listen]
            public = "8080"
            colour = "blue"
            [limits]
            per_key = "many"
            [client_ip]
            trusted_proxies = ["10.0.0.1/8"]
            [cache]
            local_ttl_ms = 60000
            stale_limit_ms = 1000
            [upstreams.spot]
            servers = ["ftp://x"]
            [[routes]]
            match = "GET /a"
            scope = "write"
            upstream = "futures"
            """
        )
    )
    assert set(problems) == {
        "listen.public",
        "listen.colour",
        "limits.per_key",
        "client_ip.trusted_proxies[0]",
        "cache",
        "upstreams.spot.servers[0]",
        "routes[0].scope",
        "routes[0].upstream",
    }
    assert problems["listen.colour"] == "not a known key"
    assert problems["routes[0].upstream"] == "there is no [upstreams.futures]"


@pytest.mark.parametrize(
    ("text", "message"),
    [("[stores", "not TOML"), ("\x00", "not TOML"), ("a = 1\na = 2", "not TOML")],
)
def test_a_file_that_is_not_toml_says_where(written, text, message):
    assert message in problems_of(written(text))[""]


def test_a_file_that_is_not_there_is_one_clear_line(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.toml:\ncannot be read: No such file or directory"):
        load(tmp_path / "nothing.toml", GatewaySettings)


def test_a_file_that_is_not_utf_8_says_at_which_byte(tmp_path):
    (tmp_path / "x.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 5"):
        load(tmp_path / "x.toml", GatewaySettings)


def test_references_are_resolved_from_the_environment_and_from_files(written, tmp_path, monkeypatch):
    monkeypatch.setenv("GERBANG_TEST_REDIS", "redis://from-env")
    (tmp_path / "dsn").write_text("postgresql://from-file\n")
    settings = load(written('[stores]\npostgres = "file:dsn"\nredis = "env:GERBANG_TEST_REDIS"\n[vault]\nkeys = "k1:x"\n'), GatewaySettings)
    assert settings.stores.postgres.get_secret_value() == "postgresql://from-file"
    assert settings.stores.redis.get_secret_value() == "redis://from-env"


def test_a_reference_that_leads_nowhere_is_told_once_and_beside_the_rest(written, tmp_path):
    text = '[stores]\npostgres = "file:nothing"\nredis = "env:GERBANG_TEST_UNSET"\n[vault]\nkeys = "k1:x"\n[limits]\nper_key = 1\n'
    problems = problems_of(written(text))
    assert problems["stores.postgres"] == f"{tmp_path / 'nothing'} cannot be read: No such file or directory"
    assert problems["stores.redis"] == "the environment variable GERBANG_TEST_UNSET is not set"
    assert "limits.per_key" in problems


def test_no_message_shows_a_secret(written, monkeypatch):
    monkeypatch.setenv("GERBANG_TEST_SECRET", "hunter2")
    path = written(
        '[stores]\npostgres = "env:GERBANG_TEST_SECRET"\nredis = ["env:GERBANG_TEST_SECRET"]\nvault = "env:GERBANG_TEST_SECRET"\n'
    )
    with pytest.raises(ConfigError) as raised:
        load(path, GatewaySettings)
    assert "hunter2" not in str(raised.value)


def test_settings_do_not_print_their_secrets(written):
    settings = load(written(MINIMAL), GatewaySettings)
    assert "c2VjcmV0" not in repr(settings)
    assert "c2VjcmV0" not in settings.model_dump_json()


def test_relative_paths_start_at_the_files_folder(written, tmp_path):
    tls = '[listen]\ntls = { certificate = "tls/cert.pem", key = "/etc/key.pem" }\n'
    settings = load(written(MINIMAL + tls + '[assertion]\nkeys = "signing"\n'), GatewaySettings)
    assert str(settings.listen.tls.certificate) == str(tmp_path / "tls/cert.pem")
    assert str(settings.listen.tls.key) == "/etc/key.pem"
    assert settings.assertion.keys == tmp_path / "signing"


def test_a_worker_makes_the_same_settings_of_what_its_parent_read(written):
    raw = read(written(MINIMAL))
    assert validate(Raw(raw.source, tomllib.loads(MINIMAL), []), GatewaySettings) == validate(raw, GatewaySettings)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1/second", Rate(1, 1_000)), ("1200/minute", Rate(1200, 60_000)), ("5/hour", Rate(5, 3_600_000)), ("9/day", Rate(9, 86_400_000))],
)
def test_rates(text, expected):
    rate = TypeAdapter(RateField).validate_python(text)
    assert rate == expected
    assert str(rate) == text


@pytest.mark.parametrize(
    "text", ["", "0/minute", "-1/minute", "1", "1/min", "1 / minute", "01/minute", "1.5/minute", "1/minute\n", "9999999999/day"]
)
def test_what_is_no_rate(text):
    with pytest.raises(ValidationError, match="write a rate as"):
        TypeAdapter(RateField).validate_python(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("127.0.0.1:80", Address("127.0.0.1", 80)), ("[::1]:0", Address("::1", 0)), ("localhost:65535", Address("localhost", 65535))],
)
def test_addresses(text, expected):
    address = TypeAdapter(AddressField).validate_python(text)
    assert address == expected
    assert str(address) == text


@pytest.mark.parametrize("text", ["", ":80", "127.0.0.1", "127.0.0.1:", "::1:80", "127.0.0.1:65536", "[::1]", "a b:80", "[x]:1\n"])
def test_what_is_no_address(text):
    with pytest.raises(ValidationError, match="write an address as"):
        TypeAdapter(AddressField).validate_python(text)


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "10.0.0", "x", "010.0.0.0/8", "::/129", ""])
def test_what_is_no_network_is_refused_not_taken_as_text(text):
    with pytest.raises(ValidationError):
        TypeAdapter(NetworkField).validate_python(text)


@pytest.mark.parametrize("text", ["", "a b", "a:", "ü", "-".join("abcdefghij")])
def test_what_is_no_header_name(text):
    with pytest.raises(ValidationError, match="header field name"):
        TypeAdapter(HeaderName).validate_python(text)


@pytest.mark.parametrize(
    "text",
    ["", "127.0.0.1:80", "ftp://x", "http://", "http://x/path", "http://x?y", "http://x#y", "http://u:p@x", "http://x:0", "http://x:99999"],
)
def test_what_is_no_server(text):
    with pytest.raises(ValidationError, match="write a server as"):
        TypeAdapter(ServerField).validate_python(text)


@given(st.text(max_size=40))
def test_no_text_does_anything_but_parse_or_be_refused(text):
    for field in (RateField, AddressField, NetworkField, ServerField):
        adapter = TypeAdapter(field)
        with suppress(ValidationError):
            adapter.validate_python(text)


def test_a_proxy_protocol_that_nobody_speaks_is_an_error():
    with pytest.raises(ValueError, match="proxy_peers must name"):
        ClientIp.model_validate({"proxy_protocol": True, "trusted_proxies": ["10.0.0.0/8"]})


SESSION = """
[upstreams.spot]
servers = ["http://127.0.0.1:1"]
[[routes]]
match = "GET /ws"
scope = "public"
upstream = "spot"
"""


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ('websocket = "mobee"', "routes[0]"),
        ('websocket = "soap"\nmethods = "m"\n[methods.m]', "routes[0].websocket.literal['mobee','binance']"),
        ('websocket = true\nmethods = "m"\n[methods.m]', "routes[0]"),
        ('websocket = "mobee"\nmethods = "m"', "routes[0].methods"),
        ('websocket = "mobee"\nmethods = "m"\n[methods.m]\n"a\\tb" = { scope = "read" }', "methods.m.a\tb.[key]"),
        ('websocket = "mobee"\nmethods = "m"\n[methods.m]\norder = { scope = "write" }', "methods.m.order.scope"),
        ('websocket = "mobee"\nmethods = "m"\n[methods.m]\norder = { scope = "read", speed = 1 }', "methods.m.order.speed"),
    ],
)
def test_what_is_wrong_with_a_session_is_told_by_its_path(written, more, path):
    assert path in problems_of(written(MINIMAL + SESSION + more + "\n"))


def test_a_session_names_its_methods(written):
    more = (
        'websocket = "binance"\nmethods = "m"\n[methods.m]\n"order.place" = { scope = "trade" }\ntime = { scope = "public", weight = 0 }\n'
    )
    settings = load(written(MINIMAL + SESSION + more), GatewaySettings)
    assert settings.routes[0].session == "binance"
    assert [(name, rule.scope, rule.weight, rule.strict_replay) for name, rule in settings.methods["m"].items()] == [
        ("order.place", "trade", 1, True), ("time", "public", 0, False),
    ]  # fmt: skip


@pytest.mark.parametrize("origin", ["https://app.example", "http://localhost:3000", "https://[2001:db8::1]:8443"])
def test_an_origin_is_written_as_browsers_send_it(origin):
    assert Gateway(cors=(origin,)).cors == (origin,)


@pytest.mark.parametrize(
    "origin",
    ["*", "null", "app.example", "https://app.example/", "https://App.example", "https://app.example:443", "ftp://app.example",
     "https://u@app.example", "https://app.example:x", "https://app.example?", "https://app.example\r\nx: y", ""],
)  # fmt: skip
def test_an_origin_that_no_browser_sends_is_refused(origin):
    with pytest.raises(ValidationError):
        Gateway(cors=(origin,))
