"""A deleted key is refused by the next request on a connection that is open already: within 100 ms, or 1 s without Redis."""

import os
import signal
import time

import pytest

from tests.support.bot import Bot
from tests.support.customer import Customer
from tests.support.ports import free_row
from tests.support.system import System

KEYS = 100
PATIENCE_S = 3.0


def passes_on_for_ms(bot: Bot, customer: Customer, key_id: str) -> float:
    """Delete the key and ask on the bot's open connection until it is refused; how long it still passed after the deletion's answer."""
    assert bot.call("GET", "/v1/wallets").status == 200
    customer.delete_key(key_id)
    deleted = time.perf_counter()
    while (answer := bot.call("GET", "/v1/wallets")).status == 200:
        assert time.perf_counter() - deleted < PATIENCE_S
    refused = time.perf_counter()
    assert (answer.status, answer.code) == (401, "invalid_credentials")
    return (refused - deleted) * 1000


def test_99_of_100_deleted_keys_are_refused_within_100_ms(system, customer_of, record_property):
    delays = []
    for number in range(KEYS):
        customer = customer_of()
        key = customer.create_key()
        # An address for each: refused credentials are counted per address.
        with Bot(system.gateway_url, key, address=f"127.0.2.{number + 1}") as bot:
            delays.append(passes_on_for_ms(bot, customer, key["key_id"]))
    delays.sort()
    told = ", ".join(f"{name} {delays[place]:.1f}" for name, place in (("median", 49), ("p90", 89), ("p99", 98), ("max", 99)))
    record_property("measured", f"{KEYS} deleted keys, ms from the deletion's answer to the first refusal: {told}")
    assert sum(delay <= 100 for delay in delays) >= 99


@pytest.fixture
def own_system(tmp_path):
    running = System(tmp_path / "data", free_row())
    running.start()
    yield running
    running.end()


def test_without_redis_a_deleted_key_is_refused_within_a_second_and_reads_go_on(own_system, record_property):
    customers = [Customer(own_system.admin_url, own_system.identity_url) for _ in range(5)]
    keys = [customer.create_key() for customer in customers]
    bots = [Bot(own_system.gateway_url, key) for key in keys]
    for bot in bots:
        assert bot.call("GET", "/v1/wallets").status == 200
    os.kill(own_system.process("redis-server"), signal.SIGKILL)
    delays = [passes_on_for_ms(bot, customer, key["key_id"]) for bot, customer, key in zip(bots, customers, keys, strict=True)]
    record_property("measured", f"the same without Redis: {', '.join(f'{delay:.1f}' for delay in delays)}")
    assert max(delays) <= 1000
    with Bot(own_system.gateway_url, own_system.demo_key) as demo:
        assert demo.call("GET", "/v1/wallets").status == 200
        trade = demo.call("POST", "/v1/orders", {})
        assert (trade.status, trade.code) == (503, "replay_guard_unavailable")
    for bot in bots:
        bot.connection.close()
    assert own_system.says("Redis has ended").endswith("the rest keeps running")
