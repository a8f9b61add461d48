"""Loading: read whole, refused whole, each problem by its key's path, no secret in any message."""

import copy
import math
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from admin.config import AdminSettings
from gateway.config.loading import Raw, load, read, validate
from gateway.config.settings import GatewaySettings
from gateway.config.values import Rate
from gateway.errors import ConfigError
from tests.gateway.config.files import MINIMAL, problems_of


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
    ("text", "place", "meant"),
    [
        ("[limitz]", "limitz", "limits"),
        ('[limits]\nper_kee = "1/second"', "limits.per_kee", "per_key"),
        ("[upstreams.spot]\nserver = []", "upstreams.spot.server", "servers"),
        ("[upstreams.spot.helth]", "upstreams.spot.helth", "health"),
        ("[[routes]]\nwieght = 1", "routes[0].wieght", "weight"),
        ("[quux]", "quux", None),
    ],
)
def test_a_key_that_is_not_known_is_told_with_the_one_that_is_near(written, text, place, meant):
    assert problems_of(written(text))[place] == ("not a known key" if meant is None else f"not a known key: did you mean {meant}?")


def places(value: Any, *above: str | int) -> Iterator[tuple[str | int, ...]]:
    """Where each value of a parsed file stands, tables and arrays among them."""
    for part, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*above, part)
        yield from places(inner, *above, part)


@pytest.mark.parametrize(("file", "model"), [("gateway.toml", GatewaySettings), ("admin.toml", AdminSettings)])
@pytest.mark.parametrize("wrong", ["?", "", 5.5, -1, 1 << 70, math.nan, True, [], [5.5], {}, "left out"], ids=repr)
def test_whatever_is_wrong_with_a_setting_is_told_in_the_words_of_the_file(file, model, wrong):
    """Not in those of Python's types ("a valid dictionary or instance of Tls", "Tuple should have"), which no operator has written."""
    example = tomllib.loads((Path(__file__).parents[3] / "config" / file).read_text())
    told: set[str] = set()
    for *above, last in places(example):
        values = copy.deepcopy(example)
        table: Any = values
        for part in above:
            table = table[part]
        if wrong == "left out":
            del table[last]
        else:
            table[last] = wrong
        try:
            validate(Raw(file, values, []), model)
        except ConfigError as error:
            told |= {problem.message for problem in error.problems}
    assert told
    assert not {message for message in told if re.match("[A-Z][a-z]+ (should|required)", message)}


@pytest.mark.parametrize(
    ("text", "message"),
    [("[stores", "not TOML"), ("\x00", "not TOML"), ("a = 1\na = 2", "not TOML"), (f"a = {'[' * 5_000}", "not TOML")],
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
    text = (
        '[stores]\npostgres = "file:nothing"\nredis = "env:GERBANG_TEST_UNSET"\n[vault]\nkeys = "file:a\\u0000b"\n[limits]\nper_key = 1\n'
    )
    problems = problems_of(written(text))
    assert problems["stores.postgres"] == f"{tmp_path / 'nothing'} cannot be read: No such file or directory"
    assert problems["stores.redis"] == "the environment variable GERBANG_TEST_UNSET is not set"
    assert problems["vault.keys"] == "the path contains NUL"
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
