"""A pytest plugin that runs the collected tests once for each mutant, each time in a process forked before any test has run.

A mutant meets only the tests that call its function: first those that found the mutants before it, then the quick ones, until one fails.

Asked by ``MUTANTS``, the path of a JSON file with ``mutants`` (name and function of each) and ``answers``, where the outcomes go.
"""

import gc
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.mutants import trampoline

hypothesis.settings.register_profile(
    "mutants", deadline=None, database=None, derandomize=True, max_examples=30, report_multiple_bugs=False,
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate), suppress_health_check=list(hypothesis.HealthCheck),
)  # fmt: skip

_SPARE_SECONDS = 2.0
_TIMES_AS_LONG = 4.0
"""Of the processor's time that its tests take without the mutant, so that a busy machine ends none."""
_WAITS_SECONDS = 60.0
"""A mutant that waits takes no time of the processor."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """No test with a fixture of a conftest: that is a server, which a process that is killed could not stop.

    Of properties, as many examples as the profile says.
    """
    items[:] = [item for item in items if not _missing_fixtures(item)]
    for item in items:
        test: Any = getattr(item, "obj", None)
        if (own := getattr(test, "_hypothesis_internal_use_settings", None)) is not None:
            most = hypothesis.settings.default.max_examples  # of the profile, which a test's own number would override
            test._hypothesis_internal_use_settings = hypothesis.settings(own, max_examples=min(own.max_examples, most))  # noqa: SLF001 - no public way


def _missing_fixtures(item: pytest.Item) -> set[str]:
    information: Any = getattr(item, "_fixtureinfo", None)
    return set(information.names_closure) - set(information.name2fixturedefs) - {"request"} if information is not None else set()


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
    found: Counter[str] = Counter()
    """How many mutants each test has found."""
    for name, function in asked["mutants"]:
        items = [item for item in session.items if function in calls[item.nodeid]]
        items.sort(key=lambda item: (-found[item.nodeid], seconds[item.nodeid]))
        limit = _SPARE_SECONDS + _TIMES_AS_LONG * sum(seconds[item.nodeid] for item in items)
        outcomes[name], by = _outcome(session, items, name, limit)
        found[by] += 1
        Path(asked["answers"]).write_text(json.dumps(outcomes), encoding="utf-8")
    return True


def _unchanged(session: pytest.Session) -> tuple[dict[str, float], dict[str, list[str]]]:
    """How long each test takes the processor, and which functions it calls."""
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
        begun = time.process_time()
        _first_to_fail(session, [item])
        seconds[item.nodeid], calls[item.nodeid] = time.process_time() - begun, sorted(trampoline.called)
        if session.testsfailed:
            os.write(2, f"fails without any mutant: {item.nodeid}\n".encode())
            os._exit(1)
    with os.fdopen(writer, "w", encoding="utf-8") as tell:
        tell.write(json.dumps((seconds, calls)))
    os._exit(0)


def _outcome(session: pytest.Session, items: list[pytest.Item], name: str, limit: float) -> tuple[str, str]:
    """``died``, ``survived``, ``hung`` or ``not called``; and the test that found it, if one did."""
    if not items:
        return "not called", ""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        for timer, end in ((signal.ITIMER_PROF, signal.SIGPROF), (signal.ITIMER_REAL, signal.SIGALRM)):
            signal.signal(end, signal.SIG_DFL)  # ends the process
            signal.setitimer(timer, limit if end == signal.SIGPROF else _WAITS_SECONDS + 10 * limit)
        trampoline.choose(name)
        try:
            failed = _first_to_fail(session, items)
        except BaseException:  # noqa: BLE001 - whatever a mutant does to pytest itself
            os._exit(1)
        os.write(writer, failed.encode())
        os._exit(1 if failed else 0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as told:
        by = told.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGALRM):
        return "hung", ""
    return "survived" if status == 0 else "died", by


def _first_to_fail(session: pytest.Session, items: list[pytest.Item]) -> str:
    """Its node id; empty when all of them pass."""
    for item, after in zip(items, [*items[1:], None], strict=True):
        hook: Any = item.config.hook
        hook.pytest_runtest_protocol(item=item, nextitem=after)
        if session.testsfailed:
            return item.nodeid
    return ""
