"""Workers together: which of them the parent gives up on."""

from gateway.process.fleet import SILENT_MS, Workers
from gateway.telemetry import Metrics


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
    workers.kill_silent(SILENT_MS + 1)
    assert [worker.killed for worker in (silent, talking, starting)] == [True, False, False]
