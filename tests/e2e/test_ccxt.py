"""An unmodified ccxt, class ``binance``, trades through the gate with each kind of key; its exceptions say what is wrong."""

import ccxt
import pytest

from gateway.runtime import clock
from tests.support.customer import PRIVATE_KEYS

SYMBOL = "BTC/IDR"


def exchange(system, key, **options):
    return ccxt.binance(
        {
            "apiKey": key["key_id"],
            "secret": key["secret"],
            "urls": {"api": {"public": f"{system.gateway_url}/api/v3", "private": f"{system.gateway_url}/api/v3"}},
            "options": {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False, "fetchMargins": False, **options},
            "enableRateLimit": False,
        }
    )


@pytest.mark.parametrize("algorithm", ["hmac-sha256", *PRIVATE_KEYS])
def test_ccxt_reads_and_trades(system, key_of, algorithm):
    bot = exchange(system, key_of(algorithm))
    assert SYMBOL in bot.load_markets()
    price = bot.fetch_ticker(SYMBOL)["last"]
    assert price > 0
    assert bot.fetch_balance()["IDR"]["free"] > 0
    read = {name.lower(): value for name, value in bot.last_response_headers.items()}
    assert int(read["x-mbx-used-weight-1m"]) > 0
    assert "x-mbx-order-count-1m" not in read
    order = bot.create_order(SYMBOL, "limit", "buy", 0.001, price * 0.8)
    placed = {name.lower(): value for name, value in bot.last_response_headers.items()}
    assert int(placed["x-mbx-used-weight-1m"]) > int(read["x-mbx-used-weight-1m"])
    assert int(placed["x-mbx-order-count-1m"]) == 1
    assert bot.fetch_order(order["id"], SYMBOL)["status"] == "open"
    assert order["id"] in [each["id"] for each in bot.fetch_open_orders(SYMBOL)]
    assert bot.cancel_order(order["id"], SYMBOL)["status"] == "canceled"
    assert isinstance(bot.fetch_my_trades(SYMBOL), list)


def test_a_wrong_secret_and_an_unknown_key_are_authentication_errors(system, key_of):
    key = key_of()
    for wrong in (key | {"secret": "gbs_wrong"}, key | {"key_id": "gbk_unknown"}):
        with pytest.raises(ccxt.AuthenticationError, match="-1022"):
            exchange(system, wrong).fetch_balance()


def test_a_missing_permission_stops_a_bot_also_after_it_has_succeeded(system, key_of):
    bot = exchange(system, key_of(scopes=["read"]))
    assert bot.fetch_balance()
    with pytest.raises(ccxt.AuthenticationError, match="scope_not_granted"):
        bot.create_order(SYMBOL, "limit", "buy", 0.001, bot.fetch_ticker(SYMBOL)["last"] * 0.8)


def test_an_address_that_is_not_listed_is_named_in_the_exception(system, key_of):
    with pytest.raises(
        ccxt.AuthenticationError, match=r"the request came from 127.0.0.1 \(IPv4\), and this key's IP allowlist has 1 address"
    ):
        exchange(system, key_of(ip_access="whitelisted", ip_allowlist=["8.8.8.8"])).fetch_balance()


@pytest.mark.parametrize("difference_ms", [3_000, -20_000])
def test_a_clock_that_is_ahead_or_behind_is_an_invalid_nonce(system, key_of, difference_ms):
    bot = exchange(system, key_of())
    bot.nonce = lambda: clock.now_ms() + difference_ms
    with pytest.raises(ccxt.InvalidNonce, match="Timestamp for this request"):
        bot.fetch_balance()
