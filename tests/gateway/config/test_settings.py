"""Rules over several settings of a section."""

import pytest
from pydantic import ValidationError

from gateway.config.loading import load
from gateway.config.settings import ClientIp, Gateway, GatewaySettings
from tests.gateway.config.files import MINIMAL, problems_of


def test_a_proxy_protocol_that_nobody_speaks_is_an_error():
    with pytest.raises(ValueError, match="proxy_peers must name"):
        ClientIp.model_validate({"proxy_protocol": True, "trusted_proxies": ["10.0.0.0/8"]})


@pytest.mark.parametrize("header", ["X-Forwarded-For", "x-forwarded-for", "Forwarded"])
@pytest.mark.parametrize("form", ["address", "address:port"])
def test_a_list_of_hops_has_no_form_of_one_address(header, form):
    with pytest.raises(ValueError, match=f"{header} is a list of hops"):
        ClientIp.model_validate({"header": header, "header_form": form})
    assert ClientIp.model_validate({"header": "X-Our-Client", "header_form": form}).header_form == form


@pytest.mark.parametrize("form", ["", "port", "address:port ", 1, ["address"]])
def test_a_form_that_does_not_exist_is_refused(form):
    with pytest.raises(ValidationError):
        ClientIp.model_validate({"header": "X-Our-Client", "header_form": form})


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
        ('websocket = "soap"\nmethods = "m"\n[methods.m]', "routes[0].websocket"),
        ("websocket = 7", "routes[0].websocket"),
        ('websocket = true\nmethods = "m"\n[methods.m]', "routes[0]"),
        ('websocket = "mobee"\nmethods = "m"', "routes[0].methods"),
        ('websocket = "mobee"\nmethods = "m"\n[methods.m]\n"a\\tb" = { scope = "read" }', "methods.m.a\tb.[key]"),
        ('websocket = "mobee"\nmethods = "m"\n[methods.m]\norder = { scope = "write" }', "methods.m.order.scope"),
        ('websocket = "mobee"\nmethods = "m"\n[methods.m]\norder = { scope = "read", speed = 1 }', "methods.m.order.speed"),
    ],
)
def test_what_is_wrong_with_a_session_is_told_by_its_path(written, more, path):
    assert path in problems_of(written(MINIMAL + SESSION + more + "\n"))


def test_clients_and_operators_have_ports_of_their_own(written):
    listen = '[listen]\npublic = "127.0.0.1:{0}"\nops = "127.0.0.1:{0}"\n'
    assert problems_of(written(MINIMAL + listen.format(8080)))["listen"] == "public and ops must differ"
    assert load(written(MINIMAL + listen.format(0)), GatewaySettings).listen.public.port == 0


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
