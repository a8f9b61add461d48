"""What an operator installs: the wheel in an environment of its own, far from the checkout. ``tests/run`` builds it first."""

import json
import os
import shutil
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.support import wheel
from tests.support.bot import Bot
from tests.support.lacking import unless
from tests.support.ports import free_row
from tests.support.system import GERBANG, System

pytestmark = unless("" if wheel.is_current() else "the wheel of these sources: python -m tests.support.wheel builds it")


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


@pytest.fixture
def system(tmp_path, empty):
    own = System(tmp_path / "data", free_row(), cwd=empty)
    yield own
    for pid in own.processes():
        os.kill(pid, signal.SIGKILL)


def test_nothing_of_the_checkout_is_imported(empty):
    script = "import admin, deploy, gateway; print(admin.__file__, deploy.__file__, gateway.__file__)"
    command = [wheel.program("python"), "-P", "-c", script]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=empty).stdout.split()
    assert len(found) == 3
    assert all(Path(file).is_relative_to(GERBANG.parents[1]) for file in found)


def test_it_serves_a_signed_request_from_an_empty_folder(system, empty):
    system.start()
    with Bot(system.gateway_url, system.demo_key) as bot:
        assert bot.call("GET", "/v1/wallets").status == 200
    with urllib.request.urlopen(f"{system.ops_url}/config") as answer:
        assert json.load(answer)["compiled"] is (shutil.which("cc") is not None)
    with urllib.request.urlopen(f"{system.admin_url}/openapi.json") as answer:
        assert json.load(answer)["openapi"].startswith("3.1")
    assert system.end() == 0
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize("service", ["gateway", "admin"])
def test_it_prints_the_examples_of_the_checkout(empty, service):
    printed = subprocess.run([GERBANG, "config", "example", service], capture_output=True, text=True, check=True, cwd=empty).stdout
    assert printed.rstrip("\n") == (wheel.ROOT / "config" / f"{service}.toml").read_text().rstrip("\n")
