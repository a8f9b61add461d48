"""The wheel of this checkout in an environment of its own, compiled: what tests of whole processes and the benchmark run.

``python -m tests.support.wheel`` makes it when it is not that of the present sources. Without it, or when the sources have changed since,
the programs of the checkout are run in its place, which are interpreted, and the test run says so at its end.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
_SOURCES = ("gateway", "admin", "deploy", "config")


class Environment(NamedTuple):
    """The wheel installed for one interpreter."""

    python: Path
    """The interpreter that makes it."""
    home: Path
    wanted: str
    """What its stamp says while it is that of the present sources and interpreter."""

    @property
    def _stamp(self) -> Path:
        return self.home / "made-from"

    def is_current(self) -> bool:
        """Whether its wheel was made from the present sources."""
        return self._stamp.is_file() and self._stamp.read_text() == self.wanted

    def program(self, name: str) -> Path:
        """A program in it: ``gerbang``, ``python``."""
        return self.home / "bin" / name

    def make(self) -> None:
        """Build the wheel and install it, with what it needs.

        :raises subprocess.CalledProcessError: it cannot be built, or a package cannot be had
        """
        pip = [str(self.program("python")), "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
        with tempfile.TemporaryDirectory() as folder:
            if not self.program("python").exists():
                subprocess.run([self.python, "-m", "venv", "--clear", self.home], check=True)
            self._stamp.unlink(missing_ok=True)
            wanted_kind = (
                {"GERBANG_WHEEL": "compiled"} if shutil.which("cc") else {}
            )  # a module that no longer compiles must not pass unseen
            subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, str(ROOT)], check=True, env=os.environ | wanted_kind)
            (wheel,) = Path(folder).glob("*.whl")
            subprocess.run([*pip, "uninstall", "--yes", "gerbang"], check=True)
            subprocess.run([*pip, "install", "--require-hashes", "--requirement", ROOT / "deploy" / "locks" / "local.txt"], check=True)
            subprocess.run([*pip, "install", "--no-deps", wheel], check=True)
        self._stamp.write_text(self.wanted)


def environment(python: Path | None = None) -> Environment:
    """The environment for an interpreter, made or not: for this one ``.venv-wheel``, for another a folder beside it.

    :raises subprocess.CalledProcessError: the interpreter does not run
    """
    own = _who(Path(sys.executable))
    who = own if python is None else _who(python)
    tail = "" if who == own else f"-{sha256(who.encode()).hexdigest()[:8]}"
    return Environment(python or Path(sys.executable), ROOT / f".venv-wheel{tail}", _digest(who))


def _who(python: Path) -> str:
    """Names an interpreter: its version, and where it is installed."""
    if python == Path(sys.executable):
        return f"{sys.implementation.cache_tag} {sys.base_prefix}"
    script = "import sys; print(sys.implementation.cache_tag, sys.base_prefix)"
    return subprocess.run([python, "-c", script], capture_output=True, text=True, check=True).stdout.strip()


def _digest(who: str) -> str:
    """Names the sources and an interpreter."""
    found = sha256(f"{who}\n".encode())
    for source in sorted(
        [ROOT / "pyproject.toml", *(path for folder in _SOURCES for path in (ROOT / folder).rglob("*") if path.is_file())]
    ):
        if source.suffix not in (".pyc", ".so"):
            found.update(f"{source.relative_to(ROOT)}\n".encode() + sha256(source.read_bytes()).digest())
    return found.hexdigest()


_OWN = environment()
_CURRENT = _OWN.is_current()


def is_current() -> bool:
    """Whether the wheel of this interpreter's environment was made from the sources as they were when the program started."""
    return _CURRENT


def program(name: str) -> Path:
    """A program of the wheel's environment, else of this one: ``gerbang``, ``python``."""
    return _OWN.program(name) if _CURRENT else Path(sys.executable).with_name(name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build and install the wheel of the present sources, unless that has been done.")
    parser.add_argument("--python", type=Path, help="the interpreter to do it for (default: this one)")
    chosen = environment(parser.parse_args().python)
    if not chosen.is_current():
        print(f"building the wheel in {chosen.home}; its data plane is compiled, which takes some minutes", file=sys.stderr)  # noqa: T201
        chosen.make()
