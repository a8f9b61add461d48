"""The compose file without a container engine: its own commands, with its users, capabilities, mounts and modes."""

import os
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.deploy.test_systemd import SERVICES, configuration, write_secrets
from tests.support import sandbox
from tests.support.sandbox import Mount

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "deploy" / "README.md"
COMPOSE = yaml.safe_load((ROOT / "deploy/container/compose.yaml").read_text())
DSN = "postgresql://postgres:secret@postgres/gerbang"

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


class Machine:
    """The folder of the compose file, and the volumes as an engine makes them: empty, of root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for service in SERVICES:
            write_secrets(folder / "secrets" / service)
        (folder / "secrets/migrate").mkdir()
        (folder / "secrets/migrate/owner").write_text(DSN + "\n")
        (folder / "secrets/migrate/owner").chmod(0o600)
        (folder / "config").mkdir()
        state = {"gateway": "/var/lib/gerbang", "admin": "/var/lib/gerbang-admin"}
        for service in SERVICES:
            (folder / "config" / f"{service}.toml").write_text(configuration(service, "/run/secrets/", state[service]))
        for volume in COMPOSE["volumes"]:
            (folder / volume).mkdir()

    def run(self, service: str, command: list[str] | None = None, **how):
        """The service's own entry point and command, or another command in its place."""
        about = COMPOSE["services"][service]
        assert about["cap_drop"] == ["ALL"]
        words = command or words_of(service)
        mounts = [Mount(self.folder / source, target, mode != "ro") for source, target, mode in map(parts, about["volumes"])]
        user, _, group = about["user"].partition(":")
        assert user == group
        return sandbox.run(words, mounts, user=int(user), capabilities=about.get("cap_add", []), **how)


def words_of(service: str) -> list[str]:
    about = COMPOSE["services"][service]
    return [word.replace("$$", "$") for word in (*about["entrypoint"], *about["command"])]


def parts(volume: str) -> tuple[str, str, str]:
    source, target, mode = (*volume.split(":"), "rw")[:3]
    return source, target, mode


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@root
@pytest.mark.parametrize("service", SERVICES)
def test_a_service_reads_its_secrets_and_writes_its_volume_once_they_are_prepared(machine, service):
    before = machine.run(service, ["sh", "-c", "ls /run/secrets/postgres"])
    assert before.returncode != 0
    for _ in range(2):  # and again after a change
        done = machine.run("prepare")
        assert done.returncode == 0, done.stderr
    done = machine.run(service, ["gerbang", "check", f"/etc/gerbang/{service}.toml", "--strict"])
    assert done.returncode == 0, done.stdout + done.stderr
    state = [target for _, target, mode in map(parts, COMPOSE["services"][service]["volumes"]) if mode == "rw"]
    done = machine.run(service, ["sh", "-euc", f"touch {state[0]}/own; ! touch /etc/gerbang/x /run/secrets/x /opt/x 2>/dev/null"])
    assert (len(state), done.returncode) == (1, 0), done.stderr


@root
def test_a_secret_that_was_taken_away_is_gone_after_the_next_preparation(machine):
    machine.run("prepare")
    (machine.folder / "secrets/admin/redis").unlink()
    assert machine.run("prepare").returncode == 0
    held = {path.name for path in (machine.folder / "secrets-admin").iterdir()}
    assert held == {"postgres", "tls.crt", "tls.key", "token", "vault"}


@root
def test_the_migration_gets_the_owners_dsn_and_no_argument(machine):
    machine.run("prepare")
    *words, script = words_of("migrate")
    done = machine.run("migrate", [*words, 'gerbang() { echo "$GERBANG_DSN $*"; }\n' + script.replace("exec ", "")])
    assert done.stdout == f"{DSN} migrate\n", done.stderr


def test_no_service_of_ours_is_root_or_writes_its_own_image():
    ours = {name: service for name, service in COMPOSE["services"].items() if service["image"].startswith("gerbang")}
    assert {name for name, service in ours.items() if service["user"] == "0:0"} == {"prepare"}
    assert all(service["read_only"] and service["security_opt"] == ["no-new-privileges:true"] for service in ours.values())
    assert COMPOSE["services"]["prepare"]["network_mode"] == "none"
    assert len({service["image"] for service in ours.values()}) == 1


def test_the_lines_of_the_guide_name_what_the_file_has():
    (block,) = re.findall(r"^### Containers\n.*?```console\n(.*?)```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)[:1]
    build, *lines = [shlex.split(line.removeprefix("$ ")) for line in block.splitlines()]
    image = COMPOSE["services"]["gateway"]["image"]
    assert build[build.index("-t") + 1] == re.sub(r"\$\{GERBANG_VERSION:-(.+)\}", r"\1", image)
    assert (ROOT / build[build.index("-f") + 1]).is_file()
    for line in lines:
        assert line[:4] == ["docker", "compose", "-f", "deploy/container/compose.yaml"]
    services = [word for line in lines for word in line[5:6] if not word.startswith("-")]
    assert services == ["migrate", "postgres"]
    (psql,) = [line for line in lines if "psql" in line]
    assert psql[psql.index("-d") + 1] == COMPOSE["services"]["postgres"]["environment"]["POSTGRES_DB"]
    assert (psql[psql.index("-U") + 1], set(services) <= COMPOSE["services"].keys()) == ("postgres", True)


def test_redis_evicts_nothing():
    command = COMPOSE["services"]["redis"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"


def test_everything_that_is_mounted_or_waited_for_is_declared():
    for name, service in COMPOSE["services"].items():
        assert set(service.get("secrets", [])) <= COMPOSE["secrets"].keys(), name
        volumes = {source for source, _, _ in map(parts, service.get("volumes", [])) if not source.startswith(".")}
        assert volumes <= COMPOSE["volumes"].keys(), name
        assert set(service.get("depends_on", {})) <= COMPOSE["services"].keys(), name
