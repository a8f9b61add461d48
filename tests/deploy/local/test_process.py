"""deploy.local.process: a child is never lost, whenever its parent is told to stop."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deploy.local.process import STOP_SIGNALS, Child


class Stopped(BaseException):
    pass


@pytest.fixture(params=STOP_SIGNALS, ids=lambda number: number.name)
def stop_signal(request):
    def stop(_number, _frame):
        raise Stopped

    before = signal.signal(request.param, stop)
    yield request.param
    signal.signal(request.param, before)


def test_a_stop_signal_while_it_starts_does_not_lose_it(tmp_path: Path, monkeypatch, stop_signal):
    class Popen(subprocess.Popen):
        def __init__(self, *args, **options) -> None:
            super().__init__(*args, **options)
            os.kill(os.getpid(), stop_signal)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    child = Child("sleep", ["/bin/sleep", "60"], log=tmp_path / "log")
    with pytest.raises(Stopped):
        child.start()
    assert child.running()
    assert child.stop() == -signal.SIGTERM


def test_its_program_starts_with_signals_as_they_were(tmp_path: Path):
    show = "import signal; print([signal.getsignal(each).name for each in (signal.SIGTERM, signal.SIGHUP)])"
    for number, handler, name in ((signal.SIGHUP, signal.SIG_IGN, "SIG_IGN"), (signal.SIGHUP, print, "SIG_DFL")):
        before = signal.signal(number, handler)
        child = Child("python", [sys.executable, "-c", show], log=tmp_path / "log")
        child.start()
        assert signal.getsignal(number) is handler
        signal.signal(number, before)
        assert child.wait() == 0
        assert child.last_words() == f"['SIG_DFL', '{name}']"


def test_one_may_be_started_by_another_thread(tmp_path: Path):
    child = Child("true", ["/bin/true"], log=tmp_path / "log")
    thread = threading.Thread(target=child.start)
    thread.start()
    thread.join()
    assert child.wait() == 0


def test_one_that_was_not_started_is_stopped_already(tmp_path: Path):
    child = Child("sleep", ["/bin/sleep", "60"], log=tmp_path / "log")
    child.terminate()
    child.freeze()
    assert (child.pid, child.running(), child.stop(), child.kill()) == (None, False, 0, 0)
