"""deploy/clients/GUIDE.md: each block of settings is run by a test, as it is printed, on the version that the table names."""

import json
import re
from pathlib import Path

import pytest

from tests.support import guide

E2E = Path(__file__).parents[2] / "e2e"
LOCKS = [Path(__file__).parents[3] / "deploy" / "locks" / "test.txt", *sorted((E2E / "programs").glob("*.txt"))]
PARTS = re.split(r"^## ", guide.GUIDE.read_text(), flags=re.MULTILINE)[1:]
WITH_SETTINGS = [part.partition("\n")[0] for part in PARTS if "```" in part]


@pytest.mark.parametrize("heading", WITH_SETTINGS)
def test_the_settings_of_a_program_are_run_by_a_test(heading):
    said = re.escape(f'"{heading}"')
    runs = rf"guide\.(?:python|block|configuration)\({said}|node_program\({said}|\brun\({said}"
    assert any(re.search(runs, file.read_text()) for file in E2E.glob("test_clients_*.py")), heading


def test_each_part_has_one_block_of_settings():
    assert {part.count("```") for part in PARTS if "```" in part} == {2}


def test_the_versions_of_the_table_are_those_that_the_tests_run():
    npm = json.loads((E2E / "node" / "package-lock.json").read_text())["packages"]
    installed = {f"npm `{name.rpartition('node_modules/')[2]}`": package.get("version", "") for name, package in npm.items()}
    for lock in LOCKS:
        installed |= dict(re.findall(r"^([\w.-]+)==([\w.]+)", lock.read_text(), re.MULTILINE))
    rows = re.findall(r"^\| ([^|]+?) ([\d.]+)(?: \([^|]*\))? \| yes", guide.GUIDE.read_text(), re.MULTILINE)
    assert len(rows) == len(WITH_SETTINGS) - 1, "all but Mobee's own stream"
    for name, version in rows:
        if not name.startswith("ccxt"):  # which is installed without a lock: tests/run says why
            assert f"{installed[name.replace('_trader', '-trader')]}.".startswith(f"{version}."), name
