"""Compiling, with the real compiler and a package of one module."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

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
    for age, name in enumerate(("latest", "earlier", "earliest")):
        (native.HOME / name).mkdir(parents=True)
        os.utime(native.HOME / name, (1_000_000 - age, 1_000_000 - age))
    (native.HOME / "a file").write_text("")
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
    assert {path.name for path in native.HOME.iterdir()} == {folder.name, "latest", "a file"}
    assert compile_gateway(told.append) == folder
    assert len(told) == 1


def test_a_copy_that_was_damaged_is_made_again():
    folder = compile_gateway(lambda _line: None)
    next(iter(folder.rglob("*.so"))).write_bytes(b"")
    assert native.compiled() is None
    assert compile_gateway(lambda _line: None) == folder == native.compiled()


def test_sources_that_change_meanwhile_are_not_filed_under_another_name(package, monkeypatch):
    copy = shutil.copytree

    def late(source, target, **how):
        (package / "one.py").write_text(MODULE + "LATE = True\n")
        return copy(source, target, **how)

    monkeypatch.setattr(shutil, "copytree", late)
    with pytest.raises(CannotCompile, match="changed while they were copied"):
        compile_gateway(lambda _line: None)
    assert list(native.HOME.iterdir()) == []


def test_who_finishes_second_takes_what_the_first_has_made():
    with ThreadPoolExecutor(2) as both:
        folders = list(both.map(lambda _number: compile_gateway(lambda _line: None), range(2)))
    assert folders[0] == folders[1] == native.compiled()


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
