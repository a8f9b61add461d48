"""Whole trading programs through the gate, each in its own environment: prices, orders, and what the account's stream says of them."""

import pytest

from tests.support import guide, programs

pytestmark = pytest.mark.timeout(2 * programs.SECONDS)  # the first time each is installed


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
