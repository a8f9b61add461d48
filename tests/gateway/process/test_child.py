"""When a worker that died is started again."""

import gc
import socket

import pytest

from gateway.process.child import BACK_OFF_MS, HEALTHY_MS, BackOff, WorkerProcess


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


@pytest.mark.parametrize("what", ["socket.socketpair", "asyncio.create_subprocess_exec"])
async def test_a_start_that_fails_is_an_early_end_however_long_the_worker_before_it_lived(monkeypatch, what):
    """Without descriptors or memory for another process the parent must not try thousands of times a second."""

    def fails(*_, **__):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(f"gateway.process.child.{what}", fails)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        worker = WorkerProcess(0, listening)
        delays = []
        for now_ms in range(1_000_000, 1_000_006):
            with pytest.raises(OSError, match="Too many open files"):
                await worker.spawn(now_ms)
            delays.append(worker.back_off.after(now_ms - worker.started_ms))
        gc.collect()  # an end of the channel left open would be a warning
    assert delays == list(BACK_OFF_MS)
