"""The running service tells: what its API changes arrives by webhook and by mail, and waits for neither."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from admin import outbox
from admin.outbox import Notice, Topic
from gateway.keys.vault import new_entry
from tests.support.admin import INTERNAL_TOKEN, Customer, Service, running_service, settings_for
from tests.support.issuer import Issuer
from tests.support.notices import SECRET, Receiver, SmtpServer, add_account, settings_of
from tests.support.stack import Database


@pytest.fixture
async def service(
    issuer: Issuer, database: Database, redis_url: str, receiver: Receiver, mail_server: SmtpServer
) -> AsyncIterator[Service]:
    told: dict[str, Any] = {
        "webhooks": settings_of(receiver),
        "mail": {"smtp": mail_server.url, "from": "Exchange <keys@exchange.example>"},
        "keys": {"unrestricted_trade_days": 30},
        "internal": {"tokens": {"alice": INTERNAL_TOKEN}, "notify": ["security@exchange.example"]},
    }
    async with running_service(settings_for(issuer, database.admin_dsn, redis_url, **told), issuer) as service:
        yield service


@pytest.fixture
async def alice(service: Service) -> Customer:
    customer = service.customer("alice", email="alice@mail.example")
    await customer.enrol()
    return customer


async def test_every_change_of_an_account_is_told_in_order(
    alice: Customer, service: Service, receiver: Receiver, mail_server: SmtpServer
) -> None:
    created = (await alice.create(expires_in_days=5)).body
    key_id = created["key"]["id"]
    await service.operator("POST", "accounts/alice/freeze", {"reason": "a secret inquiry"})
    await service.operator("POST", "accounts/alice/thaw", {"reason": "nothing found"})
    await service.operator("POST", f"keys/{key_id}/revoke", {"reason": "Seen on a forum"})
    await alice.delete(key_id)
    await service.operator("POST", "accounts/alice/reset-factors", {"reason": "Lost phone"})
    expected = [
        "factor.added", "key.created", "account.frozen", "account.thawed", "key.revoked", "key.deleted", "factors.reset", "account.frozen",
    ]  # fmt: skip
    events: list[dict[str, Any]] = []
    count = len(expected)
    while len(events) < len(expected):
        events = [event for event in await receiver.until(count) if event["type"] != "key.expiring"]
        count += 1
    assert [event["type"] for event in events] == expected
    assert {event["data"]["account_id"] for event in events} == {"alice"}
    assert events[1]["data"] == {
        "account_id": "alice", "key_id": f"{key_id[:8]}…{key_id[-4:]}", "label": "My bot", "scopes": ["read"],
        "ip_allowlist": ["8.8.8.8"], "expires_in_days": 5, "client_ip": "127.0.0.1", "by": "owner",
    }  # fmt: skip
    assert events[2]["data"] == {"account_id": "alice", "by": "exchange"}, "neither why nor from where"
    assert events[4]["data"]["reason"] == "Seen on a forum"
    mails = await mail_server.box.until(len(expected))
    whole = "".join(mail.get_body(("plain",)).get_content() + mail.get_body(("html",)).get_content() for mail in mails)
    assert key_id not in whole
    assert created["secret"] not in whole
    assert "inquiry" not in whole
    assert "Seen on a forum" in whole


async def test_the_end_of_a_freeze_promises_no_working_keys_while_the_identity_is_not_verified(
    alice: Customer, service: Service, receiver: Receiver, mail_server: SmtpServer
) -> None:
    await service.operator("PUT", "accounts/alice", {"kyc": "revoked"})
    await service.operator("POST", "accounts/alice/freeze", {"reason": "a secret inquiry"})
    await service.operator("POST", "accounts/alice/thaw", {"reason": "nothing found"})
    await service.operator("PUT", "accounts/alice", {"kyc": "verified"})
    await service.operator("POST", "accounts/alice/freeze", {"reason": "a secret inquiry"})
    await service.operator("POST", "accounts/alice/thaw", {"reason": "nothing found"})
    events = await receiver.until(5)
    assert [event["data"] for event in events if event["type"] == "account.thawed"] == [
        {"account_id": "alice", "kyc": "revoked", "by": "exchange"},
        {"account_id": "alice", "by": "exchange"},
    ]
    mails = [mail for mail in await mail_server.box.until(5) if mail["Subject"] == "Akun Anda tidak lagi dibekukan"]
    told = ["belum dapat digunakan" in mail.get_body(("plain",)).get_content() for mail in mails]
    assert told == [True, False]


async def test_a_bulk_act_is_told_to_a_second_person_with_who_did_it(
    alice: Customer, service: Service, receiver: Receiver, mail_server: SmtpServer
) -> None:
    for label in ("one", "two"):
        await alice.create(label=label)
    where = {"account": "alice"}
    assert (await service.operator("POST", "keys/revoke", {"where": where, "dry_run": True})).body["count"] == 2
    await service.operator("POST", "keys/revoke", {"where": where, "expected_count": 2, "reason": "seen on a forum"})
    mails = await mail_server.box.until(6)
    told = [mail for mail in mails if mail["To"] == "security@exchange.example"]
    assert [mail["Subject"] for mail in told] == ["2 API keys were revoked at once by alice"], "once, and not of the dry run"
    assert "account=alice" in told[0].get_body(("plain",)).get_content()
    await receiver.until_told("key.revoked")
    assert "keys.revoked" not in receiver.types, "no owner's webhook"


async def test_a_hanging_receiver_and_mail_server_delay_no_key_operation(
    issuer: Issuer, database: Database, redis_url: str, receiver: Receiver
) -> None:
    connected, over = asyncio.Event(), asyncio.Event()

    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await over.wait()
        writer.close()

    receiver.pause = asyncio.Event()
    async with await asyncio.start_server(hang, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        told: dict[str, Any] = {
            "webhooks": settings_of(receiver) | {"timeout_ms": 600_000},
            "mail": {"smtp": f"smtp://127.0.0.1:{port}", "from": "keys@exchange.example", "timeout_ms": 600_000},
        }
        async with running_service(settings_for(issuer, database.admin_dsn, redis_url, **told), issuer) as service:
            alice = service.customer("alice", email="alice@mail.example")
            await alice.enrol()
            await connected.wait()
            await receiver.until_tried(1)
            # Both hang now, and for longer than any test may last: who waited for them would never get here.
            created = await alice.create()
            deleted = await alice.delete(created.body["key"]["id"])
            assert (created.status, deleted.status) == (201, 204)
            receiver.pause.set()
            await receiver.until_told("key.created", "key.deleted")
            over.set()


def config(folder: Path, issuer: Issuer, database: Database, redis_url: str, receiver: Receiver) -> Path:
    file = folder / "admin.toml"
    file.write_text(f"""
public_url = "http://127.0.0.1:8090"
listen = {{ public = "127.0.0.1:0", internal = "127.0.0.1:0" }}
stores = {{ postgres = "{database.admin_dsn}", redis = "{redis_url}" }}
vault = {{ keys = "{new_entry("test")}" }}
oidc = {{ issuer = "{issuer.url}", audience = "gerbang" }}
internal = {{ token = "{INTERNAL_TOKEN}" }}
webhooks = {{ url = "{receiver.url}", secret = "{SECRET}" }}
""")
    return file


async def test_a_service_killed_while_it_sends_sends_again_under_the_same_id(
    tmp_path: Path, issuer: Issuer, database: Database, redis_url: str, receiver: Receiver
) -> None:
    file = config(tmp_path, issuer, database, redis_url, receiver)
    command = (sys.executable, "-P", "-c", f"import pathlib; from admin.app import run; run(pathlib.Path({str(file)!r}))")
    owner = await asyncpg.connect(database.owner_dsn)
    await add_account(owner, "alice")
    await outbox.add(owner, Notice(topic=Topic.KEY_DELETED, account_id="alice", at_ms=0, detail={"label": "one"}))
    receiver.pause = asyncio.Event()
    for tries in (1, 2):
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
        try:
            await receiver.until_tried(tries)  # it has the notice; the sender has not heard that it has
            if tries == 2:
                receiver.pause.set()
                await receiver.until(1)
        finally:
            process.kill()
            await process.wait()
    await owner.close()
    assert len(set(receiver.tries)) == 1
    assert {event["data"]["label"] for _, event in receiver.events} == {"one"}


async def test_the_longest_life_is_said_before_a_code_is_spent(alice: Customer) -> None:
    wish = {"label": "x", "scopes": ["trade"], "ip_access": "unrestricted", "ip_allowlist": [], "expires_in_days": None}
    refused = await alice.call("POST", "step-up", {"intent": {"action": "create_key", **wish}})
    assert (refused.status, refused.errors) == (422, [("expires_in_days", "too_long")])
    assert (await alice.create(**{**wish, "expires_in_days": 30})).status == 201
