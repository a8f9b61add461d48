"""The audit streamed: every event once more elsewhere, resumed after an end, and never past a trail that is another one."""

import asyncio
import json
import re
import socket
import subprocess
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest
import redis.asyncio as redis

from admin import audit
from admin.audit import Actor, Entry, Event, Provenance
from admin.config import AuditStream
from admin.metrics import AdminMetrics
from admin.stores import Stores
from admin.streaming import Diverged, FileSink, Sink, SinkFailed, SyslogSink, advance, sinks_of, streaming
from deploy.local.postgres import binaries
from gateway.keys import postgres
from gateway.runtime.tasks import spawn
from tests.support.stack import Database, sql
from tests.support.system import GERBANG


async def append(stores: Stores, *events: Event, operator: str = "alice") -> None:
    for event in events:
        async with stores.transaction() as connection:
            entry = Entry(
                provenance=Provenance(1_790_000_000_000, "8.8.8.8", operator),
                event=event,
                actor=Actor.OPERATOR,
                account_id="siti",
                key_id="gbk_1",
                detail={"reason": "räuber\n"},
            )
            await audit.append(connection, entry)


@pytest.fixture
async def stores(database: Database, redis_url: str) -> AsyncIterator[Stores]:
    pool = await postgres.create_pool(database.admin_dsn)
    async with redis.Redis.from_url(redis_url) as client:
        yield Stores(pool, client)
    await pool.close()


def written(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_a_file_holds_each_event_once_in_order_with_the_chains_hash(stores: Stores, tmp_path: Path, database: Database) -> None:
    file, metrics = tmp_path / "audit.jsonl", AdminMetrics()
    await append(stores, Event.KEY_REVOKED, Event.ACCOUNT_FROZEN)
    await advance(stores, FileSink(file), metrics)
    with file.open("a") as torn:
        torn.write('{"id": 3, "torn')  # a process that died as it wrote
    await append(stores, Event.ACCOUNT_THAWED)
    await advance(stores, FileSink(file), metrics)
    await advance(stores, FileSink(file), metrics)
    lines = written(file)
    assert [line["id"] for line in lines] == [1, 2, 3]
    assert (lines[0]["actor"], lines[0]["client_ip"], lines[0]["detail"]) == ("alice", "8.8.8.8", {"reason": "räuber\n"})
    connection = await asyncpg.connect(database.admin_dsn)
    assert (await audit.verify(connection)).hash.hex() == lines[-1]["hash"]
    await connection.close()
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"gerbang_admin_audit_streamed_seq 3.0" in metrics.render()


async def test_of_several_processes_that_share_a_file_one_writes(stores: Stores, tmp_path: Path, database: Database) -> None:
    file, begun, may_end = tmp_path / "audit.jsonl", threading.Event(), threading.Event()

    class Slow(FileSink):
        def write(self, lines: list[str]) -> None:
            begun.set()
            assert may_end.wait(60)
            super().write(lines)

    await append(stores, Event.KEY_REVOKED, Event.ACCOUNT_FROZEN)
    pool = await postgres.create_pool(database.admin_dsn)
    first = spawn(advance(stores, Slow(file), AdminMetrics()), name="first")
    assert await asyncio.to_thread(begun.wait, 60)
    await advance(Stores(pool, None), FileSink(file), AdminMetrics())
    assert not file.exists()
    may_end.set()
    await first
    await append(stores, Event.ACCOUNT_THAWED)
    await advance(Stores(pool, None), FileSink(file), AdminMetrics())
    assert [line["id"] for line in written(file)] == [1, 2, 3]
    await pool.close()


async def test_a_trail_that_is_another_one_is_not_streamed_on(stores: Stores, tmp_path: Path, database: Database) -> None:
    file = tmp_path / "audit.jsonl"
    await append(stores, Event.KEY_REVOKED, Event.KEY_REVOKED)
    await advance(stores, FileSink(file), AdminMetrics())
    before = file.read_bytes()
    owner = await asyncpg.connect(database.owner_dsn)
    await owner.execute("ALTER TABLE audit_events DISABLE TRIGGER audit_events_append_only; DELETE FROM audit_events WHERE seq = 2")
    await owner.close()
    for operator in ("mallory", "bob"):
        with pytest.raises(Diverged, match="event 2 is missing or differs from the streamed one"):
            await advance(stores, FileSink(file), AdminMetrics())
        await append(stores, Event.KEY_REVOKED, operator=operator)
    assert file.read_bytes() == before


@pytest.mark.parametrize("kind", ["unix", "udp", "tcp"])
async def test_syslog_is_told_in_its_form_and_goes_on_where_it_was(stores: Stores, tmp_path: Path, kind: str) -> None:
    family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "log") if kind == "unix" else ("127.0.0.1", 0))
        if kind == "tcp":
            listening.listen()
        listening.settimeout(10)
        url = f"unix://{tmp_path}/log" if kind == "unix" else f"{kind}://127.0.0.1:{listening.getsockname()[1]}"
        (sink,) = sinks_of(AuditStream(syslog=url, resume=tmp_path / "resume"))
        for number in (1, 2):
            await append(stores, Event.KEY_REVOKED)
            await advance(stores, sink, AdminMetrics())
            received = listening.accept()[0] if kind == "tcp" else listening
            message = received.recv(65_536).decode()
            if kind == "tcp":
                received.close()
                count, _, message = message.partition(" ")
                assert len(message.encode()) == int(count)
            head, _, body = message.partition(" audit - ")
            assert head == "<109>1 2026-09-21T14:13:20.000Z - gerbang-admin -"
            assert json.loads(body)["id"] == number


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"file": "{here}"}, "{here}: Is a directory"),
        ({"file": "{here}/none/audit.jsonl"}, "{here}/none/audit.jsonl: No such file or directory"),
        ({"syslog": "tcp://127.0.0.1:9", "resume": "{here}/resume"}, "tcp://127.0.0.1:9: Connection refused"),
        ({"syslog": "unix://{here}/none", "resume": "{here}/resume"}, "unix://{here}/none: No such file or directory"),
    ],
)
async def test_where_the_stream_cannot_be_written_is_named(stores: Stores, tmp_path: Path, settings: dict[str, str], named: str) -> None:
    """PostgreSQL has answered."""
    await append(stores, Event.KEY_REVOKED)
    (sink,) = sinks_of(AuditStream.model_validate({name: value.format(here=tmp_path) for name, value in settings.items()}))
    with pytest.raises(SinkFailed) as failed:
        await advance(stores, sink, AdminMetrics())
    assert str(failed.value) == named.format(here=tmp_path)


async def test_one_stream_that_works_does_not_hide_another_that_fails_and_a_reload_forgets_both(stores: Stores, tmp_path: Path) -> None:
    def shown(name: str) -> float:
        return next(float(line.split()[1]) for line in metrics.render().decode().splitlines() if line.startswith(f"{name} "))

    await append(stores, Event.KEY_REVOKED)
    metrics, up = AdminMetrics(), "gerbang_admin_audit_stream_up"
    settings = AuditStream(file=tmp_path / "audit.jsonl", syslog=f"unix://{tmp_path}/none", resume=tmp_path / "resume", interval_ms=100)
    async with streaming(settings, stores, metrics), asyncio.timeout(20):
        while shown("gerbang_admin_audit_streamed_seq") == 0 or shown(up):  # noqa: ASYNC110  # a metric has no event for this
            await asyncio.sleep(0.02)
        for _ in range(20):
            await asyncio.sleep(0.02)
            assert shown(up) == 0
    async with streaming(AuditStream(), stores, metrics):
        assert shown(up) == 1


async def test_a_resume_point_that_is_none_is_not_guessed_at(stores: Stores, tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    file.write_text("something else\n")
    sinks: list[Sink] = [FileSink(file), SyslogSink("udp://127.0.0.1:9", file)]
    for sink in sinks:
        with pytest.raises(Diverged, match="does not end with an audit event"):
            await advance(stores, sink, AdminMetrics())


@pytest.mark.parametrize(
    "given", [{"syslog": "udp://127.0.0.1:9"}, {"syslog": "udp://", "resume": "x"}, {"syslog": "/dev/log", "resume": "x"}]
)
def test_a_stream_that_could_not_be_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="syslog"):
        AuditStream.model_validate(given)


def gerbang(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([GERBANG, *map(str, arguments)], capture_output=True, text=True)


def dumped(database: Database) -> bytes:
    return subprocess.run([binaries() / "pg_dump", database.owner_dsn], capture_output=True, check=True).stdout


@contextmanager
def restored_from(database: Database, dump: bytes) -> Iterator[str]:
    """DSN, of the admin's role, of a new database with this dump in it."""
    name = f"restored_{uuid.uuid4().hex}"
    sql(database.server, f"CREATE DATABASE {name}")
    command = [binaries() / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", database.server.dsn(name)]
    subprocess.run(command, input=dump, check=True, capture_output=True)
    yield database.server.dsn(name, "gerbang_admin")
    sql(database.server, f"DROP DATABASE {name} WITH (FORCE)")


async def test_a_backup_from_before_a_revocation_is_told_what_to_revoke_again(stores: Stores, tmp_path: Path, database: Database) -> None:
    """Dump, revoke, restore: the audit's end says so, and the stream says which keys came back."""
    file = tmp_path / "audit.jsonl"
    await append(stores, Event.KEY_CREATED)
    dump = dumped(database)
    await append(stores, Event.KEY_REVOKED, Event.ACCOUNT_FROZEN, Event.ACCOUNT_THAWED, Event.ACCOUNT_FROZEN)
    await append(stores, Event.FACTOR_REMOVED, Event.RECOVERY_CODES_RENEWED)
    await advance(stores, FileSink(file), AdminMetrics())
    end = written(file)[-1]
    with restored_from(database, dump) as restored:
        verify = gerbang("audit", "verify", "--dsn", restored, "--expect", f"{end['id']}:{end['hash']}")
        assert (verify.returncode, "event 7: missing, the log ends at 1" in verify.stderr) == (1, True), verify
        point = gerbang("audit", "verify", "--dsn", restored).stdout.split()[-1]
    told = gerbang("revoked-since", point, "--audit", file)
    assert told.returncode == 0, told
    assert [re.split(r" {2,}", line)[:3] for line in told.stdout.splitlines()] == [
        ["key", "gbk_1", "siti"],
        ["account", "siti", "frozen"],
        ["account", "siti", "recovery codes renewed"],
    ]
    assert told.stderr == "1 key and 1 account to stop again\n"
    for only, ids in (("keys", "gbk_1\n"), ("frozen", "siti\n"), ("kyc", ""), ("factors", "siti\n")):
        assert gerbang("revoked-since", point, "--audit", file, f"--{only}").stdout == ids
    assert gerbang("revoked-since", point, "--audit", file, "--keys", "--apply").returncode == 2
    assert gerbang("revoked-since", f"7:{end['hash']}", "--audit", file).stderr == "0 keys and 0 accounts to stop again\n"
    assert json.loads(gerbang("revoked-since", "2020-01-01", "--audit", file, "--json").stdout)["keys"][0]["reason"] == "räuber\n"
    for wrong, words in (
        (f"1:{'0' * 64}", "from another system"),
        (f"9:{'0' * 64}", "which ends before the backup"),
    ):
        refused = gerbang("revoked-since", wrong, "--audit", file)
        assert (refused.returncode, words in refused.stderr) == (1, True), refused
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:2] + lines[3:]))
    assert "event 3 is missing" in gerbang("revoked-since", point, "--audit", file).stderr
    assert gerbang("revoked-since", "yesterday", "--audit", file).returncode == 2
    assert gerbang("revoked-since", "1:x", "--audit", file).returncode == 2
    assert gerbang("revoked-since", "1", "--audit", tmp_path / "none").returncode == 1
