"""The limit of refused credentials by address."""

from gateway.admission.failures import LOOK_UPS, AddressLimiter, FailureLimiter
from gateway.config.values import Rate

FAILURES = Rate(3, 60_000)


def test_an_address_that_failed_too_often_waits():
    limiter = FailureLimiter()
    for _ in range(3):
        assert limiter.retry_after_ms("192.0.2.1", FAILURES, 1_000) == 0
        limiter.failed("192.0.2.1", FAILURES, 1_000)
    assert limiter.retry_after_ms("192.0.2.1", FAILURES, 1_000) == 20_000
    assert limiter.retry_after_ms("192.0.2.1", FAILURES, 21_000) == 0
    assert limiter.retry_after_ms("192.0.2.2", FAILURES, 1_000) == 0


def test_failing_while_blocked_does_not_prolong_the_wait():
    limiter = FailureLimiter()
    for _ in range(50):
        limiter.failed("192.0.2.1", FAILURES, 1_000)
    assert limiter.retry_after_ms("192.0.2.1", FAILURES, 1_000) == 20_000


def test_all_addresses_of_one_ipv6_network_are_one():
    limiter = FailureLimiter()
    for number in range(3):
        limiter.failed(f"2001:db8:1:2::{number}", FAILURES, 1_000)
    assert limiter.retry_after_ms("2001:db8:1:2:ffff::9", FAILURES, 1_000) > 0
    assert limiter.retry_after_ms("2001:db8:1:3::1", FAILURES, 1_000) == 0


def test_a_flood_from_many_addresses_does_not_grow_the_memory_and_keeps_the_latest():
    limiter = FailureLimiter(max_addresses=100)
    for number in range(1_000):
        limiter.failed(f"10.0.{number // 250}.{number % 250}", FAILURES, 1_000)
        for _ in range(3):
            limiter.failed("192.0.2.1", FAILURES, 1_000)
    assert len(limiter) <= 100
    assert limiter.retry_after_ms("192.0.2.1", FAILURES, 1_000) > 0


def test_what_is_no_address_is_limited_as_it_is():
    limiter = FailureLimiter()
    for text in ("", "not:an:address"):
        for _ in range(3):
            limiter.failed(text, FAILURES, 1_000)
        assert limiter.retry_after_ms(text, FAILURES, 1_000) > 0


def looked_up(limiter, address, now_ms, number):
    return [limiter.may_look_up(address, FAILURES, now_ms) for _ in range(number)].count(True)


def test_all_addresses_that_are_held_back_share_few_look_ups():
    limiter = FailureLimiter()
    for address in ("192.0.2.1", "2001:db8:1:2::1"):
        for _ in range(3):
            limiter.failed(address, FAILURES, 0.5)
    assert looked_up(limiter, "192.0.2.1", 0.5, LOOK_UPS.units + 1) == LOOK_UPS.units
    assert looked_up(limiter, "2001:db8:1:2::1", 20.4, 1) == 0
    assert looked_up(limiter, "192.0.2.1", 20.5, 2) == 1


def failing(limiter, networks, now_ms):
    """Each of so many networks of one site fails twice."""
    for network in range(networks):
        for _ in range(2):
            limiter.failed(f"2001:db8:1:{network:x}::1", FAILURES, now_ms)


def test_a_site_that_failed_too_often_waits_with_all_of_its_networks_and_no_other_does():
    limiter = FailureLimiter()
    failing(limiter, 14, 1_000)
    assert limiter.retry_after_ms("2001:db8:1:ffff::1", FAILURES, 1_000) == 0
    failing(limiter, 1_000, 1_000)
    assert limiter.retry_after_ms("2001:db8:1:ffff::1", FAILURES, 1_000) == 2_000
    assert limiter.retry_after_ms("2001:db8:1:ffff::1", FAILURES, 3_000) == 0
    assert limiter.retry_after_ms("2001:db8:2::1", FAILURES, 1_000) == 0
    assert limiter.of_network_ms("2001:db8:1:ffff::1", FAILURES, 1_000) == 0, "which has not failed itself"
    assert len(limiter) <= 20, "of a site that is held back, no network takes a row from another address"


def test_the_failures_of_a_network_alone_are_told_apart_from_those_of_its_site():
    limiter = FailureLimiter()
    waits = []
    for _ in range(4):
        waits.append(limiter.of_network_ms("2001:db8:1:2::1", FAILURES, 1_000))
        limiter.failed("2001:db8:1:2::1", FAILURES, 1_000)
    assert waits == [0, 0, 0, 20_000]


def test_one_network_that_fails_for_ever_does_not_hold_back_its_site():
    limiter = FailureLimiter()
    for now_ms in range(1_000, 61_000, 10):
        limiter.failed("2001:db8:1:2::1", FAILURES, now_ms)
    assert limiter.retry_after_ms("2001:db8:1:3::1", FAILURES, 61_000) == 0


def test_the_networks_of_a_site_that_is_held_back_share_look_ups_that_take_none_from_others():
    limiter = FailureLimiter()
    failing(limiter, 20, 1_000)
    assert looked_up(limiter, "2001:db8:1:fffe::1", 1_000, 100) + looked_up(limiter, "2001:db8:1:ffff::1", 1_000, 100) == LOOK_UPS.units
    for _ in range(3):
        limiter.failed("192.0.2.1", FAILURES, 1_000)
    assert looked_up(limiter, "192.0.2.1", 1_000, 100) == LOOK_UPS.units


def test_a_site_has_ten_times_the_rate_of_a_network():
    limiter = AddressLimiter()
    admitted = [limiter.admits(f"2001:db8:1:{network:x}::1", 1, FAILURES, 1_000) for network in range(40)]
    assert admitted == [True] * 30 + [False] * 10
    assert 0 < limiter.wait_ms("2001:db8:1:ff::1", 1, FAILURES, 1_000) <= 2_000
    for weight, rate in ((0, FAILURES), (1, Rate(100, 50))):
        assert AddressLimiter().admits("2001:db8:3::1", weight, rate, 0.0)
    assert limiter.admits("2001:db8:2::1", 1, FAILURES, 1_000)
    assert limiter.admits("192.0.2.1", 1, FAILURES, 1_000)


def test_a_charge_is_of_the_address_alone_and_one_that_is_refused_changes_nothing():
    limiter = AddressLimiter()
    assert limiter.wait_ms("192.0.2.1", 3, FAILURES, 0.5) == 0
    assert [limiter.admits("192.0.2.1", weight, FAILURES, 0.5) for weight in (1, 3, 2, 1)] == [True, False, True, False]
    wait_ms = limiter.wait_ms("192.0.2.1", 1, FAILURES, 0.5)
    assert not limiter.admits("192.0.2.1", 1, FAILURES, 0.5 + wait_ms - 1)
    assert limiter.admits("192.0.2.1", 1, FAILURES, 0.5 + wait_ms)
    assert limiter.admits("192.0.2.2", 3, FAILURES, 0.5)
    assert len(limiter) == 2
    assert limiter.admits("192.0.2.3", 0, FAILURES, 0.0)
    assert limiter.admits("192.0.2.3", 1, Rate(100, 50), 0.0)


def test_of_ever_new_addresses_as_many_are_remembered_as_there_is_room_for():
    for limiter in (AddressLimiter(), FailureLimiter()):
        for number in range(65_537):
            limiter.admits(f"n{number}", 1, FAILURES, 1_000)
        assert len(limiter) == 65_536
