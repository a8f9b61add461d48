"""A pytest plugin that runs the collected tests once for each mutant, each time in a process forked before any test has run.

Asked by ``MUTANTS``, the path of a JSON file with ``mutants`` (name and function of each) and ``answers``, where the outcomes go.
"""

import gc
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.mutants import trampoline

_SERVERS = {"postgres", "redis_server", "own_postgres", "own_redis"}
_SPARE_SECONDS = 10.0
_TIMES_AS_LONG = 10.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """No test that needs a server: a process that is killed could not stop it."""
    items[:] = [item for item in items if not _SERVERS & set(getattr(item, "fixturenames", ()))]


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    if session.testsfailed:
        raise session.Interrupted("the tests cannot be collected")
    asked = json.loads(Path(os.environ["MUTANTS"]).read_text(encoding="utf-8"))
    gc.collect()
    gc.freeze()  # or every process that is forked would copy what it only looks at
    gc.disable()
    seconds, calls = _unchanged(session)
    outcomes: dict[str, str] = {}
    for name, function in asked["mutants"]:
        items = sorted((item for item in session.items if function in calls[item.nodeid]), key=lambda item: seconds[item.nodeid])
        outcomes[name] = _outcome(session, items, name, _SPARE_SECONDS + _TIMES_AS_LONG * sum(seconds[item.nodeid] for item in items))
        Path(asked["answers"]).write_text(json.dumps(outcomes), encoding="utf-8")
    return True


def _unchanged(session: pytest.Session) -> tuple[dict[str, float], dict[str, list[str]]]:
    """How long each test takes, and which functions it calls."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        with os.fdopen(reader, encoding="utf-8") as told:
            text = told.read()
        os.waitpid(child, 0)
        if not text:
            raise session.Interrupted("a test fails without any mutant")
        seconds, calls = json.loads(text)
        return seconds, calls
    os.close(reader)
    seconds, calls = {}, {}
    for item in session.items:
        trampoline.called.clear()
        begun = time.perf_counter()
        _run(session, [item])
        seconds[item.nodeid], calls[item.nodeid] = time.perf_counter() - begun, sorted(trampoline.called)
        if session.testsfailed:
            os.write(2, f"fails without any mutant: {item.nodeid}\n".encode())
            os._exit(1)
    with os.fdopen(writer, "w", encoding="utf-8") as tell:
        tell.write(json.dumps((seconds, calls)))
    os._exit(0)


def _outcome(session: pytest.Session, items: list[pytest.Item], name: str, limit: float) -> str:
    """``died``, ``survived``, ``hung`` or ``not called``."""
    if not items:
        return "not called"
    child = os.fork()
    if not child:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, limit)  # ends the process
        trampoline.choose(name)
        try:
            survived = _run(session, items)
        except BaseException:  # noqa: BLE001 - whatever a mutant does to pytest itself
            os._exit(1)
        os._exit(0 if survived else 1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        return "hung"
    return "survived" if status == 0 else "died"


def _run(session: pytest.Session, items: list[pytest.Item]) -> bool:
    """Whether all of them pass; stops at the first that does not."""
    for item, after in zip(items, [*items[1:], None], strict=True):
        hook: Any = item.config.hook
        hook.pytest_runtest_protocol(item=item, nextitem=after)
        if session.testsfailed:
            return False
    return True
