"""When a worker that died is started again."""

from gateway.process.child import BACK_OFF_MS, HEALTHY_MS, BackOff


def test_a_worker_that_keeps_dying_young_waits_longer_each_time():
    back_off = BackOff()
    delays = [back_off.after(100) for _ in range(len(BACK_OFF_MS) + 2)]
    assert delays == [*BACK_OFF_MS, BACK_OFF_MS[-1], BACK_OFF_MS[-1]]


def test_a_worker_that_lived_is_started_again_at_once():
    back_off = BackOff()
    for _ in range(3):
        back_off.after(100)
    assert back_off.after(HEALTHY_MS) == 0
    assert back_off.after(100) == BACK_OFF_MS[1]
