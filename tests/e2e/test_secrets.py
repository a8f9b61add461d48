"""An issued secret is nowhere but in its owner's hands: not in the database, not in Redis, not in any log."""

import base64
import contextlib
import subprocess
import time
from typing import Any

import pytest
import redis

from deploy.local.postgres import binaries
from tests.support.bot import Bot
from tests.support.customer import Customer
from tests.support.ports import free_row
from tests.support.system import System


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """A system of this module's own: with an empty Redis after its keys were made, so that it holds sealed records alone."""
    own: Any = System(tmp_path_factory.mktemp("secrets") / "data", free_row())
    own.start()
    own.issued = issue(own)
    own.end()
    (own.folder / "redis" / "dump.rdb").unlink()
    own.start()
    with Bot(own.gateway_url, own.key) as bot:
        assert bot.call("GET", "/v1/wallets").status == 200
    yield own
    own.end()


def issue(system):
    """Secrets that were issued and used, rightly and wrongly, so that everything that could keep or log them has seen them."""
    customer = Customer(system.admin_url, system.identity_url)
    system.key = customer.create_key()
    with Bot(system.gateway_url, system.key) as bot:
        assert bot.call("GET", "/v1/wallets").status == 200
        assert bot.send("GET", "/v1/orders", b"", bot.signed("GET", "/v1/wallets")).status == 401
    return [system.key["secret"], system.demo_key["secret"], customer.totp.secret]


@pytest.fixture
def issued(system):
    return system.issued


def forms(secret: str) -> list[bytes]:
    """How a secret's bytes could be written down: text, hex, Base64 at each of its three alignments, decoded Base32."""
    raw = secret.encode()
    encoded = [base64.b64encode(bytes(shift) + raw)[4:-4] for shift in range(3)]
    decoded = [base64.b32decode(secret)] if len(secret) == 32 else []
    return [raw, raw.hex().encode(), *encoded, *decoded, *(each.hex().encode() for each in decoded)]


def search(content: bytes, secrets: list[str]) -> None:
    assert len(content) > 400
    for secret in secrets:
        for form in forms(secret):
            assert form not in content


def test_the_search_finds_what_it_should():
    for form in forms("A" * 32):
        with pytest.raises(AssertionError):
            search(b"x" * 400 + form, ["A" * 32])


def test_a_dump_of_the_database(system, issued):
    dsn = (system.folder / "secrets" / "postgres-owner").read_text().strip()
    dump = subprocess.run([binaries() / "pg_dump", dsn], check=True, capture_output=True).stdout
    assert b"COPY public.api_keys" in dump
    search(dump, issued)


def test_a_dump_of_redis(system, issued):
    with redis.Redis.from_url((system.folder / "secrets" / "redis").read_text().strip()) as client:
        name, deadline = f"gerbang:{{{system.key['key_id']}}}:record", time.monotonic() + 30
        while not client.exists(name):  # written once the request that looked the key up is admitted
            assert time.monotonic() < deadline
            time.sleep(0.02)
        client.config_set("rdbcompression", "no")
        client.save()
        record = client.get(name)
    assert len(record) > 100
    assert not record.startswith(b"changed ")
    search((system.folder / "redis" / "dump.rdb").read_bytes(), issued)


def test_the_databases_files_logs_and_configurations(system, issued):
    found = {}
    for path in system.folder.rglob("*"):
        if path.is_file() and path.name not in ("demo-key.json", "demo-account.json"):
            with contextlib.suppress(FileNotFoundError):  # PostgreSQL removes what it needs no more
                found[path] = path.read_bytes()
    assert {"admin.log", "gateway.log"} <= {path.name for path in found}
    search(b"".join(found.values()), issued)
