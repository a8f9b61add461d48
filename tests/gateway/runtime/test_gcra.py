"""The generic cell rate algorithm."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.values import Rate
from gateway.runtime.gcra import Charge, charge, passed, whole_in_ms

RATES = st.builds(Rate, st.integers(1, 5_000), st.sampled_from([1_000, 60_000, 3_600_000]))
STEPS = st.lists(st.tuples(st.integers(0, 90_000), st.integers(0, 60)), max_size=40)
"""Milliseconds since the last charge, and a weight."""


def test_the_whole_limit_passes_at_once_and_then_one_unit_each_interval():
    rate, tat = Rate(5, 60_000), 0.0
    for left in (4, 3, 2, 1, 0):
        done = charge(tat, 1, 1_000, rate)
        tat = done.tat_ms
        assert (done.allowed, done.remaining, done.retry_after_ms) == (True, left, 0)
    refused = charge(tat, 1, 1_000, rate)
    assert (refused.allowed, refused.tat_ms, refused.remaining, refused.retry_after_ms) == (False, tat, 0, 12_000)
    assert refused.reset_ms == 60_000
    assert (done.of_account, refused.of_account) == (False, False)
    assert charge(tat, 1, 13_000, rate).allowed


@given(RATES, STEPS)
def test_what_only_asks_whether_it_passes_is_told_the_same(rate, steps):
    tat, now_ms = 0.0, 1_000
    for later_ms, weight in steps:
        now_ms += later_ms
        done = charge(tat, weight, now_ms, rate)
        assert passed(tat, weight, now_ms, rate) == (done.tat_ms if done.allowed else -1)
        tat = done.tat_ms


def test_a_weight_of_nothing_passes_when_a_lower_limit_has_come_into_force():
    """What was used of the higher one is more than the lower one holds."""
    tat = charge(0.0, 60, 1_000, Rate(60, 60_000)).tat_ms
    lower = Rate(1, 1_000)
    assert charge(tat, 0, 1_000, lower).allowed
    assert passed(tat, 0, 1_000, lower) == tat
    assert passed(tat, 1, 1_000, lower) == -1


@pytest.mark.parametrize(("remaining", "whole_ms"), [(6, 500), (5, 500), (4, 1_000), (0, 1_000)])
def test_the_limit_is_whole_when_gcra_says_so_unless_less_remains(remaining, whole_ms):
    assert whole_in_ms(Charge(True, 0.0, remaining, 500.0, 0.0), Rate(10, 1_000)) == whole_ms


def test_a_weight_above_the_limit_can_never_pass():
    refused = charge(0, 6, 1_000, Rate(5, 60_000))
    assert (refused.allowed, refused.retry_after_ms, refused.remaining) == (False, float("inf"), 5)


def test_the_whole_limit_passes_again_when_it_is_there_again():
    refused = charge(charge(0, 1, 1_000, Rate(5, 60_000)).tat_ms, 5, 1_000, Rate(5, 60_000))
    assert (refused.allowed, refused.retry_after_ms, refused.reset_ms) == (False, 12_000, 12_000)


def test_units_of_less_than_a_millisecond_are_counted_to_the_last():
    assert charge(0, 4_996, 1_000, Rate(5_000, 1_000)).remaining == 4


def test_after_a_limit_was_lowered_nothing_remains_and_no_less():
    """What was charged by the old limit may reach beyond the period of the new one."""
    tat = charge(0, 5, 1_000, Rate(5, 60_000)).tat_ms
    asked = charge(tat, 0, 1_000, Rate(50, 1_000))
    assert (asked.allowed, asked.remaining, asked.tat_ms) == (True, 0, tat)
    refused = charge(tat, 1, 1_000, Rate(50, 1_000))
    assert (refused.allowed, refused.remaining, refused.retry_after_ms, refused.reset_ms) == (False, 0, 59_020, 60_000)


def test_reset_is_the_time_until_the_whole_limit_is_there_again():
    rate = Rate(10, 60_000)
    done = charge(0, 4, 1_000, rate)
    assert done.reset_ms == 24_000
    assert charge(done.tat_ms, 0, 25_000, rate).remaining == 10


@given(RATES, STEPS)
def test_it_admits_what_a_leaking_bucket_admits(rate, steps):
    """The same rule told as a bucket that leaks ``units`` in each period, in exact arithmetic."""
    now, tat, level, last = 1_000, 0.0, Fraction(0), 1_000
    for gap, weight in steps:
        now += gap
        level = max(Fraction(0), level - Fraction((now - last) * rate.units, rate.period_ms))
        last = now
        done = charge(tat, weight, now, rate)
        fits = level + weight <= rate.units
        assert done.allowed is fits or weight == 0
        if fits:
            level += weight
            tat = done.tat_ms
        assert done.remaining == int(rate.units - level)


@given(RATES, STEPS, st.integers(1, 60))
def test_a_refused_charge_passes_after_the_time_told_and_not_before(rate, steps, weight):
    now, tat = 1_000.0, 0.0
    for gap, other in steps:
        now += gap
        tat = charge(tat, other, now, rate).tat_ms
    refused = charge(tat, weight, now, rate)
    if not refused.allowed and weight <= rate.units:
        assert charge(tat, weight, now + refused.retry_after_ms, rate).allowed
        assert not charge(tat, weight, now + refused.retry_after_ms - 0.01, rate).allowed


@given(RATES, STEPS)
def test_a_weight_of_nothing_changes_nothing_and_always_passes(rate, steps):
    now, tat = 1_000.0, 0.0
    for gap, weight in steps:
        now += gap
        asked = charge(tat, 0, now, rate)
        assert asked.allowed
        assert asked.tat_ms == max(tat, now)
        tat = charge(tat, weight, now, rate).tat_ms
