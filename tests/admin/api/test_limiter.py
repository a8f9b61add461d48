"""The in-process limit: a burst, then a steady rate, and bounded memory."""

from hypothesis import given
from hypothesis import strategies as st

from admin.api.limiter import Limiter
from gateway.config.values import Rate
from tests.support.inside import remembered


def test_a_burst_passes_then_one_for_each_share_of_the_period() -> None:
    limiter = Limiter(Rate(3, 3_000))
    assert [limiter.take("a", 0) for _ in range(4)] == [0, 0, 0, 1_000]
    assert limiter.take("a", 999) == 1
    assert limiter.take("a", 1_000) == 0
    assert limiter.take("a", 1_000) > 0
    assert limiter.take("a", 10_000) == 0


def test_callers_do_not_share() -> None:
    limiter = Limiter(Rate(1, 1_000))
    assert (limiter.take("a", 0), limiter.take("b", 0)) == (0, 0)


def test_memory_is_bounded() -> None:
    limiter = Limiter(Rate(1, 1_000), entries=10)
    for number in range(100):
        limiter.take(str(number), 0)
    assert len(remembered(limiter)) == 10


@given(st.lists(st.integers(0, 100), max_size=200), st.integers(1, 20))
def test_never_more_than_twice_the_rate_in_a_period_and_waiting_as_told_is_enough(gaps: list[int], units: int) -> None:
    limiter, now, passed = Limiter(Rate(units, 1_000)), 0, []
    for gap in gaps:
        now += gap
        wait = limiter.take("a", now)
        if wait == 0:
            passed.append(now)
        else:
            now += wait
            assert limiter.take("a", now) == 0
            passed.append(now)
    for start in passed:
        assert sum(start <= at < start + 1_000 for at in passed) <= 2 * units
