"""The report of outdated and vulnerable packages says what was checked, and its exit status tells "none known" from "not checked"."""

import json
from subprocess import CompletedProcess

import pytest

from tests.support.outdated import CLEAN, NOT_CHECKED, VULNERABLE, main

LATE = json.dumps([{"name": "redis", "version": "8.0.0", "latest_version": "8.1.0"}])
SOUND = json.dumps({"dependencies": [{"name": "redis", "version": "8.0.0", "vulns": []}], "fixes": []})
FLAWED = json.dumps(
    {"dependencies": [{"name": "redis", "version": "8.0.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["8.0.1"]}]}], "fixes": []}
)
SKIPPED = json.dumps({"dependencies": [{"name": "odd", "skip_reason": "not on the index"}], "fixes": []})
AWAY = (1, "", "ERROR:pip_audit\nCould not connect to the vulnerability feed")


def reported(*, late=(0, LATE, ""), pypi=(0, SOUND, ""), osv=AWAY):
    """Exit status and lines of a run in which the programs answer so: (exit status, standard output, standard error)."""

    def run(command):
        status, out, err = late if command[0] == "uv" else pypi if "pypi" in command else osv
        return CompletedProcess(command, status, out, err)

    lines: list[str] = []
    return main(run, lines.append), lines


def test_what_is_outdated_is_listed_and_no_failure():
    status, lines = reported()
    assert status == CLEAN
    assert lines == [
        "Outdated: redis 8.0.0: 8.1.0 is available",
        "Checked: installed packages against the package index, 1 found",
        "Checked: 1 locked packages against the vulnerability database pypi, 0 found",
    ]


@pytest.mark.parametrize("late", [(0, LATE, ""), AWAY])
def test_a_known_vulnerability_fails_whatever_else_could_not_be_checked(late):
    status, lines = reported(pypi=(1, FLAWED, ""), late=late)
    assert status == VULNERABLE
    assert "Vulnerable: redis 8.0.0: PYSEC-1, fixed in 8.0.1" in lines


def test_a_second_database_is_asked_when_the_first_does_not_answer():
    status, lines = reported(pypi=AWAY, osv=(0, SOUND, ""))
    assert (status, lines[-1]) == (CLEAN, "Checked: 1 locked packages against the vulnerability database osv, 0 found")


@pytest.mark.parametrize(
    ("answers", "line"),
    [
        ({"pypi": AWAY}, "NOT checked: vulnerabilities, by the database osv: Could not connect to the vulnerability feed"),
        ({"late": AWAY}, "NOT checked: later versions: Could not connect to the vulnerability feed"),
        ({"late": (2, "", "")}, "NOT checked: later versions: exit status 2"),
        ({"pypi": (0, SKIPPED, "")}, "NOT checked: 1 locked packages not found in the database pypi: odd …"),
    ],
)
def test_what_could_not_be_checked_is_said_and_is_not_taken_for_sound(answers, line):
    status, lines = reported(**answers)
    assert status == NOT_CHECKED
    assert line in lines
