"""``nox -s mutants``, or ``python -m tests.mutants [--write] [part of a module's path…]``: small faults in the pure rules, which their own
tests must find.

Each module of ``modules.toml`` is mutated in a copy of the sources, and its own tests alone run against each mutant. Prints the survivors
and the percentage that died. Ends with 1 when fewer than 95 % did, or when a survivor has no reason in ``results.toml``. ``--write``
records there what was seen; a survivor that is new gets the reason ``?``, which has to be replaced by one.

Without names, what ``results.toml`` has a record of is tried, and as many mutants of a module as that record is of: all, or the same
sample. At the end stands what the run did not cover: the rest of sampled modules, the modules of ``modules.toml`` that were not chosen or
have no record yet (name one and ``--write`` it), and those that are pure (``pyproject.toml``, import-linter) without being listed there.
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
_MOST_SECONDS = 3_000
_DEAD = ("died", "hung")
_SAME = "equivalent:"
"""Begins the reason of a mutant that does what the original does: no test could tell it, so it does not count."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--write", action="store_true", help="record what is seen in results.toml")
    parser.add_argument("--most", type=int, default=0, help="try so many of each module at most, the same in every run")
    parser.add_argument("modules", nargs="*", help="parts of paths; all that have a record when none is given")
    options = parser.parse_args()
    tables: dict[str, Any] = tomllib.loads((_HERE / "modules.toml").read_text(encoding="utf-8"))
    modules: dict[str, list[str]] = tables["tests"]
    results: dict[str, Any] = tomllib.loads(_RESULTS.read_text(encoding="utf-8")) if _RESULTS.exists() else {}
    parts = options.modules or list(results)
    chosen = {path: tests for path, tests in modules.items() if any(part in path for part in parts)}
    sampled = {} if options.modules else {path: one["tried"] for path, one in results.items() if one["tried"] < one["made"]}
    tried = died = equivalent = unexplained = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = _copied(Path(folder))
        for path, tests in chosen.items():
            source, made = mutants_of(copy / path, tables["io"].get(path, []))
            outcomes = _outcomes(copy, path, source, tests, _chosen(made, options.most or sampled.get(path, 0)))
            result = _result(made, outcomes, results.get(path, {}).get("survivors", {}))
            tried += result["tried"]
            died += result["died"]
            equivalent += sum(reason.startswith(_SAME) for reason in result["survivors"].values())
            unexplained += _print(path, result)
            if options.write:
                results[path] = result
                _RESULTS.write_text(_toml(results), encoding="utf-8")
    share = died / (tried - equivalent) if tried > equivalent else 0.0
    print(f"\n{died} of {tried} mutants died, {equivalent} are equivalent: {share:.1%}")
    print(f"{unexplained} survivors have no reason in results.toml")
    _print_uncovered(tables, set(chosen), results)
    return 0 if share >= _ENOUGH and not unexplained else 1


def _copied(folder: Path) -> Path:
    for name in _COPIED:
        source = _ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        else:
            shutil.copy(source, folder / name)
    return folder


def _chosen(made: list[Mutant], most: int) -> list[Mutant]:
    return sorted(made, key=lambda mutant: sha256(mutant.change.encode()).digest())[:most] if most else made


def _outcomes(copy: Path, path: str, source: str, tests: list[str], mutants: list[Mutant]) -> dict[str, str]:
    """What became of each change."""
    module = copy / path
    original = module.read_text(encoding="utf-8")
    module.write_text(source, encoding="utf-8")
    outcomes = _run(copy, tests, mutants)
    module.write_text(original, encoding="utf-8")
    return {mutant.change: outcomes.get(mutant.name, "not tried in time") for mutant in mutants}


def _result(made: list[Mutant], outcomes: dict[str, str], reasons: dict[str, str]) -> dict[str, Any]:
    survivors = sorted(change for change, outcome in outcomes.items() if outcome not in _DEAD)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "made": len(made),
        "tried": len(outcomes),
        "died": len(outcomes) - len(survivors),
        "survivors": {change: reasons.get(change, "?") for change in survivors},
    }


def _run(copy: Path, tests: list[str], mutants: list[Mutant]) -> dict[str, str]:
    """Outcome by name."""
    asked, answers = copy / "mutants.json", copy / "outcomes.json"
    answers.unlink(missing_ok=True)
    asked.write_text(json.dumps({"mutants": [(one.name, one.function) for one in mutants], "answers": str(answers)}), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "--assert=plain", "-p", "no:cacheprovider"]
    command += ["-p", "tests.mutants.plugin", "--hypothesis-profile=mutants"]
    environment = os.environ | {"MUTANTS": str(asked), "PYTHONPATH": str(copy)}
    done = subprocess.run([*command, *tests], cwd=copy, env=environment, capture_output=True, text=True, timeout=_MOST_SECONDS, check=False)
    if not answers.exists():
        raise SystemExit(f"the tests do not run:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    outcomes: dict[str, str] = json.loads(answers.read_text(encoding="utf-8"))
    return outcomes


def _print(path: str, result: dict[str, Any]) -> int:
    """How many survivors have no reason."""
    sampled = "" if result["made"] == result["tried"] else f" tried of {result['made']}"
    print(f"{path}: {result['died']} of {result['tried']}{sampled} died", flush=True)
    unexplained = [change for change, reason in result["survivors"].items() if reason == "?"]
    for change in unexplained:
        print(f"    survived: {change}", flush=True)
    return len(unexplained)


def _print_uncovered(tables: dict[str, Any], chosen: set[str], results: dict[str, Any]) -> None:
    """What says nothing about itself in this run."""
    listed = set(tables["tests"])
    print("\nNot covered: prose, annotations, what stands outside functions, async functions, and")
    for path in sorted(listed - chosen):
        print(f"    {path}: {'not chosen' if path in results else 'no record yet'}")
    for path in sorted(chosen & set(results)):
        if (left := results[path]["made"] - results[path]["tried"]) > 0:
            print(f"    {path}: {left} of its {results[path]['made']} mutants")
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
