"""Trading programs in Python that cannot live beside the gateway's own packages: each has an environment of its own, from locks."""

import json
import os
import shutil
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

from tests.support.lacking import lacking

FOLDER = Path(__file__).parents[1] / "e2e" / "programs"
SECONDS = 600
"""To install, and compile, where other tests run beside it."""
VARIABLES = {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_CONFIG": "1"}


def _variables() -> dict[str, str]:
    """Programs write their bytecode: freqtrade takes 15 s to be compiled each time, 4 s to be imported."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def interpreter(least: tuple[int, int]) -> str | None:
    """An interpreter that is recent enough: the tests' own, one on the path, or one that pyenv has installed."""
    if sys.version_info >= least:
        return sys.executable
    minors = range(least[1], least[1] + 3)
    named = [found for minor in minors if (found := shutil.which(f"python3.{minor}"))]
    pyenv = [Path(shim).parents[1] for shim in named if Path(shim).parent.name == "shims"]  # shims answer for the chosen version alone
    installed = [found for root in pyenv for minor in minors for found in map(str, root.glob(f"versions/3.{minor}.*/bin/python"))]
    runs = (found for found in [*named, *installed] if subprocess.run([found, "-c", ""], capture_output=True).returncode == 0)
    return next(runs, None)


def _run(command: list[str], **variables: str) -> None:
    done = subprocess.run(command, env=os.environ | VARIABLES | variables, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr


def environment(name: str, *, least: tuple[int, int]) -> Path:
    """The program's Python, installed as ``NAME.txt`` says, and ``NAME-source.txt`` where something is built."""
    python = interpreter(least)
    if python is None:
        lacking(f"{name} needs Python {least[0]}.{least[1]} or newer, which is neither on the PATH nor installed by pyenv")
    lock, source = FOLDER / f"{name}.txt", FOLDER / f"{name}-source.txt"
    if source.exists() and shutil.which("g++") is None:
        lacking(f"{name} is compiled, and there is no compiler here: apt-get install g++")
    place, stamp = FOLDER / ".environments" / name, FOLDER / ".environments" / name / "installed"
    build = [*sorted((FOLDER / "compiling").glob("*.py")), source] if source.exists() else []
    wanted = f"{python} {place} {[zlib.crc32(file.read_bytes()) for file in (lock, *build)]}"
    if stamp.exists() and stamp.read_text() == wanted:
        return place / "bin" / "python"
    uv = str(Path(sys.executable).with_name("uv"))
    _run([uv, "venv", "--clear", "--python", python, str(place)])
    install = [uv, "pip", "install", "--python", str(place / "bin" / "python"), "--no-deps", "--require-hashes", "--requirement"]
    _run([*install, str(lock)])
    if source.exists():
        # Not into uv's cache, where it would pass for the whole program. The variable is the program's own: its build takes half as long.
        _run(
            [*install, str(source), "--no-build-isolation", "--no-cache"],
            PYTHONPATH=str(FOLDER / "compiling"),
            WITHOUT_CYTHON_OPTIMIZATIONS="1",
            CFLAGS="-g0 -w",
            PATH=f"{place / 'bin'}:{os.environ['PATH']}",
        )
    stamp.write_text(wanted)
    return place / "bin" / "python"


def said(python: Path, name: str, given: dict[str, Any]) -> Any:
    """What ``NAME.py`` prints when it is given this, run by the program's own Python."""
    # -P: the file is called as the package that it imports.
    command = [str(python), "-P", str(FOLDER / f"{name}.py")]
    done = subprocess.run(command, input=json.dumps(given), env=_variables(), capture_output=True, text=True, timeout=120)
    answers = [line[5:] for line in done.stdout.splitlines() if line.startswith("SAID ")]
    assert (done.returncode, len(answers)) == (0, 1), done.stdout + done.stderr
    return json.loads(answers[0])


def printed(command: list[str], wanted: list[str], *, folder: Path) -> str:
    """What a program that goes on for ever prints until it has printed each of ``wanted``; then it is ended."""
    # rich breaks lines where the terminal ends, in the middle of what is looked for.
    options: dict[str, Any] = {"env": _variables() | {"COLUMNS": "10000"}, "cwd": folder, "text": True}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options) as program:
        limit = threading.Timer(300, program.kill)
        limit.start()
        lines: list[str] = []
        missing = set(wanted)
        try:
            while missing and (line := program.stdout.readline()):
                lines.append(line)
                missing -= {words for words in missing if words in line}
        finally:
            limit.cancel()
            program.kill()
    assert not missing, f"{missing} after\n{''.join(lines[-50:])}"
    return "".join(lines)
