"""Which compiled copy of the package counts."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from gateway import native


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch):
    """A package of one module, and an empty place for copies."""
    folder = tmp_path / "gateway"
    folder.mkdir()
    (folder / "one.py").write_text("ONE = 1\n")
    monkeypatch.setattr(native, "PACKAGE", folder)
    monkeypatch.setattr(native, "HOME", tmp_path / "home")
    monkeypatch.delenv(native.INTERPRETED, raising=False)
    return folder


def make_copy():
    folder = native.HOME / native.digest()
    folder.mkdir(parents=True)
    (folder / "one.so").write_bytes(b"machine code")
    (folder / native.WHOLE).write_text(native.machine_code(folder))
    return folder


def test_every_module_named_is_there():
    assert not [name for name in native.MODULES if not (Path(native.__file__).parent / f"{name}.py").is_file()]


def test_without_a_copy_the_gate_runs_interpreted():
    assert native.compiled() is None
    assert native.environment() == dict(os.environ)


def test_a_copy_of_these_sources_is_found_and_imported_before_anything_else(monkeypatch):
    copy = make_copy()
    monkeypatch.setenv("PYTHONPATH", "further")
    assert native.compiled() == copy
    assert native.environment()["PYTHONPATH"] == f"{copy}{os.pathsep}further"


@pytest.mark.parametrize("loss", ["cut short", "gone", "never finished"])
def test_a_copy_that_is_not_whole_does_not_count(loss):
    copy = make_copy()
    match loss:
        case "cut short":
            (copy / "one.so").write_bytes(b"")
        case "gone":
            (copy / "one.so").unlink()
        case "never finished":
            (copy / native.WHOLE).unlink()
    assert native.compiled() is None


@pytest.mark.parametrize("change", ["edit", "add", "remove", "rename", "another kind of file"])
def test_a_copy_of_other_sources_does_not_count(package, change):
    make_copy()
    one = package / "one.py"
    match change:
        case "edit":
            one.write_text("ONE = 2\n")
        case "add":
            shutil.copy(one, package / "two.py")
        case "remove":
            one.unlink()
        case "another kind of file":
            (package / "script.lua").write_text("return 1")
        case "rename":
            one.rename(package / "two.py")
    assert native.compiled() is None


def test_a_copy_made_by_another_interpreter_does_not_count(monkeypatch):
    make_copy()
    monkeypatch.setattr(sys.implementation, "cache_tag", "cpython-399")
    assert native.compiled() is None


def test_an_operator_can_leave_it_aside(monkeypatch):
    make_copy()
    monkeypatch.setenv(native.INTERPRETED, "1")
    assert native.compiled() is None
    assert "PYTHONPATH" not in native.environment() or str(native.HOME) not in native.environment()["PYTHONPATH"]
