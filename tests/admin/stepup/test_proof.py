"""Lock-out: a few slips are free, then each wrong proof costs more time."""

from admin.stepup.proof import FREE_ACCOUNT_FAILURES, FREE_FAILURES, Wrong, left_ms, lock_out_ms


def test_the_first_slips_are_free() -> None:
    assert [lock_out_ms(failures) for failures in range(FREE_FAILURES)] == [0] * FREE_FAILURES
    of_account = [lock_out_ms(failures, free=FREE_ACCOUNT_FAILURES) for failures in range(FREE_ACCOUNT_FAILURES + 2)]
    assert of_account == [0] * FREE_ACCOUNT_FAILURES + [30_000, 60_000]


def test_only_a_wrong_code_is_a_guess() -> None:
    assert [wrong for wrong in Wrong if wrong.is_guess] == [Wrong.WRONG_CODE]


def test_the_delay_grows_and_is_bounded() -> None:
    delays = [lock_out_ms(failures) for failures in range(FREE_FAILURES, 30)]
    assert delays[:3] == [30_000, 60_000, 120_000]
    assert delays == sorted(delays)
    assert delays[-1] == lock_out_ms(10**6) == 3_600_000


def test_a_day_of_guessing_gets_less_than_fifty_tries() -> None:
    elapsed, failures = 0, 0
    while elapsed < 86_400_000:
        failures += 1
        elapsed += lock_out_ms(failures)
    assert failures < 50


def test_every_reason_says_what_to_do() -> None:
    assert all(wrong.detail for wrong in Wrong)


def test_a_lock_out_by_a_clock_that_was_ahead_is_over_when_it_is_set_back() -> None:
    now_ms = 1_800_000_000_000
    assert [left_ms(now_ms + after_ms, now_ms) for after_ms in (-1, 0, 1, 3_600_000)] == [0, 0, 1, 3_600_000]
    assert left_ms(now_ms + 86_400_000, now_ms) == 0
