"""The units without systemd: their own commands, as a user that owns nothing, with their credentials, on a read-only file system."""

import os
import re
import secrets
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support import sandbox
from tests.support.sandbox import Mount

DEPLOY = Path(__file__).parents[2] / "deploy"
CONFIG = Path(__file__).parents[2] / "config"
USER = 61_184
"""The first id that systemd gives to a dynamic user."""
SERVICES = ["gateway", "admin"]
SECRETS = {
    "postgres": "postgresql://gerbang@127.0.0.1/gerbang",
    "redis": "redis://127.0.0.1",
    "vault": "k1:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    "token": secrets.token_hex(16),
}
ENVIRONMENT = {
    "env:GERBANG_POSTGRES": "postgres", "env:GERBANG_ADMIN_POSTGRES": "postgres", "env:GERBANG_REDIS": "redis",
    "env:GERBANG_VAULT_KEYS": "vault", "env:GERBANG_INTERNAL_TOKEN": "token",
}  # fmt: skip
"""What the shipped examples take from the environment."""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


def lines(unit: str) -> dict[str, str]:
    text = (DEPLOY / "systemd" / f"gerbang-{unit}.service").read_text()
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


def write_secrets(folder: Path) -> None:
    """As the guide says: owner root, mode 0600."""
    folder.mkdir(parents=True)
    for name, content in SECRETS.items():
        (folder / name).write_text(content)
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=api.example.com -keyout tls.key -out tls.crt"
    subprocess.run(shlex.split(command), cwd=folder, check=True, capture_output=True)
    for file in folder.iterdir():
        file.chmod(0o600)


def configuration(service: str, held: str, state: str) -> str:
    """The shipped example; secrets are ``held`` under a prefix of their names, what it writes is in ``state``."""
    text = (CONFIG / f"{service}.toml").read_text()
    for old, name in ENVIRONMENT.items():
        text = text.replace(f'"{old}"', f'"file:{held}{name}"')
    text = re.sub(r"^# tls = .*$", f'tls = {{ certificate = "{held}tls.crt", key = "{held}tls.key" }}', text, count=1, flags=re.MULTILINE)
    return re.sub(r"^# (keys|file)( = \"/var/lib/gerbang)(?:-admin)?/", rf'\1 = "{state}/', text, flags=re.MULTILINE)


@pytest.fixture
def inside(tmp_path):
    """Runs shell lines as the unit would: ``inside("gateway", "id")``."""

    def run(service: str, commands: str) -> subprocess.CompletedProcess[str]:
        unit = lines(service)
        name, _, folder = unit["LoadCredential"].partition(":")
        given, state = tmp_path / "credentials", tmp_path / "state"
        write_secrets(tmp_path / Path(folder).relative_to("/etc"))
        (tmp_path / "gerbang/secrets").chmod(0o700)
        credentials = f"/run/credentials/gerbang-{service}.service"
        state_folder = f"/var/lib/{unit['StateDirectory']}"
        (tmp_path / "gerbang" / f"{service}.toml").write_text(configuration(service, f"{credentials}/{name}_", state_folder))
        given.mkdir()
        state.mkdir()
        state.chmod(int(unit["StateDirectoryMode"], 8))
        for file in (tmp_path / Path(folder).relative_to("/etc")).iterdir():  # LoadCredential= of a folder: ID_NAME for each file
            (given / f"{name}_{file.name}").write_bytes(file.read_bytes())
            (given / f"{name}_{file.name}").chmod(0o400)
        given.chmod(0o500)
        for path in (given, state, *given.iterdir()):
            os.chown(path, USER, USER)
        mounts = [Mount(tmp_path / "gerbang", "/etc/gerbang"), Mount(given, credentials), Mount(state, state_folder, writable=True)]
        return sandbox.run(
            ["sh", "-eu"],
            mounts,
            user=USER,
            umask=unit["UMask"],
            program_folder="/opt/gerbang/.venv",
            environment={"CREDENTIALS_DIRECTORY": credentials},
            text=commands,
        )

    return run


@pytest.mark.parametrize("service", SERVICES)
def test_the_unit_reads_its_secrets_and_its_certificate_and_finds_its_configuration_valid(inside, service):
    done = inside(service, f"{lines(service)['ExecStartPre']} --strict\n")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("service", "settings"),
    [("gateway", "gateway.process.configuration import load as read"), ("admin", "admin.config import load_settings as read")],
)
def test_the_key_of_the_certificate_is_read_as_the_service_reads_it(inside, service, settings):
    program = (
        f"from pathlib import Path; from {settings}; from gateway.net.tls import server_context; "
        f'read = read(Path("/etc/gerbang/{service}.toml")); read = getattr(read, "settings", read); '
        "print(type(server_context(read.listen.tls)).__name__)"
    )
    done = inside(service, f"/opt/gerbang/.venv/bin/python -c '{program}'\n")
    assert done.stdout == "SSLContext\n", done.stdout + done.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_the_unit_writes_its_own_folder_and_nothing_else(inside, service):
    state = lines(service)["StateDirectory"]
    tries = f"touch /var/lib/{state}/own && echo own\n"
    for place in ("/etc/gerbang/x", "/var/lib/x", "/opt/gerbang/x", "/run/x"):
        tries += f"(touch {place}) 2>/dev/null && echo {place} || true\n"
    tries += "(cat /etc/gerbang/secrets/*/vault) 2>/dev/null && echo secrets || true\n"
    done = inside(service, tries)
    assert (done.returncode, done.stdout) == (0, "own\n"), done.stderr


def test_every_service_reloads_by_a_signal():
    assert {lines(service)["ExecReload"] for service in SERVICES} == {"/bin/kill -HUP $MAINPID"}


def test_the_dsn_of_the_owner_is_no_argument_of_a_process():
    assert "--dsn" not in lines("migrate")["ExecStart"]
