"""deploy.wheel: what is compiled goes into the wheel, the sources stay as they are, and a missing compiler is said."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy import wheel
from tests.support.wheel import ROOT


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch) -> Path:
    package = tmp_path / "checkout" / "gateway"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "one.py").write_text("def double(number: int) -> int:\n    return 2 * number\n")
    monkeypatch.setattr(wheel, "MODULES", ("one",))
    return package.parent


def hook(root: Path) -> tuple[wheel.CompiledModules, list[str]]:
    said: list[str] = []
    app = SimpleNamespace(display_warning=said.append)
    return wheel.CompiledModules(str(root), {}, None, SimpleNamespace(), "", "wheel", app), said


def new_build() -> dict:
    return {"force_include": {}, "pure_python": True, "infer_tag": False}


def test_every_module_that_is_compiled_exists_once():
    assert [name for name in wheel.MODULES if not (ROOT / "gateway" / f"{name}.py").is_file()] == []
    assert len(set(wheel.MODULES)) == len(wheel.MODULES)


def test_what_is_compiled_goes_into_the_wheel_and_the_checkout_stays_as_it_is(checkout, tmp_path):
    before = sorted(checkout.rglob("*"))
    building, _said = hook(checkout)
    build = new_build()
    building.initialize("standard", build)
    assert sorted(checkout.rglob("*")) == before
    assert (build["pure_python"], build["infer_tag"]) == (False, True)
    site = tmp_path / "site"
    for source, target in build["force_include"].items():
        (site / target).parent.mkdir(parents=True, exist_ok=True)
        (site / target).write_bytes(Path(source).read_bytes())
    script = f"import sys; sys.path.insert(0, {str(site)!r}); from gateway import one; print(one.double(21), one.__file__)"
    number, file = subprocess.run([sys.executable, "-P", "-S", "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert number == "42"
    assert file.endswith(".so")
    building.finalize("standard", build, "")
    assert not any(Path(source).exists() for source in build["force_include"])


@pytest.mark.parametrize(("version", "wanted"), [("editable", ""), ("standard", "pure")])
def test_an_editable_or_pure_installation_compiles_nothing(checkout, monkeypatch, version, wanted):
    monkeypatch.setenv(wheel.REQUIRED, wanted)
    building, said = hook(checkout)
    build = new_build()
    building.initialize(version, build)
    assert build == new_build()
    assert said == []


def without_compiler(monkeypatch, _checkout):
    monkeypatch.setenv("PATH", "")


def broken_source(_monkeypatch, checkout):
    (checkout / "gateway" / "one.py").write_text("def double(number: int) -> str:\n    return 2 * number\n")


@pytest.mark.parametrize(("spoil", "reason"), [(without_compiler, "no C compiler"), (broken_source, "Incompatible return value")])
def test_what_cannot_be_compiled_makes_a_pure_wheel_and_a_line_that_says_why(checkout, monkeypatch, spoil, reason):
    spoil(monkeypatch, checkout)
    building, said = hook(checkout)
    build = new_build()
    building.initialize("standard", build)
    assert build == new_build()
    assert len(said) == 1
    assert reason in said[0]


def test_a_build_that_must_be_compiled_fails_when_it_cannot(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv(wheel.REQUIRED, "compiled")
    building, _said = hook(checkout)
    with pytest.raises(RuntimeError, match="no C compiler"):
        building.initialize("standard", new_build())


def test_the_wheel_holds_every_file_of_the_packages_and_the_examples(tmp_path):
    """Templates, catalogues, styles, migrations: what is missing would be missed only where there is no checkout."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {wheel.REQUIRED: "pure"}, check=True, capture_output=True)
    (built,) = tmp_path.glob("gerbang-*-py3-none-any.whl")
    listed = subprocess.run(["git", "ls-files", "gateway", "admin", "deploy"], cwd=ROOT, capture_output=True, text=True, check=True)
    wanted = {*listed.stdout.split(), "deploy/examples/gateway.toml", "deploy/examples/admin.toml"}
    assert wanted - set(zipfile.ZipFile(built).namelist()) == set()


C_KEYWORDS = {
    f"__{word}{end}"
    for word in (
        "alignof", "asm", "attribute", "complex", "const", "extension", "imag", "inline", "label", "real", "restrict", "signed", "thread",
        "typeof", "volatile",
    )
    for end in ("", "__")
} | {"_Alignas", "_Alignof", "_Atomic", "_Bool", "_Complex", "_Generic", "_Imaginary", "_Noreturn", "_Thread_local"}  # fmt: skip
"""What GCC and Clang take for a keyword. mypyc puts ``_`` before an attribute's name, and mypy sees nothing of it."""


def test_no_attribute_of_a_compiled_class_becomes_a_keyword_of_c() -> None:
    found = {
        (name, attribute)
        for name in wheel.MODULES
        for attribute in re.findall(r"\bself\.(\w+)", (ROOT / "gateway" / f"{name}.py").read_text())
        if f"_{attribute}" in C_KEYWORDS
    }
    assert found == set()
