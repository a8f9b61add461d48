"""What is written about the demo exchange: every call, every parameter that its code reads, every market."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from deploy.local.exchange import binance_like
from deploy.local.exchange.binance_like import rest as binance_rest
from deploy.local.exchange.engine import Exchange
from deploy.local.exchange.market import MARKETS
from deploy.local.exchange.mobee_like import rest as mobee_rest

ROOT = Path(__file__).parents[3]
TOLD = set(re.findall(r"`([^`]+)`", (ROOT / "deploy" / "local" / "EXCHANGE.md").read_text("utf-8")))
ROWS = re.findall(r"^\| ((?:`\w+ /[^`]+` ?)+)\| (\w+) \|", (ROOT / "deploy" / "local" / "EXCHANGE.md").read_text("utf-8"), re.MULTILINE)
READERS = {"text", "needed", "number", "amount", "choice", "client_id"}


def test_every_call_is_there_and_no_other():
    exchange = Exchange.__new__(Exchange)
    routes = [*mobee_rest.MobeeRoutes(exchange).routes(), *binance_rest.routes(exchange)]
    served = {f"{route.method} {route.path}" for route in routes}
    assert served == {call for call in TOLD if re.match(r"(GET|POST|DELETE) /(v1|api|sapi|fapi|dapi)/", call)}


def test_each_call_has_the_scope_that_the_gate_asks_for():
    text = (ROOT / "deploy" / "local" / "templates" / "gateway.toml").read_text("utf-8").replace("$folder", "/x")
    routes = {route["match"].replace("{id}", "{number}"): route["scope"] for route in tomllib.loads(text)["routes"]}
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
