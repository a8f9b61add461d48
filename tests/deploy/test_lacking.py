"""tests.support.lacking: nothing that a test needs is missing unseen where the verdict is given."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lacking import lacking, needs, tool, unless

TESTS = Path(__file__).parents[1]
ABOUT_THE_MACHINE = {
    "deploy/local/test_redis.py": "a Redis that is there and too old, as on some systems",
    "deploy/test_compose.py": "root alone may become another user",
    "deploy/test_container.py": "root alone may hand files to another user",
    "deploy/test_systemd.py": "root alone may become another user",
    "deploy/test_units.py": "namespaces and a writable cgroup file system, which a container may not have",
}
"""Tests that may be skipped in continuous integration, too: no package gives them what they need."""
_SKIPS = re.compile(r"pytest\.(?:skip|importorskip|mark\.skip(?:if)?)\(")


def outcome_of(asking):
    """Caught whichever it is: a test that let a skip pass would be skipped itself."""
    with pytest.raises((pytest.skip.Exception, pytest.fail.Exception)) as raised:
        asking()
    return raised.type, str(raised.value)


def test_without_a_program_a_test_is_skipped_but_fails_in_continuous_integration(monkeypatch):
    told = "no-such-program is not here: apt-get install it"
    monkeypatch.delenv("CI", raising=False)
    assert outcome_of(lambda: tool("no-such-program", "apt-get install it")) == (pytest.skip.Exception, told)
    monkeypatch.setenv("CI", "1")
    assert outcome_of(lambda: tool("no-such-program", "apt-get install it")) == (pytest.fail.Exception, told)
    assert outcome_of(lambda: lacking("no npm")) == (pytest.fail.Exception, "no npm")


def test_a_mark_skips_for_want_of_programs_but_not_in_continuous_integration(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    marks = (needs("sh"), needs("sh", "no-such-program"), unless(""), unless("a wheel"))
    assert [mark.args[0] for mark in marks] == [False, True, False, True]
    assert needs("sh", "no-such-program").kwargs["reason"] == "not here: no-such-program (tests/system-packages)"
    monkeypatch.setenv("CI", "1")
    assert not any(mark.args[0] for mark in (needs("no-such-program"), unless("a wheel")))


def test_a_program_is_found_beside_the_interpreter_on_the_path_and_as_given():
    assert Path(tool("pytest", "")).name == "pytest"
    assert tool("sh", "") == tool(tool("sh", ""), "")


def own_files() -> Iterator[Path]:
    """Not those of programs that tests have installed."""
    for folder, below, files in os.walk(TESTS):
        below[:] = [name for name in below if name[0] not in "._" and name != "node_modules"]
        yield from (Path(folder, name) for name in files if name.endswith(".py"))


def test_no_other_test_is_skipped_on_a_condition_of_its_own():
    found = {path.relative_to(TESTS).as_posix() for path in own_files() if _SKIPS.search(path.read_text())}
    assert found - {"support/lacking.py", "deploy/test_lacking.py"} == set(ABOUT_THE_MACHINE)
