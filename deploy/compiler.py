"""Compiles the gateway's data plane to machine code with mypyc, beside the interpreted package (see ``gateway.native``)."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex

from gateway import native
from gateway.errors import GerbangError
from gateway.runtime import clock

_CHECKER = "[mypy]\nplugins = pydantic.mypy\nignore_missing_imports = true\n"
_SETUP = """
from mypyc.build import mypycify
from setuptools import setup

setup(name="gerbang-compiled", packages=[], ext_modules=mypycify({arguments!r}, opt_level="2", debug_level="0"))
"""
TIMEOUT_S = 900
_MAKING = "making-"


class CannotCompile(GerbangError):
    """What is missing, or what the compiler said last."""


def compile_gateway(tell: Callable[[str], None], *, home: Path | None = None) -> Path:
    """Make the compiled copy for the sources as they are now, unless it is there; copies of other sources are removed.

    :param tell: is given a line before something that takes long
    :param home: where copies lie; that of :mod:`gateway.native` when not given
    :return: its folder
    :raises CannotCompile: mypy or a C compiler is missing, compiling fails, or the folder cannot be written
    """
    home = home or native.HOME
    folder = home / native.digest()
    try:
        if not native.is_whole(folder):
            _check_tools()
            tell("compiling the data plane; this takes about a minute")
            _build(folder)
        _clear(home, keep=folder)
    except OSError as error:
        raise CannotCompile(f"{error.filename or home} cannot be used: {error.strerror or error}") from None
    return folder


def _clear(home: Path, *, keep: Path) -> None:
    """Remove copies of other sources but the latest, which another checkout on this environment may be using."""
    others = [other for other in home.iterdir() if other.is_dir() and other != keep and not _is_being_made(other)]
    for other in sorted(others, key=lambda folder: folder.stat().st_mtime)[:-1]:
        _discard(other)


def _discard(folder: Path) -> None:
    """Out of the way in one step, so that nobody imports half of it; then away."""
    gone = folder.with_name(f"{_MAKING}{folder.name}-{token_hex(4)}")
    with suppress(FileNotFoundError):
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _is_being_made(other: Path) -> bool:
    """Somebody compiles there at this moment; what is older was left behind."""
    return other.name.startswith(_MAKING) and clock.now_ms() / 1000 - other.stat().st_mtime < TIMEOUT_S


def _check_tools() -> None:
    if find_spec("mypyc") is None or find_spec("setuptools") is None:
        raise CannotCompile("mypy is missing: pip install 'gerbang[compile]'")
    if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        raise CannotCompile("a C compiler is missing; on Debian and Ubuntu: apt-get install gcc libc6-dev")


def _build(folder: Path) -> None:
    """Compile in a folder of its own beside the final one, which is then there whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=_MAKING, dir=folder.parent) as name:
        work = Path(name)
        shutil.copytree(native.PACKAGE, work / "gateway", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        if native.digest(work / "gateway") != folder.name:
            raise CannotCompile("the sources changed while they were copied: compile again")
        (work / "mypy.ini").write_text(_CHECKER)
        modules = [f"gateway/{module}.py" for module in native.MODULES]
        (work / "setup.py").write_text(_SETUP.format(arguments=["--config-file=mypy.ini", *modules]))
        _run([sys.executable, "setup.py", "build_ext", "--inplace"], work)
        made = work / "made"
        made.mkdir()
        for part in [work / "gateway", *work.glob("*.so")]:
            part.rename(made / part.name)
        _run([sys.executable, "-c", f"import {', '.join(_names())}"], made)
        (made / native.WHOLE).write_text(native.machine_code(made))
        os.sync()  # the rename must not reach the disk before what it names
        if folder.is_dir() and not native.is_whole(folder):
            _discard(folder)
        try:
            made.rename(folder)
        except OSError:
            if not native.is_whole(folder):  # else somebody else has just made the same
                raise


def _names() -> list[str]:
    return ["gateway." + module.replace("/", ".") for module in native.MODULES]


def _run(command: list[str], work: Path) -> None:
    with tempfile.TemporaryFile() as output:  # what is said may be more than a pipe holds
        try:
            # The command is this interpreter and a file written above.
            subprocess.run(command, cwd=work, stdout=output, stderr=output, timeout=TIMEOUT_S, check=True)  # noqa: S603
        except subprocess.SubprocessError as error:
            output.seek(0)
            said = output.read().decode("utf-8", "replace").strip().splitlines()[-20:]
            raise CannotCompile("\n".join([f"the compiler failed ({error}); it said last:", *said])) from None
