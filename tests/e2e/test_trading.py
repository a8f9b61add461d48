"""A bot trades through the gate with the demo key: by ``gerbang call``, by the smallest program, by its own requests."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.support.system import GERBANG

ROOT = Path(__file__).parents[2]
ORDER = {"symbol": "BTC-IDR", "side": "buy", "type": "limit", "price": "900000000", "quantity": "0.001"}


def call(system, *arguments, key=True, **environment):
    command = [GERBANG, "call", *arguments, *(["--key", system.folder / "demo-key.json"] if key else [])]
    return subprocess.run(command, capture_output=True, text=True, env=system.environment | environment)


def answered(done):
    status, _, body = done.stdout.partition("\n")
    return status, json.loads(body)


@pytest.mark.parametrize("dialect", ["mobee", "binance", "rfc9421"])
def test_gerbang_call_reads_a_price_and_balances_and_places_lists_and_cancels_an_order(system, dialect):
    url, how = system.gateway_url, ("--dialect", dialect)
    status, price = answered(call(system, "GET", f"{url}/v1/markets/BTC-IDR/summary", key=False))
    assert (status, price["symbol"]) == ("200 OK", "BTC-IDR")
    status, balances = answered(call(system, "GET", f"{url}/v1/wallets", *how))
    assert status == "200 OK"
    assert {wallet["currency"] for wallet in balances["wallets"]} == {"BTC", "ETH", "IDR", "USDT"}
    if dialect == "binance":  # its bodies are forms
        symbol = "symbol=BTCIDR"
        order = f"{symbol}&side=BUY&type=LIMIT&price=900000000&quantity=0.001"
        status, order = answered(call(system, "POST", f"{url}/api/v3/order", *how, "--data", order))
        assert (status, order["status"]) == ("200 OK", "NEW")
        status, order = answered(call(system, "DELETE", f"{url}/api/v3/order?{symbol}&orderId={order['orderId']}", *how))
        assert (status, order["status"]) == ("200 OK", "CANCELED")
        return
    status, order = answered(call(system, "POST", f"{url}/v1/orders", *how, "--data", json.dumps(ORDER)))
    assert (status, order["status"]) == ("201 Created", "open")
    _, listed = answered(call(system, "GET", f"{url}/v1/orders?status=open", *how))
    assert order["id"] in [each["id"] for each in listed["orders"]]
    status, cancelled = answered(call(system, "DELETE", f"{url}/v1/orders/{order['id']}", *how))
    assert (status, cancelled["status"]) == ("200 OK", "cancelled")


PRIVATE_KEYS: dict[str, Any] = {"ed25519": Ed25519PrivateKey.generate(), "rsa-sha256": generate_private_key(65537, 2048)}


@pytest.mark.parametrize("algorithm", PRIVATE_KEYS)
@pytest.mark.parametrize("dialect", ["mobee", "binance", "rfc9421"])
def test_gerbang_call_signs_with_a_private_key_that_never_left_its_owner(system, customer_of, tmp_path, algorithm, dialect):
    private = PRIVATE_KEYS[algorithm]
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    key = customer_of().create_key(algorithm=algorithm, public_key=public)
    assert key["secret"] is None
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    file = tmp_path / "key.json"
    file.write_text(json.dumps({"key_id": key["key_id"], "private_key": pem, "dialect": dialect}))
    done = call(system, "GET", f"{system.gateway_url}/v1/wallets?x=1", "--key", file, key=False)
    assert answered(done)[0] == "200 OK", done


def test_the_smallest_program_trades_with_requests_hmac_and_base64(system):
    program = [sys.executable, ROOT / "deploy" / "clients" / "python" / "order.py", system.gateway_url, system.folder / "demo-key.json"]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    placed, listed, cancelled = done.stdout.splitlines()
    assert placed.split()[0] == "placed"
    assert placed.split()[1] in listed
    assert cancelled == "cancelled cancelled"


def test_the_smallest_program_shows_why_it_was_refused(system, key_of, tmp_path):
    (tmp_path / "key.json").write_text(json.dumps(key_of(scopes=["read"])))
    program = [sys.executable, ROOT / "deploy" / "clients" / "python" / "order.py", system.gateway_url, tmp_path / "key.json"]
    done = subprocess.run(program, capture_output=True, text=True)
    assert (done.returncode, "scope_not_granted" in done.stderr) == (1, True), done.stderr
    assert "Traceback" not in done.stderr


def test_the_shell_and_node_examples_trade_too(system):
    environment = system.environment | {"GERBANG_KEY": str(system.folder / "demo-key.json")}
    command = [ROOT / "deploy" / "clients" / "bash" / "gerbang.sh", "POST", f"{system.gateway_url}/v1/orders", json.dumps(ORDER)]
    placed = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)
    node = ["node", ROOT / "deploy" / "clients" / "node" / "gerbang.mjs", system.gateway_url, system.folder / "demo-key.json"]
    done = subprocess.run([*node, "DELETE", f"/v1/orders/{placed['id']}"], capture_output=True, text=True)
    assert json.loads(done.stdout)["status"] == "cancelled", done.stderr


def test_a_refused_call_ends_with_status_1_and_says_what_to_do(system):
    done = call(system, "GET", f"{system.gateway_url}/v1/wallets", key=False)
    assert (done.returncode, done.stdout.splitlines()[0]) == (1, "401 Unauthorized")
    assert "Give a key file with --key FILE." in done.stderr


def test_the_upstream_is_told_who_it_is_and_nobody_gets_there_past_the_gate(system, demo_bot):
    assert demo_bot.call("GET", "/v1/wallets").status == 200
    done = call(system, "GET", f"{system.exchange_url}/v1/wallets")
    assert done.stdout.startswith("401 ")


def test_the_gates_own_answers_tell_a_bot_what_it_needs(system, demo_bot):
    assert demo_bot.call("GET", "/gateway/v1/ip").content["client_ip"] == "127.0.0.1"
    assert demo_bot.call("GET", "/gateway/v1/time").status == 200
    key = demo_bot.call("GET", "/gateway/v1/key").content
    assert (key["label"], sorted(key["scopes"])) == ("Demo key", ["read", "trade"])
