"""What is written about the demo exchange: every call, every parameter that its code reads, every market."""

import ast
import json
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy.local.exchange import binance_like
from deploy.local.exchange.app import application
from deploy.local.exchange.binance_like.session import ApiSession
from deploy.local.exchange.engine import Exchange
from deploy.local.exchange.feed import Feed
from deploy.local.exchange.market import MARKETS
from deploy.local.exchange.mobee_like import rest as mobee_rest
from deploy.local.exchange.mobee_like.stream import StreamSession as MobeeStream
from gateway.runtime import clock

ROOT = Path(__file__).parents[3]
TEMPLATE = (ROOT / "deploy" / "local" / "templates" / "gateway.toml").read_text("utf-8").replace("$folder", "/x")
TOLD = set(re.findall(r"`([^`]+)`", (ROOT / "deploy" / "local" / "EXCHANGE.md").read_text("utf-8")))
ROWS = re.findall(r"^\| ((?:`\w+ /[^`]+` ?)+)\| (\w+) \|", (ROOT / "deploy" / "local" / "EXCHANGE.md").read_text("utf-8"), re.MULTILINE)
READERS = {"text", "needed", "number", "amount", "choice", "client_id"}


def test_every_call_is_there_and_no_other():
    """Those that only a WebSocket opens, too."""
    routes = application("http://127.0.0.1:1/jwks").router.routes()
    served = {f"{route.method} {route.resource.canonical}" for route in routes if route.method != "HEAD"} - {"GET /health"}
    assert len(served) > 40
    assert served == {call.partition("?")[0] for call in TOLD if re.match(r"(GET|POST|DELETE) /", call)}


@pytest.mark.parametrize(("table", "session"), [("mobee", MobeeStream), ("binance-spot", ApiSession)])
async def test_every_method_that_the_gate_lists_is_one_of_the_exchange(table, session):
    """The customers' documentation lists them."""

    async def caller(_message):
        return SimpleNamespace(account_id="siti")

    methods = tomllib.loads(TEMPLATE)["methods"][table]
    assert len(methods) > 8
    answers = []
    socket = SimpleNamespace(send=lambda message, *_: answers.append(str(message)), listen=lambda *_: None, leave=lambda *_: None)
    opened = session(socket, Exchange(Feed(), clock.now_ms()), SimpleNamespace(of=caller))
    for method in methods:
        name, _, event = method.partition(" ")
        await opened.received(json.dumps({"id": 1, "method": name} | ({"events": [event]} if event else {})))
    assert [answer for answer in answers if re.search("Unknown (method|event)", answer)] == []


def test_each_call_has_the_scope_that_the_gate_asks_for():
    routes = {route["match"].replace("{id}", "{number}"): route["scope"] for route in tomllib.loads(TEMPLATE)["routes"]}
    told = {call: scope for calls, scope in ROWS for call in re.findall(r"`([^`]+)`", calls)}
    assert len(told) > 30
    assert told == {call: routes[call] for call in told}


def test_every_parameter_that_is_read_is_there():
    read = set(mobee_rest.MEMBERS) | {"symbols"}
    for file in Path(binance_like.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in READERS and node.args:
                name = node.args[0]
                read |= {name.value} if isinstance(name, ast.Constant) and isinstance(name.value, str) else set()
    assert len(read) > 20
    assert read - TOLD == set()


@pytest.mark.parametrize("market", MARKETS.values(), ids=MARKETS)
def test_each_market_is_told_as_it_is(market):
    row = f"| `{market.symbol}` | {market.price} | {market.tick:f} | {market.lot:f} | {market.least} {market.quote} |"
    assert row in (ROOT / "deploy" / "local" / "EXCHANGE.md").read_text("utf-8")
