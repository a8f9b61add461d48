"""What the gate refuses, each with the contract's code. The key is good each time; one thing about the request is not."""

import base64
import itertools

import pytest

from deploy.signing import SigningKey, sign
from gateway.keys.ids import new_key_id
from gateway.runtime import clock

ADDRESSES = itertools.count(1)
ORDER = {"symbol": "BTC-IDR", "side": "buy", "type": "limit", "price": "900000000", "quantity": "0.001"}
BODY = b'{"symbol":"BTC-IDR","side":"buy","type":"limit","price":"900000000","quantity":"0.001"}'


def refused(answer, status, code):
    assert (answer.status, answer.code) == (status, code), answer
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert {"type", "title", "status", "code", "detail", "request_id"} <= answer.content.keys()
    return answer.content


@pytest.fixture
def bot(system, bot_of):
    """The demo key from an address of its own: refusals of one test are not counted against another."""
    return bot_of(system.demo_key, address=f"127.0.1.{next(ADDRESSES)}")


def test_no_credentials(bot_of):
    refused(bot_of().call("GET", "/v1/wallets"), 401, "missing_credentials")


def flipped(text, place=0):
    """The same text with one character changed."""
    return text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]


def test_one_byte_of_the_path_changed(bot):
    headers = bot.signed("GET", "/v1/orders/12")
    told = refused(bot.send("GET", "/v1/orders/13", b"", headers), 401, "invalid_credentials")
    assert told["string_to_sign"].startswith("GET\n/v1/orders/13\n")


def test_one_byte_of_the_method_changed(bot):
    headers = bot.signed("DELETE", "/v1/orders/12")
    refused(bot.send("GET", "/v1/orders/12", b"", headers), 401, "invalid_credentials")


@pytest.mark.parametrize("place", [0, 40, len(BODY) - 1])
def test_one_byte_of_the_body_changed(bot, place):
    headers = bot.signed("POST", "/v1/orders", BODY)
    changed = BODY[:place] + bytes([BODY[place] ^ 1]) + BODY[place + 1 :]
    refused(bot.send("POST", "/v1/orders", changed, headers), 401, "invalid_credentials")


def test_one_digit_of_the_timestamp_changed(bot):
    headers = bot.signed("GET", "/v1/wallets")
    stamp = headers["X-Request-Timestamp"]
    headers["X-Request-Timestamp"] = stamp[:-1] + str((int(stamp[-1]) + 1) % 10)
    refused(bot.send("GET", "/v1/wallets", b"", headers), 401, "invalid_credentials")


@pytest.mark.parametrize("place", [0, 20, 42])
def test_one_character_of_the_signature_changed(bot, place):
    headers = bot.signed("GET", "/v1/wallets")
    changed = flipped(headers["X-Request-Signature"], place)
    if base64.b64decode(changed) == base64.b64decode(headers["X-Request-Signature"]):
        changed = flipped(changed, 10)
    refused(bot.send("GET", "/v1/wallets", b"", headers | {"X-Request-Signature": changed}), 401, "invalid_credentials")


def test_an_unknown_key_gets_the_answer_of_a_wrong_signature(system, bot, bot_of):
    headers = bot.signed("GET", "/v1/wallets")
    wrong = refused(bot.send("GET", "/v1/wallets", b"", headers | {"X-Request-Signature": "A" * 43 + "="}), 401, "invalid_credentials")
    unknown = refused(bot.send("GET", "/v1/wallets", b"", headers | {"X-API-Key": new_key_id()}), 401, "invalid_credentials")
    for told in (wrong, unknown):
        del told["request_id"]
    assert wrong == unknown


@pytest.mark.parametrize(("skew_ms", "window"), [(-6_000, 5_000), (2_000, 1_000)])
def test_a_timestamp_six_seconds_old_or_two_ahead(bot, skew_ms, window):
    before_ms = clock.now_ms()
    told = refused(bot.call("GET", "/v1/wallets", skew_ms=skew_ms), 401, "timestamp_out_of_window")
    assert before_ms <= told["server_time_ms"] <= clock.now_ms()
    assert before_ms + skew_ms <= told["server_time_ms"] + told["skew_ms"] <= clock.now_ms() + skew_ms, "which is what was signed"
    assert "window_ms" in told


def test_seconds_and_milliseconds_are_both_understood(system, bot):
    key = SigningKey(system.demo_key["key_id"], system.demo_key["secret"])
    seconds = str(clock.now_ms() // 1000)
    signature = base64.b64encode(key.sign(f"GET\n/v1/wallets\n{seconds}".encode())).decode()
    headers = {"X-API-Key": key.key_id, "X-Request-Timestamp": seconds, "X-Request-Signature": signature}
    assert bot.send("GET", "/v1/wallets", b"", headers).status == 200


def test_a_replayed_order(bot):
    headers = bot.signed("POST", "/v1/orders", BODY)
    assert bot.send("POST", "/v1/orders", BODY, headers).status == 201
    refused(bot.send("POST", "/v1/orders", BODY, headers), 409, "replayed_request")


def test_a_read_only_key_placing_an_order(customer_of, bot_of):
    bot = bot_of(customer_of().create_key(scopes=["read"]))
    assert bot.call("GET", "/v1/wallets").status == 200
    told = refused(bot.call("POST", "/v1/orders", ORDER), 403, "scope_not_granted")
    assert (told["required"], told["granted"]) == ("trade", ["read"])


def test_a_trade_only_key_reading_a_balance(customer_of, bot_of):
    bot = bot_of(customer_of().create_key(scopes=["trade"]))
    assert bot.call("POST", "/v1/orders", ORDER).status == 201
    told = refused(bot.call("GET", "/v1/wallets"), 403, "scope_not_granted")
    assert (told["required"], told["granted"]) == ("read", ["trade"])


@pytest.mark.parametrize("forged", [{}, {"X-Forwarded-For": "8.8.8.8"}, {"Forwarded": "for=8.8.8.8"}, {"X-Real-IP": "8.8.8.8"}])
def test_a_whitelisted_key_from_another_address_whatever_it_claims(customer_of, bot_of, forged, whitelisted):
    told = refused(bot_of(whitelisted).call("GET", "/v1/wallets", headers=forged), 403, "ip_not_allowed")
    assert (told["client_ip"], told["allowed_count"]) == ("127.0.0.1", 1)


@pytest.fixture(scope="module")
def whitelisted(customer_of):
    return customer_of().create_key(ip_access="whitelisted", ip_allowlist=["8.8.8.8"])


@pytest.mark.parametrize("target", ["/v1/nowhere", "/", "/v1/wallets/", "/v2/wallets", "/metrics", "/internal/v1/accounts/demo"])
def test_an_unlisted_route(bot, target):
    refused(bot.call("GET", target), 404, "no_route")


@pytest.mark.parametrize(
    "target",
    [
        "//v1/wallets",
        "/v1//wallets",
        "/v1%2fwallets",
        "/v1/orders/%2F",
        "/v1/orders/../wallets",
        "/v1/orders/..",
        "/v1/./wallets",
        "/v1/wallets;x",
    ],
)
def test_a_path_that_can_be_read_in_two_ways(bot, target):
    refused(bot.call("GET", target), 400, "ambiguous_path")


def test_a_query_that_the_signature_does_not_cover(bot):
    refused(bot.call("POST", "/v1/orders?price=1", ORDER), 400, "unsigned_query")


def test_a_frozen_account_until_it_is_thawed(system, customer_of, bot_of, operator):
    customer = customer_of()
    bot = bot_of(customer.create_key())
    assert bot.call("GET", "/v1/wallets").status == 200
    assert operator("accounts", "freeze", customer.account).returncode == 0
    refused(bot.becomes("account_frozen"), 403, "account_frozen")
    assert operator("accounts", "thaw", customer.account).returncode == 0
    bot.becomes(200)


def test_a_key_that_the_operator_revoked(customer_of, bot_of, operator):
    customer = customer_of()
    key = customer.create_key()
    bot = bot_of(key)
    assert bot.call("GET", "/v1/wallets").status == 200
    assert operator("keys", "revoke", key["key_id"], "--reason", "leaked").returncode == 0
    refused(bot.becomes("invalid_credentials"), 401, "invalid_credentials")
    assert "revoked" in operator("keys", "show", key["key_id"]).stdout
    assert key["key_id"] in operator("keys", "list", "--account", customer.account).stdout


def test_the_binance_dialect_answers_in_its_own_form(system, bot_of):
    key = SigningKey(system.demo_key["key_id"], "gbs_wrong")
    sent = sign("binance", key, "GET", "/api/v3/account", b"", now_ms=clock.now_ms(), nonce="")
    answer = bot_of(address="127.0.1.251").send("GET", sent.target, b"", sent.headers)
    assert (answer.status, answer.content["code"], answer.content["gerbang"]["code"]) == (401, -1022, "invalid_credentials")


def test_a_binance_read_that_somebody_caught_passes_as_a_read_alone_and_never_as_a_trade(system, bot):
    key = SigningKey(system.demo_key["key_id"], system.demo_key["secret"])

    def signed(method, query, body=b""):
        return sign("binance", key, method, f"/api/v3/order{query}", body, now_ms=clock.now_ms(), nonce="")

    placed = signed("POST", "", b"symbol=BTCIDR&side=BUY&type=LIMIT&price=900000000&quantity=0.001")
    order = bot.send("POST", placed.target, placed.body, placed.headers).content
    which = f"?symbol=BTCIDR&orderId={order['orderId']}"
    caught = signed("GET", which)
    assert bot.send("GET", caught.target, b"", caught.headers).content["status"] == "NEW"
    for method, status in (("DELETE", 409), ("GET", 200), ("HEAD", 200), ("DELETE", 409)):
        again = bot.send(method, caught.target, b"", caught.headers)
        assert again.status == status, method
    assert bot.send("DELETE", caught.target, b"", caught.headers).content["gerbang"]["code"] == "replayed_request"
    cancelled = signed("DELETE", which)
    assert bot.send("DELETE", cancelled.target, b"", cancelled.headers).content["status"] == "CANCELED"
