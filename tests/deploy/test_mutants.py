"""The list of modules that are mutated names what is there, and every pure module."""

import tomllib
from pathlib import Path

from tests.mutants.__main__ import _pure

ROOT = Path(__file__).parents[2]


def test_every_pure_module_is_mutated_and_on_record() -> None:
    listed: dict[str, list[str]] = tomllib.loads((ROOT / "tests" / "mutants" / "modules.toml").read_text())["tests"]
    recorded = tomllib.loads((ROOT / "tests" / "mutants" / "results.toml").read_text())
    assert [path for path in listed if not (ROOT / path).is_file()] == []
    assert [test for tests in listed.values() for test in tests if not (ROOT / test.partition("::")[0]).exists()] == []
    assert _pure() - set(listed) == set()
    assert set(recorded) == set(listed)
