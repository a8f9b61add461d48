"""Reports what is older than it could be and what has a known vulnerability: ``python -m tests.support.outdated``, or ``nox -s outdated``.

Exit status: 0 when every locked package was checked and none has a known vulnerability; 1 when one has; 3 when none is known, but something
could not be checked (no network, a database that does not answer). The last lines say what was checked and what was not. Being outdated is
reported and is no failure: ``nox -s lock -- --upgrade`` renews the locks.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

LOCKS = ("deploy/locks/runtime.txt", "deploy/locks/local.txt", "deploy/locks/test.txt")
DATABASES = ("pypi", "osv")
"""Vulnerability databases as pip-audit names them; the second is asked when the first does not answer."""
CLEAN, VULNERABLE, NOT_CHECKED = 0, 1, 3

Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


class Report(NamedTuple):
    """The outcome of one check."""

    found: list[str]
    """One line for each finding."""
    checked: str
    """What was checked, and against what; ``""`` when nothing was."""
    missed: list[str]
    """What could not be checked, and why."""


def outdated(run: Run) -> Report:
    """Installed packages of which the package index has a later version."""
    done = run(("uv", "pip", "list", "--outdated", "--format", "json", "--python", sys.executable))
    packages = _json(done.stdout)
    if not isinstance(packages, list):
        return Report([], "", [f"later versions: {_last_line(done)}"])
    found = [f"{package['name']} {package['version']}: {package['latest_version']} is available" for package in packages]
    return Report(found, "installed packages against the package index", [])


def vulnerable(run: Run) -> Report:
    """Locked packages with a known vulnerability."""
    missed = []
    for database in DATABASES:
        locks = [part for lock in LOCKS for part in ("--requirement", lock)]
        done = run(("pip-audit", "--disable-pip", "--require-hashes", "--format", "json", "--vulnerability-service", database, *locks))
        report = _json(done.stdout)
        packages = report["dependencies"] if isinstance(report, dict) else []
        known = [package for package in packages if "skip_reason" not in package]
        if known:
            found = [_advisory(package, each) for package in known for each in package["vulns"]]
            return Report(
                found, f"{len(known)} locked packages against the vulnerability database {database}", _skipped(packages, database)
            )
        missed += _skipped(packages, database) or [f"vulnerabilities, by the database {database}: {_last_line(done)}"]
    return Report([], "", missed)


def _advisory(package: dict[str, Any], advisory: dict[str, Any]) -> str:
    fixed = ", ".join(advisory["fix_versions"]) or "no version yet"
    return f"{package['name']} {package['version']}: {advisory['id']}, fixed in {fixed}"


def _skipped(packages: list[dict[str, Any]], database: str) -> list[str]:
    """In one line, the packages that the database could not say anything about."""
    names = [package["name"] for package in packages if "skip_reason" in package]
    return [f"{len(names)} locked packages not found in the database {database}: {', '.join(names[:5])} …"] if names else []


def _json(text: str) -> Any:
    """``None`` when the program printed no report."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _last_line(done: "subprocess.CompletedProcess[str]") -> str:
    lines = done.stderr.strip().splitlines()
    return lines[-1].strip() if lines else f"exit status {done.returncode}"


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, check=False, capture_output=True, text=True)


def main(run: Run = _run, write: Callable[[str], object] = print) -> int:
    """Check, print, and return the exit status."""
    late, flaws = outdated(run), vulnerable(run)
    for title, report in (("Outdated", late), ("Vulnerable", flaws)):
        for line in report.found:
            write(f"{title}: {line}")
    for report in (late, flaws):
        if report.checked:
            write(f"Checked: {report.checked}, {len(report.found)} found")
        for line in report.missed:
            write(f"NOT checked: {line}")
    return VULNERABLE if flaws.found else NOT_CHECKED if late.missed or flaws.missed else CLEAN


if __name__ == "__main__":
    sys.exit(main())
