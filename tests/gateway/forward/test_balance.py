"""Choosing and ejecting, with the time as an argument."""

from gateway.forward.balance import FAILURES_TO_EJECT, FIRST_EJECTION_MS, LONGEST_EJECTION_MS, Condition, choose


class Server:
    def __init__(self, active: int = 0) -> None:
        self.active = active
        self.condition = Condition()


def failing(condition: Condition, times: int = FAILURES_TO_EJECT, now_ms: int = 0) -> None:
    for _ in range(times):
        condition.failed(now_ms)


def test_the_least_busy_is_chosen_and_equals_take_turns() -> None:
    a, b, c = Server(2), Server(1), Server(1)
    assert [choose([a, b, c], (), 0, turn) for turn in range(3)] == [b, b, c]


def test_what_was_tried_or_is_down_is_not_chosen() -> None:
    a, b = Server(), Server()
    b.condition.checked(up=False)
    assert choose([a, b], (), 0, 1) is a
    assert choose([a, b], (a,), 0, 1) is None


def test_failures_in_a_row_eject_and_a_success_between_them_does_not() -> None:
    condition = Condition()
    failing(condition, FAILURES_TO_EJECT - 1)
    condition.succeeded()
    failing(condition, FAILURES_TO_EJECT - 1)
    assert condition.usable(0)
    condition.failed(0)
    assert not condition.usable(0)
    assert not condition.usable(FIRST_EJECTION_MS - 1)
    assert condition.usable(FIRST_EJECTION_MS)


def test_after_an_ejection_one_probe_goes_and_others_stay_away() -> None:
    bad, good = Server(), Server(5)
    failing(bad.condition)
    now = FIRST_EJECTION_MS
    assert choose([bad, good], (), now, 0) is bad
    assert choose([bad, good], (), now, 0) is good
    bad.condition.succeeded()
    assert choose([bad, good], (), now, 0) is bad
    assert choose([bad, good], (), now, 0) is bad


def test_a_failed_probe_doubles_the_ejection_up_to_a_limit() -> None:
    condition = Condition()
    failing(condition)
    now, lengths = 0, []
    for _ in range(8):
        began = now
        while not condition.usable(now):
            now += 500
        lengths.append(now - began)
        condition.chosen(now)
        condition.failed(now)
    assert lengths[:3] == [FIRST_EJECTION_MS, 2 * FIRST_EJECTION_MS, 4 * FIRST_EJECTION_MS]
    assert max(lengths) == LONGEST_EJECTION_MS


def test_a_check_that_passes_again_ends_an_ejection() -> None:
    condition = Condition()
    failing(condition)
    condition.checked(up=True)
    assert not condition.usable(0), "it was up all the time"
    condition.checked(up=False)
    condition.checked(up=True)
    assert condition.usable(0)


def test_another_pool_begins_with_what_was_known_and_goes_its_own_way() -> None:
    known = Condition()
    failing(known)
    known.checked(up=False)
    taken = known.taken_over(checked=True, alone=False)
    assert (taken.up, taken.failures, taken.ejected(0)) == (False, FAILURES_TO_EJECT, True)
    taken.checked(up=True)
    assert (known.up, known.ejected(0)) == (False, True)
    known.failed(0)
    assert (taken.failures, taken.ejected(0)) == (0, False)


def test_a_pool_takes_over_nothing_that_it_could_never_find_ended() -> None:
    known = Condition()
    failing(known)
    known.checked(up=False)
    assert known.taken_over(checked=False, alone=False).up  # nobody checks
    alone = known.taken_over(checked=True, alone=True)
    assert (alone.up, alone.failures, alone.ejected(0)) == (False, 0, False)  # a lone server is not ejected
