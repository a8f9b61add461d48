"""gerbang up from its first line to its last process: starts, refuses to start, stops, is killed, starts again."""

import os
import re
import signal
import socket
import stat
import subprocess
import time

import pytest

from tests.support.bot import Bot
from tests.support.ports import free_row
from tests.support.system import GERBANG, System


@pytest.fixture
def system(tmp_path):
    """A system of this test's own, not started yet."""
    own = System(tmp_path / "data", free_row())
    yield own
    for pid in own.processes():
        os.kill(pid, signal.SIGKILL)


def gone(system, *, seconds=60):
    """Wait until no process of the system is left."""
    deadline = time.monotonic() + seconds
    while left := system.processes():
        assert time.monotonic() < deadline, left
        time.sleep(0.02)
    return True


def demo_passes(system):
    with Bot(system.gateway_url, system.demo_key) as bot:
        return bot.call("GET", "/v1/wallets").status == 200


def test_the_first_start_makes_what_the_contract_says_and_the_second_keeps_it(system, record_property):
    output = system.start()
    assert output[0] == f"ready: {system.gateway_url} {system.admin_url}"
    assert demo_passes(system)
    key = system.demo_key
    assert key.keys() == {"key_id", "secret", "scopes", "dialect"}
    for name in ("demo-key.json", "gateway.toml", "admin.toml", "demo-account.json"):
        assert stat.S_IMODE((system.folder / name).stat().st_mode) == 0o600
    assert len(system.processes()) > 6
    assert system.end(signal.SIGINT) == 0
    assert system.processes() == {}
    config = system.folder / "gateway.toml"
    config.write_text(config.read_text() + "# my note\n")
    begun = time.monotonic()
    system.start()
    record_property("measured", f"second start of gerbang up: ready after {time.monotonic() - begun:.2f} s")
    assert system.demo_key == key
    assert demo_passes(system)
    assert config.read_text().endswith("# my note\n")
    assert system.end(signal.SIGTERM) == 0
    assert system.processes() == {}


def test_a_killed_one_takes_everything_along_and_starts_again_with_all_keys(system):
    system.start()
    with Bot(system.gateway_url, system.demo_key) as bot:
        assert bot.call("GET", "/v1/wallets").status == 200
        system.end(signal.SIGKILL)
        assert gone(system)
    system.start()
    assert demo_passes(system)
    system.end()
    assert system.processes() == {}


def test_a_start_interrupted_at_any_time_leaves_nothing_and_the_next_one_works(system):
    for seconds in (0.3, 0.8, 1.3):
        command = [GERBANG, "up", "--data", system.folder, "--port", str(system.port)]
        process = subprocess.Popen(command, env=system.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        time.sleep(seconds)
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60)[1] == ""
        assert system.processes() == {}
    system.start()
    assert demo_passes(system)
    system.end()


def refused(system, *arguments):
    command = [GERBANG, "up", "--data", system.folder, "--port", str(system.port), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=system.environment, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("offset", "name"), [(0, "the gateway"), (1, "ops port"), (10, "the admin"), (12, "exchange"), (13, "internal API")]
)
def test_a_busy_port_is_told_in_one_line(system, offset, name):
    with socket.create_server(("127.0.0.1", system.port + offset)):
        line = refused(system)
    assert re.search(rf"port {system.port + offset} for .*{name}.* cannot be used: Address already in use", line)
    assert system.processes() == {}
    assert not system.folder.exists()


def test_a_folder_that_cannot_be_written_is_told_in_one_line(system, tmp_path):
    (tmp_path / "data").write_text("a file")
    assert "cannot be used: " in refused(system)


def test_a_broken_configuration_is_told_with_the_keys_path(system):
    system.start()
    system.end()
    config = system.folder / "gateway.toml"
    config.write_text(config.read_text().replace('per_key = "1200/minute"', 'per_key = "fast"'))
    done = subprocess.run(
        [GERBANG, "up", "--data", system.folder, "--port", str(system.port)], capture_output=True, text=True, env=system.environment
    )
    assert done.returncode == 1
    assert "limits.per_key" in done.stderr
    assert "Traceback" not in done.stderr
    assert system.processes() == {}
