"""The locks hold what pyproject.toml asks for, each with hashes, and name no place it came from."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {"runtime": (), "local": ("local", "traces"), "test": ("local", "traces", "test", "dev")}


def wanted(extras: tuple[str, ...]) -> list[Requirement]:
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in PROJECT["optional-dependencies"][extra])]
    return [requirement for requirement in map(Requirement, texts) if requirement.name != PROJECT["name"]]


def of_program(file: Path) -> list[Requirement]:
    return [Requirement(line) for line in file.read_text().splitlines() if not line.startswith("#")]


@pytest.mark.parametrize(
    ("lock", "wishes"),
    [
        *((ROOT / "deploy" / "locks" / f"{lock}.txt", wanted(extras)) for lock, extras in EXTRAS.items()),
        *((file.with_suffix(".txt"), of_program(file)) for file in sorted((ROOT / "tests" / "e2e" / "programs").glob("*.in"))),
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else "",
)
def test_a_lock_is_of_the_present_dependencies(lock: Path, wishes: list[Requirement]) -> None:
    text = lock.read_text()
    pinned: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==([\w.+!]+)", text, re.MULTILINE):
        pinned.setdefault(name.lower().replace("_", "-"), []).append(version)
    missing = [str(each) for each in wishes if not any(map(each.specifier.contains, pinned.get(each.name.lower().replace("_", "-"), [])))]
    assert missing == [], "resolve them again: nox -s lock"
    assert text.count("==") <= text.count("--hash=sha256:")
    assert "http" not in "".join(line for line in text.splitlines() if not line.lstrip().startswith("#") and "==" not in line)


def test_the_bill_of_materials_names_every_package_of_the_image_with_its_version(tmp_path: Path) -> None:
    """As ``nox -s sbom`` makes it."""
    lock, made = ROOT / "deploy" / "locks" / "runtime.txt", tmp_path / "sbom.json"
    command = [str(Path(sys.executable).with_name("nox")), "-s", "sbom", "--", "--output-file", str(made)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    bill = json.loads(made.read_text())
    assert bill["metadata"]["component"]["name"] == PROJECT["name"]
    pinned = set(re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==([\w.+!]+)", lock.read_text(), re.MULTILINE))
    assert {(component["name"], component["version"]) for component in bill["components"]} == pinned
    assert all(component["externalReferences"][0]["hashes"] for component in bill["components"])
