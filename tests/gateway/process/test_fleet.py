"""Workers together: which of them the parent gives up on, and starts again."""

import asyncio

import pytest
from structlog.testing import capture_logs

from gateway.process import fleet
from gateway.process.channel import WorkerFailed
from gateway.process.child import BackOff
from gateway.process.fleet import SILENT_MS, Workers
from gateway.runtime import tasks
from gateway.telemetry import Metrics
from tests.support.inside import keep


class Worker:
    """A worker that was last heard of at a given time."""

    name, number = "worker 0", 0

    def __init__(self, *, last_message_ms, ready=True):
        self.last_message_ms, self.ready, self.killed = last_message_ms, ready, False

    def kill(self):
        self.killed = True


def test_a_worker_that_does_not_answer_for_long_is_killed_and_no_other(monkeypatch):
    silent, talking, starting = Worker(last_message_ms=0), Worker(last_message_ms=1), Worker(last_message_ms=0, ready=False)
    workers = Workers([], None, None, Metrics())
    monkeypatch.setattr(workers, "_workers", [silent, talking, starting])
    workers.kill_unresponsive(SILENT_MS + 1)
    assert [worker.killed for worker in (silent, talking, starting)] == [True, False, False]


class Mortal(Worker):
    """A worker that has ended, and ends again when it is killed."""

    def __init__(self):
        super().__init__(last_message_ms=0, ready=False)
        self.started_ms, self.back_off = 0, BackOff()
        self.ended = asyncio.Event()
        self.ended.set()

    def kill(self):
        super().kill()
        self.ended.set()

    async def wait(self):
        await self.ended.wait()
        return 0


@pytest.mark.parametrize("error", [WorkerFailed("it says no"), OSError(), ValueError("a defect")])
async def test_a_worker_that_cannot_be_started_again_is_ended_whatever_the_reason_and_tried_once_more(monkeypatch, error):
    monkeypatch.setattr(tasks, "_AFTER_DEFECT_SECONDS", 0)
    worker, attempts, done = Mortal(), [], asyncio.Event()
    workers = Workers([], None, None, Metrics())

    async def start(*_, **__):
        worker.ended.clear()
        attempts.append(worker.killed)
        if len(attempts) == 1:
            raise error
        done.set()

    monkeypatch.setattr(workers, "_start", start)
    monkeypatch.setattr(workers, "_workers", [worker])
    keeping = tasks.repeat(lambda: keep(workers, worker), name="keep")
    async with asyncio.timeout(20):
        await done.wait()
    await tasks.cancel(keeping)
    assert attempts == [False, True]


@pytest.mark.parametrize("replaced", [False, True])
async def test_of_a_worker_that_does_not_start_it_is_said_when_the_code_was_replaced_under_the_gateway(monkeypatch, replaced):
    """As by an upgrade in place: the worker is of another version than its parent, and what it says of that is about neither."""
    worker, workers = Mortal(), Workers([], None, None, Metrics())

    async def start(*_, **__):
        raise WorkerFailed("TypeError: something unexpected")

    monkeypatch.setattr(workers, "_start", start)
    if replaced:
        monkeypatch.setattr(fleet, "code_stamp", frozenset)
    with capture_logs() as logs:
        await keep(workers, worker)
    (reason,) = [line["reason"] for line in logs if line["event"] == "worker_did_not_start"]
    assert reason.startswith("TypeError: something unexpected")
    assert reason.endswith("restart the gateway") == replaced
