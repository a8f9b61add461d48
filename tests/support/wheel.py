"""The wheel of this checkout in an environment of its own, compiled: what tests of whole processes and the benchmark run.

``python -m tests.support.wheel`` makes it when it is not that of the present sources. Without it, or when the sources have changed since,
the programs of the checkout are run in its place, which are interpreted, and the test run says so at its end.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".venv-wheel"
_STAMP = HOME / "made-from"
_SOURCES = ("gateway", "admin", "deploy", "config")


def digest() -> str:
    """Names the sources and the interpreter."""
    found = sha256(f"{sys.implementation.cache_tag} {sys.base_prefix}\n".encode())
    for source in sorted(
        [ROOT / "pyproject.toml", *(path for folder in _SOURCES for path in (ROOT / folder).rglob("*") if path.is_file())]
    ):
        if source.suffix not in (".pyc", ".so"):
            found.update(f"{source.relative_to(ROOT)}\n".encode() + sha256(source.read_bytes()).digest())
    return found.hexdigest()


def is_current() -> bool:
    """Whether the environment's wheel was made from the present sources."""
    return _STAMP.is_file() and _STAMP.read_text() == digest()


def program(name: str) -> Path:
    """A program of the wheel's environment, else of this one: ``gerbang``, ``python``."""
    return HOME / "bin" / name if _CURRENT else Path(sys.executable).with_name(name)


def make() -> None:
    """Build the wheel and install it, with what it needs, into :data:`HOME`.

    :raises subprocess.CalledProcessError: it cannot be built, or a package cannot be had
    """
    wanted = digest()
    python = HOME / "bin" / "python"
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    with tempfile.TemporaryDirectory() as folder:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", HOME], check=True)
        _STAMP.unlink(missing_ok=True)
        wanted_kind = {"GERBANG_WHEEL": "compiled"} if shutil.which("cc") else {}  # a module that no longer compiles must not pass unseen
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, str(ROOT)], check=True, env=os.environ | wanted_kind)
        (wheel,) = Path(folder).glob("*.whl")
        subprocess.run([*pip, "uninstall", "--yes", "gerbang"], check=True)
        subprocess.run([*pip, "install", "--require-hashes", "--requirement", ROOT / "deploy" / "locks" / "local.txt"], check=True)
        subprocess.run([*pip, "install", "--no-deps", wheel], check=True)
    _STAMP.write_text(wanted)


_CURRENT = is_current()

if __name__ == "__main__" and not _CURRENT:
    print(  # noqa: T201 - for a person who waits
        "building the wheel, whose data plane is compiled; this takes about two minutes", file=sys.stderr
    )
    make()
