"""The Dockerfile without a container engine: each of its instructions is followed in a folder that stands for the image.

Two things stand in: the interpreter of this machine for the base image, and for pip a program that notes how it was called and looks for
what it would read. What pip itself does with the same sources and options is tested in ``tests/e2e/test_wheel.py``.
"""

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.support import sandbox
from tests.support.sandbox import Mount

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "deploy/container/compose.yaml").read_text())
DESCRIBING = ("ARG", "LABEL", "ENV", "USER", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD")
PIP = """#!/bin/sh
set -eu
echo "${GERBANG_WHEEL-} $*" >>"$PIP_LOG"
for word; do
    case "$word" in
        deploy/*) test -s "$word" ;;
        .) test -s pyproject.toml && printf '#!/bin/sh\\n' >"$(dirname "$0")/gerbang" ;;
    esac
done
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may hand files to another user")


def instructions() -> list[tuple[str, str]]:
    """Name and arguments of each, with continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "deploy/container/Dockerfile").read_text())
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in text.splitlines()) if name and name != "#"]


class Image:
    """What following the file makes.

    :param folder: has a folder for the root of each stage
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder
        self.work = "/"
        self.bases: list[str] = []
        self.told: dict[str, str] = {}
        self.ran: list[str] = []
        (folder / "bin").mkdir()
        # A venv as the image's, but without the time that it takes to unpack pip, which the one above replaces.
        (folder / "bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@" --without-pip\n')
        (folder / "bin/python").chmod(0o755)
        for name, rest in instructions():
            if name in DESCRIBING:
                self.told[name] = rest
            else:
                getattr(self, name.lower())(rest)  # an instruction that nobody follows here fails the test

    def from_(self, rest: str) -> None:
        base, _, name = rest.partition(" AS ")
        self.bases.append(base)
        self.root = self.folder / (name or "final")
        self.root.mkdir()
        (self.root / "var/lib").mkdir(parents=True)

    def workdir(self, rest: str) -> None:
        self.work = rest
        (self.root / rest.strip("/")).mkdir(parents=True)

    def copy(self, rest: str) -> None:
        options = dict(re.findall(r"--(\w+)=(\S+)", rest))
        *sources, target = re.sub(r"--\S+ ", "", rest).split()
        from_stage = self.folder / options["from"] if "from" in options else None
        into = self.root / target.strip("/") if target.startswith("/") else self.root / self.work.strip("/") / target
        for source in sources:
            origin = from_stage / source.strip("/") if from_stage else ROOT / source
            place = into / origin.name if target.endswith("/") else into
            if origin.is_dir():
                shutil.copytree(origin, place, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
            else:
                shutil.copy2(origin, place)
            for path in origin.rglob("*") if "chown" in options else ():
                os.chown(place / path.relative_to(origin), *map(int, options["chown"].split(":")))

    def run(self, rest: str) -> None:
        self.ran.append(rest)
        for place in ("/opt/gerbang", "/state"):
            rest = rest.replace(place, f"{self.root}{place}")
        path = f"{self.folder}/bin:{os.environ['PATH']}"
        setting = {"PATH": path, "PIP_LOG": str(self.folder / "pip.log")}
        done = subprocess.run(
            ["sh", "-euc", rest], cwd=self.root / self.work.strip("/"), env=setting, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{rest}\n{done.stderr}"
        programs = self.root / "opt/gerbang/bin"
        if "venv" in rest:
            for name in ("pip", "pip3"):
                (programs / name).write_text(PIP)
                (programs / name).chmod(0o755)

    def owner(self, path: str) -> tuple[int, int, str]:
        told = (self.root / path.strip("/")).stat()
        return told.st_uid, told.st_gid, oct(stat.S_IMODE(told.st_mode))


setattr(Image, "from", Image.from_)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return Image(tmp_path_factory.mktemp("image"))


def test_every_run_is_run_and_pip_gets_the_lock_and_the_sources(image: Image):
    assert len(image.ran) == 3
    lock, sources = (image.folder / "pip.log").read_text().splitlines()
    assert lock.split() == shlex.split("install --no-cache-dir --only-binary :all: --require-hashes --requirement deploy/locks/runtime.txt")
    assert sources.split() == shlex.split("compiled install --no-cache-dir --no-deps .")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    wanted = [project["project"]["readme"], *project["project"]["license-files"], *wheel["packages"], *wheel.get("force-include", {})]
    missing = [name for name in wanted if not (image.folder / "build/src" / name).exists()]
    assert (missing, len(wanted) > 4) == ([], True)


def test_the_last_stage_has_the_program_and_no_pip_and_is_the_slim_one(image: Image):
    assert image.bases == ["python:${PYTHON}", "python:${PYTHON}-slim"]
    programs = {path.name for path in (image.root / "opt/gerbang/bin").iterdir()}
    assert ("gerbang" in programs, {name for name in programs if name.startswith("pip")}) == (True, set())
    assert {path.name for path in image.root.iterdir()} == {"opt", "var"}, "neither the sources nor the compiler's output"


def test_the_user_owns_what_may_be_written_to_and_nothing_else(image: Image):
    user = image.told["USER"]
    uid, gid = map(int, user.split(":"))
    for folder in ("/var/lib/gerbang", "/var/lib/gerbang-admin"):
        assert image.owner(folder) == (uid, gid, "0o700")
    owned = [path for path in (image.root / "opt").rglob("*") if path.lstat().st_uid == uid]
    assert owned == []
    assert {service["user"] for name, service in COMPOSE["services"].items() if "gerbang" in service["image"] and name != "prepare"} == {
        user
    }
    volumes = {volume.split(":")[1] for name in ("gateway", "admin") for volume in COMPOSE["services"][name]["volumes"]}
    assert {"/var/lib/gerbang", "/var/lib/gerbang-admin"} <= volumes


def test_the_entry_point_runs_as_that_user(image: Image, tmp_path: Path):
    words = [*json.loads(image.told["ENTRYPOINT"]), *json.loads(image.told["CMD"])]
    assert image.told["ENV"].split()[0] == "PATH=/opt/gerbang/bin:$PATH"
    tmp_path.chmod(0o700)
    os.chown(tmp_path, *map(int, image.told["USER"].split(":")))
    done = sandbox.run(words, [Mount(tmp_path, "/var/lib/gerbang", writable=True)], user=int(image.told["USER"].partition(":")[0]))
    assert (done.returncode, done.stdout.startswith("Usage: gerbang")) == (0, True), done.stderr


def test_what_the_file_declares_is_what_compose_publishes(image: Image):
    published = {port.rpartition(":")[2] for name in ("gateway", "admin") for port in COMPOSE["services"][name]["ports"]}
    assert set(image.told["EXPOSE"].split()) == published
    assert image.told["STOPSIGNAL"] == "SIGTERM"
