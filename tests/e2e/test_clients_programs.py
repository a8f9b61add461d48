"""Whole trading programs through the gate, each in its own environment: prices, orders, and what the account's stream says of them."""

import json

import pytest

from tests.support import guide, programs

pytestmark = pytest.mark.timeout(2 * programs.SECONDS)  # the first time each is installed
STRATEGIES = programs.FOLDER / "strategies"
FREQTRADE = {
    "dry_run": False,
    "initial_state": "running",
    "db_url": "sqlite://",
    "stake_currency": "IDR",
    "stake_amount": 1_000_000,
    "max_open_trades": 1,
    "entry_pricing": {"price_side": "other", "use_order_book": False},
    "exit_pricing": {"price_side": "other", "use_order_book": False},
    "pairlists": [{"method": "StaticPairList"}],
    "internals": {"process_throttle_secs": 1},
}
"""What a customer chooses; what the gate needs is in the guide."""


def run(name, python, names):
    return programs.said(python, name, {"settings": guide.block(name), "names": names})


def test_hummingbots_connector(system, key_of):
    """Its cancellation and its fill it hears on the account's stream, which is what makes it ready, too."""
    python = programs.environment("hummingbot", least=(3, 11))
    saw = run("hummingbot", python, guide.values(system, key_of()))
    assert saw == {"ready": True, "opened": True, "cancelled": True, "filled": True, "BTC": "0.999"}


@pytest.mark.parametrize("algorithm", ["hmac-sha256", "ed25519"])
def test_a_node_of_nautilus_trader_with_a_strategy(system, key_of, algorithm):
    python = programs.environment("nautilus_trader", least=(3, 12))
    saw = run("nautilus_trader", python, guide.values(system, key_of(algorithm)))
    assert saw["seen"] == ["quote", "accepted", "canceled", "filled"]
    assert saw["balances"]["BTC"] == "0.99900000 BTC"


@pytest.fixture
def freqtrade(system, tmp_path):
    """Runs ``freqtrade trade …`` with a key until it has printed each of these words."""

    def run(key, wanted, *options):
        (tmp_path / "user").mkdir()
        configuration = tmp_path / "config.json"
        configuration.write_text(json.dumps(FREQTRADE | guide.configuration("freqtrade", guide.values(system, key))))
        program = programs.environment("freqtrade", least=(3, 11)).with_name("freqtrade")
        command = ["trade", "--config", str(configuration), "--userdir", "user", "--strategy", "Once", "--strategy-path", str(STRATEGIES)]
        return programs.printed([str(program), *command, *options], wanted, folder=tmp_path)

    return run


def test_freqtrade_buys_and_sells_and_watches_candles(freqtrade, key_of):
    freqtrade(key_of(), ["SAID buy closed", "SAID sell closed", "watch done BTC/IDR, 1m"], "-vvv")


def test_freqtrade_shows_why_an_order_was_refused(freqtrade, key_of):
    freqtrade(key_of(scopes=["read"]), ["Unable to create trade for BTC/IDR", "requires the permission trade; this key has read"])


def test_freqtrade_shows_what_should_have_been_signed(freqtrade, key_of):
    wrong = key_of() | {"secret": key_of()["secret"]}
    said = freqtrade(wrong, ["Could not load markets, therefore cannot start"])
    assert "Unknown key, or the signature does not match: compare gerbang.string_to_sign with what you signed" in said
