"""deploy/README.md, "By task": each command is taken from the page and run, and a backup is restored by its words alone."""

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from deploy.client import ask
from deploy.local.postgres import PostgresServer, binaries
from tests.support.bot import Bot
from tests.support.customer import Customer
from tests.support.ports import free_row
from tests.support.system import GERBANG, System

GUIDE = Path(__file__).parents[2] / "deploy" / "README.md"
KEY = "gbk_ka7rJFfR1hFSj4ipk8CGXJ2fYC8h"
ELSEWHERE = ("systemctl ",)
"""Commands of machines that no test can be; what they do is done to the processes instead."""


def tasks() -> dict[str, list[str]]:
    """The command lines below each heading of the part."""
    part = GUIDE.read_text().partition("\n## By task\n")[2].partition("\n## ")[0]
    headings = re.split(r"^### (.+)$", part, flags=re.MULTILINE)[1:]
    blocks = {
        heading: re.findall(r"```console\n(.*?)```", text, re.DOTALL) for heading, text in zip(headings[::2], headings[1::2], strict=True)
    }
    return {heading: [line.removeprefix("$ ") for line in "".join(found).splitlines()] for heading, found in blocks.items()}


TASKS = tasks()


def run(system: System, line: str, folder: Path, names: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A line of the guide in a shell, with this system's names in place of the guide's."""
    secret = {name: (system.folder / "secrets" / name).read_text().strip() for name in ("postgres-owner", "postgres-admin")}
    names = names | {
        "postgresql://owner@db.internal/gerbang": f"'{secret['postgres-owner']}'",
        "postgresql://gerbang_admin@db.internal/gerbang": f"'{secret['postgres-admin']}'",
        "http://127.0.0.1:8081": system.ops_url,
        "/etc/gerbang/secrets/admin/vault": str(system.folder / "secrets/vault-keys"),
        "/etc/gerbang/": f"{system.folder}/",
        "/var/lib/gerbang-admin/": f"{folder}/streamed/",
    }
    for name, value in names.items():
        line = line.replace(name, value)
    environment = system.environment | {
        "PATH": f"{GERBANG.parent}:{binaries()}:{os.environ['PATH']}",
        "GERBANG_INTERNAL_URL": system.internal_url,
        "GERBANG_INTERNAL_TOKEN_FILE": str(system.folder / "secrets/internal-token"),
    }
    return subprocess.run(["bash", "-euo", "pipefail", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=90)


@pytest.mark.parametrize("heading", [name for name in TASKS if name != "Restore yesterday"])
def test_the_commands_of_a_task_do_what_they_say(system, customer_of, tmp_path, heading):
    lines = [line for line in TASKS[heading] if not line.startswith(ELSEWHERE)]
    assert lines or heading == "Retention"
    customer = customer_of()
    key = customer.create_key(label="a task's", scopes=["read"], ip_access="unrestricted")
    for line in lines:
        done = run(system, line, tmp_path, {KEY: key["key_id"], "siti": customer.account})
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    if heading == "Revoke after a leak":
        assert f"{key['key_id']}" in done.stdout or "not revoked yet" in done.stderr
        with Bot(system.gateway_url, key, address="127.0.3.1") as bot:
            bot.becomes(401)


@pytest.fixture
def own(tmp_path):
    """A system that may be stopped, and whose audit is streamed."""
    running = System(tmp_path / "data", free_row())
    running.start()
    (tmp_path / "streamed").mkdir()
    file = running.folder / "admin.toml"
    file.write_text(f'{file.read_text()}\n[audit]\nfile = "{tmp_path}/streamed/audit.jsonl"\ninterval_ms = 100\n')
    running.end()
    running.start()
    yield running
    if running.processes():
        running.end()


def streamed(file: Path, event: str) -> dict[str, object]:
    """The event, once the file has it."""
    deadline = time.monotonic() + 30
    while True:
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        found = [json.loads(line) for line in lines if line.endswith("\n")]  # the last one may still be written
        if any(one["event"] == event for one in found):
            return next(one for one in found if one["event"] == event)
        assert time.monotonic() < deadline, event
        time.sleep(0.05)


def internally(system: System, method: str, path: str, body: object = None) -> Any:
    token = (system.folder / "secrets/internal-token").read_text().strip()
    reply = ask(method, f"{system.internal_url}/internal/v1/{path}", body=body, token=token)
    assert reply.status == 200, reply
    return reply.content


def test_what_was_stopped_after_the_backup_stays_stopped_after_its_restoration(own, tmp_path):
    customer, frozen, unverified, lost = (Customer(own.admin_url, own.identity_url) for _ in range(4))
    leaked, kept = (customer.create_key(label=label, scopes=["read"], ip_access="unrestricted") for label in ("leaked", "kept"))
    ended = [leaked, *(each.create_key(label="stopped", scopes=["read"], ip_access="unrestricted") for each in (frozen, unverified))]
    streamed(tmp_path / "streamed/audit.jsonl", "key_created")
    (dump,) = [line for line in TASKS["Upgrade and roll back"] if line.startswith("pg_dump")]
    assert run(own, dump, tmp_path, {}).returncode == 0
    revoked = TASKS["Revoke after a leak"][0]
    assert run(own, revoked, tmp_path, {KEY: leaked["key_id"]}).returncode == 0
    internally(own, "POST", f"accounts/{frozen.account}/freeze", {"reason": "case 4711"})
    internally(own, "PUT", f"accounts/{unverified.account}", {"kyc": "revoked"})
    (factor,) = lost.expect(200, "GET", "account")["factors"]
    proof = lost.step_up(action="remove_factor", factor_id=factor["id"])
    lost.expect(204, "DELETE", f"factors/{factor['id']}", {"step_up": proof})
    for key in ended:
        with Bot(own.gateway_url, key) as bot:
            bot.becomes(401 if key is leaked else 403)
    last = streamed(tmp_path / "streamed/audit.jsonl", "factor_removed")

    names: dict[str, str] = {}
    database = PostgresServer(own.folder / "postgres")
    for line in TASKS["Restore yesterday"]:
        if line.startswith("systemctl stop"):
            own.end()
            database.start()
        elif line == "systemctl start gerbang-admin":
            database.stop()
            own.start()
            for key in ended:
                with Bot(own.gateway_url, key) as bot:
                    bot.becomes(200)  # the dump has it alive: that is what the next line is for
            assert internally(own, "GET", f"accounts/{lost.account}")["factors"]
        elif line.startswith("redis-cli"):
            for file in (own.folder / "redis").glob("*.rdb"):
                file.unlink()
        elif not line.startswith("systemctl"):
            done = run(own, line, tmp_path, names)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            if "audit verify" in line:
                names["SEQ:HASH"] = done.stdout.split()[-1]
                expecting = run(own, f"{line} --expect {last['id']}:{last['hash']}", tmp_path, names)
                assert (expecting.returncode, str(last["id"]) in expecting.stderr) == (1, True), expecting
            elif "revoked-since" in line and "--apply" not in line:
                assert leaked["key_id"] in done.stdout
                assert kept["key_id"] not in done.stdout
                for option, only in (
                    ("keys", leaked["key_id"]),
                    ("frozen", frozen.account),
                    ("kyc", unverified.account),
                    ("factors", lost.account),
                ):
                    assert run(own, f"{line} --{option}", tmp_path, names).stdout == f"{only}\n"
    for key in ended:
        with Bot(own.gateway_url, key) as bot:
            bot.becomes(401 if key is leaked else 403)
    with Bot(own.gateway_url, kept) as other:
        other.becomes(200)
    holder = internally(own, "GET", f"accounts/{lost.account}")
    assert (holder["factors"], holder["frozen"]) == ([], True)
    assert internally(own, "GET", f"keys/{leaked['key_id']}")["revoked_reason"] == "found in a public repository"
