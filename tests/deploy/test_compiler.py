"""Compiling, with the real compiler and a package of one module."""

import subprocess
import sys

import pytest

from deploy import compiler
from deploy.compiler import CannotCompile, compile_gateway
from gateway import native

MODULE = '"""A module."""\n\n\ndef twice(number: int) -> int:\n    return 2 * number\n'


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch):
    folder = tmp_path / "gateway"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "one.py").write_text(MODULE)
    monkeypatch.setattr(native, "PACKAGE", folder)
    monkeypatch.setattr(native, "HOME", tmp_path / "home")
    monkeypatch.setattr(native, "MODULES", ("one",))
    return folder


def test_what_is_compiled_is_found_used_and_made_once(package):
    told = []
    (native.HOME / "of-other-sources").mkdir(parents=True)
    folder = compile_gateway(told.append)
    assert native.compiled() == folder
    script = "from gateway import one; print(one.__file__, one.twice(21))"
    said = subprocess.run(
        [sys.executable, "-P", "-c", script], env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=True
    ).stdout.split()
    assert said[0].startswith(str(folder / "gateway" / "one."))
    assert not said[0].endswith(".py")
    assert said[1] == "42"
    assert len(told) == 1
    assert list(native.HOME.iterdir()) == [folder]
    assert compile_gateway(told.append) == folder
    assert len(told) == 1


def test_what_cannot_be_compiled_is_told_and_leaves_nothing(package):
    (package / "one.py").write_text('NUMBER: int = "a text"\n')
    with pytest.raises(CannotCompile, match="Incompatible types in assignment"):
        compile_gateway(lambda _line: None)
    assert list(native.HOME.iterdir()) == []


@pytest.mark.parametrize(("missing", "advice"), [("mypyc", "gerbang\\[compile\\]"), ("cc", "gcc")])
def test_a_tool_that_is_missing_is_told(monkeypatch, missing, advice):
    if missing == "cc":
        monkeypatch.setenv("PATH", "/nonexistent")
    else:
        monkeypatch.setattr(compiler, "find_spec", lambda name: None if name == "mypyc" else object())
    with pytest.raises(CannotCompile, match=advice):
        compile_gateway(lambda _line: None)


def test_a_place_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(native, "HOME", tmp_path / "file")
    with pytest.raises(CannotCompile, match="file"):
        compile_gateway(lambda _line: None)
