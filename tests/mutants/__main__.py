"""``nox -s mutants``, or ``python -m tests.mutants [--all] [--write] [part of a module's path…]``: small faults in the pure rules, which
their own tests must find.

Each module of ``modules.toml`` is mutated in a copy of the sources, and its own tests alone run against each mutant. Prints the survivors
and the percentage that died. Ends with 1 when fewer than 95 % did, or when a survivor has no reason in ``results.toml``. ``--write``
records there what was seen, unless more mutants of the same module were recorded before; a survivor that is new gets the reason ``?``,
which has to be replaced by one. ``--again`` tries only those, after a test was added.

Of each module, 30 mutants are tried: those whose description has the lowest SHA-256, so the same ones in every run and on every machine
while the functions stay as they are. ``--most`` changes the number, ``--all`` tries every mutant. Without names, the modules that
``results.toml`` has a record of are tried; name another one and ``--write`` it. At the end stands what the run did not cover: the rest of
each module, the modules that were not chosen or have no record, and those that are pure (``pyproject.toml``, import-linter) without
being listed in ``modules.toml``.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.mutants.making import Mutant, mutants_of

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]
_RESULTS = _HERE / "results.toml"
_COPIED = ("gateway", "admin", "deploy", "config", "tests", "pyproject.toml", "README.md")
_ENOUGH = 0.95
_SAMPLE = 30
_MOST_SECONDS = 7_200
_NO_REASON = "?"
_NO_RECORD: dict[str, Any] = {"made": 0, "tried": 0, "survivors": {}}
_PLUGINS = ("_hypothesis_pytestplugin", "pytest_asyncio.plugin", "pytest_timeout", "tests.mutants.plugin")
"""What the tests of rules need. All others, and what ``tests/conftest.py`` imports, would take longer to load than the tests to run."""
_DEAD = ("died", "hung")
_SAME = "equivalent:"
"""Begins the reason of a mutant that does what the original does: no test could tell it, so it does not count."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--write", action="store_true", help="record what is seen in results.toml")
    parser.add_argument("--most", type=int, default=_SAMPLE, help="try so many of each module at most, the same in every run")
    parser.add_argument("--all", action="store_true", help="try every mutant")
    parser.add_argument("--again", action="store_true", help="try only the recorded survivors that have no reason, after a test was added")
    parser.add_argument("modules", nargs="*", help="parts of paths; all that have a record when none is given")
    options = parser.parse_args()
    tables: dict[str, Any] = tomllib.loads((_HERE / "modules.toml").read_text(encoding="utf-8"))
    modules: dict[str, list[str]] = tables["tests"]
    chosen = {path: tests for path, tests in modules.items() if any(part in path for part in options.modules or _recorded())}
    left: dict[str, int] = {}
    tried = died = equivalent = unexplained = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = _copied(Path(folder))
        for path, tests in chosen.items():
            known = _NO_RECORD | _recorded().get(path, {})
            begun = _seconds()
            source, made = mutants_of(copy / path, tables["io"].get(path, []))
            asked = _unexplained(made, known) if options.again else made if options.all else _sample(made, options.most)
            outcomes = _outcomes(copy, path, source, tests, asked)
            result = _result(made, outcomes, known, again=options.again)
            left[path] = len(made) - result["tried"]
            tried += result["tried"]
            died += result["died"]
            equivalent += sum(reason.startswith(_SAME) for reason in result["survivors"].values())
            unexplained += _print(path, result, _seconds() - begun)
            if options.write and (result["tried"] >= known["tried"] or result["made"] != known["made"]):
                _RESULTS.write_text(_toml(_recorded() | {path: result}), encoding="utf-8")
    share = died / (tried - equivalent) if tried > equivalent else 0.0
    print(f"\n{died} of {tried} mutants died, {equivalent} are equivalent: {share:.1%}")
    print(f"{unexplained} survivors have no reason in results.toml")
    _print_uncovered(tables, left)
    return 0 if share >= _ENOUGH and not unexplained else 1


def _recorded() -> dict[str, Any]:
    return tomllib.loads(_RESULTS.read_text(encoding="utf-8")) if _RESULTS.exists() else {}


def _seconds() -> float:
    """Of the processor, here and in the processes that ended."""
    return sum(os.times()[:4])


def _copied(folder: Path) -> Path:
    for name in _COPIED:
        source = _ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        else:
            shutil.copy(source, folder / name)
    return folder


def _sample(made: list[Mutant], most: int) -> list[Mutant]:
    return sorted(made, key=lambda mutant: sha256(mutant.change.encode()).digest())[:most]


def _unexplained(made: list[Mutant], known: dict[str, Any]) -> list[Mutant]:
    return [mutant for mutant in made if known["survivors"].get(mutant.change) == _NO_REASON]


def _outcomes(copy: Path, path: str, source: str, tests: list[str], mutants: list[Mutant]) -> dict[str, str]:
    """What became of each change."""
    module = copy / path
    original = module.read_text(encoding="utf-8")
    module.write_text(source, encoding="utf-8")
    outcomes = _run(copy, tests, mutants)
    module.write_text(original, encoding="utf-8")
    return {mutant.change: outcomes.get(mutant.name, "not tried in time") for mutant in mutants}


def _result(made: list[Mutant], outcomes: dict[str, str], known: dict[str, Any], *, again: bool) -> dict[str, Any]:
    survivors = {change for change, outcome in outcomes.items() if outcome not in _DEAD}
    tried = len(outcomes)
    if again:  # what else was tried stays as it is recorded
        survivors |= {mutant.change for mutant in made if mutant.change in known["survivors"] and mutant.change not in outcomes}
        tried = known["tried"]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "made": len(made),
        "tried": tried,
        "died": tried - len(survivors),
        "survivors": {change: known["survivors"].get(change, _NO_REASON) for change in sorted(survivors)},
    }


def _run(copy: Path, tests: list[str], mutants: list[Mutant]) -> dict[str, str]:
    """Outcome by name."""
    asked, answers = copy / "mutants.json", copy / "outcomes.json"
    answers.unlink(missing_ok=True)
    asked.write_text(json.dumps({"mutants": [(one.name, one.function) for one in mutants], "answers": str(answers)}), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "--assert=plain", "-p", "no:cacheprovider"]
    command += ["--noconftest", *(part for name in _PLUGINS for part in ("-p", name)), "--hypothesis-profile=mutants"]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "MUTANTS": str(asked), "PYTHONPATH": str(copy)}
    done = subprocess.run([*command, *tests], cwd=copy, env=environment, capture_output=True, text=True, timeout=_MOST_SECONDS, check=False)
    if not answers.exists():
        raise SystemExit(f"the tests do not run:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    outcomes: dict[str, str] = json.loads(answers.read_text(encoding="utf-8"))
    return outcomes


def _print(path: str, result: dict[str, Any], seconds: float) -> int:
    """How many survivors have no reason."""
    sampled = "" if result["made"] == result["tried"] else f" tried of {result['made']}"
    print(f"{path}: {result['died']} of {result['tried']}{sampled} died ({seconds:.0f} s)", flush=True)
    unexplained = [change for change, reason in result["survivors"].items() if reason == _NO_REASON]
    for change in unexplained:
        print(f"    survived: {change}", flush=True)
    return len(unexplained)


def _print_uncovered(tables: dict[str, Any], left: dict[str, int]) -> None:
    """What says nothing about itself in this run.

    :param left: how many mutants of each module were not tried
    """
    listed, recorded = set(tables["tests"]), _recorded()
    print("\nNot covered: prose, annotations, what stands outside functions, async functions, and")
    for path in sorted(listed - set(left)):
        print(f"    {path}: {'not chosen' if path in recorded else 'no record yet'}")
    for path, count in sorted(left.items()):
        if count:
            print(f"    {path}: {count} mutants")
    for path in sorted(_pure() - listed):
        print(f"    {path}: pure, and not listed in modules.toml")
    for path, names in sorted(tables["io"].items()):
        print(f"    {path}: {', '.join(names)} (input, output or declarations)")


def _pure() -> set[str]:
    """Paths of the modules that import-linter holds to be pure."""
    contracts = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    named = [name for contract in contracts if "pure" in contract["name"] for name in contract["source_modules"]]
    places = [_ROOT / name.replace(".", "/") for name in named]
    files = [file for place in places for file in (place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")])]
    return {file.relative_to(_ROOT).as_posix() for file in files if file.name != "__init__.py"}


def _toml(results: dict[str, Any]) -> str:
    lines = ["# Written by `python -m tests.mutants --write`; the reasons by hand. A module that is not here has not been tried."]
    for path, result in sorted(results.items()):
        lines += ["", f'["{path}"]', *(f"{name} = {json.dumps(result[name])}" for name in ("date", "made", "tried", "died"))]
        if result.get("survivors"):
            lines += [f'["{path}".survivors]']
            lines += [f"{_text(change)} = {_text(reason)}" for change, reason in result["survivors"].items()]
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())
