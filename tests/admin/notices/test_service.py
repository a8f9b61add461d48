"""The running service tells: what its API changes arrives by webhook and by mail, and waits for neither."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.admin import Customer, Service, running_service, settings_for
from tests.support.issuer import Issuer
from tests.support.notices import Receiver, SmtpServer, settings_of
from tests.support.stack import Database


@pytest.fixture
async def service(
    issuer: Issuer, database: Database, redis_url: str, receiver: Receiver, mail_server: SmtpServer
) -> AsyncIterator[Service]:
    told: dict[str, Any] = {
        "webhooks": settings_of(receiver),
        "mail": {"smtp": mail_server.url, "from": "Exchange <keys@exchange.example>"},
        "keys": {"unrestricted_trade_days": 30},
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
    await receiver.until_told(*expected)
    events = [event for event in await receiver.until(len(expected)) if event["type"] != "key.expiring"]
    assert [event["type"] for event in events][: len(expected)] == expected
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


async def test_a_hanging_receiver_and_mail_server_delay_no_key_operation(
    alice: Customer, receiver: Receiver, mail_server: SmtpServer
) -> None:

    receiver.pause, mail_server.box.answer = asyncio.Event(), "451 later"
    created = await alice.create()
    deleted = await alice.delete(created.body["key"]["id"])
    assert (created.status, deleted.status) == (201, 204)
    receiver.pause.set()
    mail_server.box.answer = None
    await receiver.until_told("key.created", "key.deleted")
    subjects = [mail["Subject"] for mail in await mail_server.box.until(3)]
    assert subjects == ["Metode 2FA telah ditambahkan", "API Key baru telah dibuat", "API Key telah dihapus"]


async def test_the_longest_life_is_said_before_a_code_is_spent(alice: Customer) -> None:
    wish = {"label": "x", "scopes": ["trade"], "ip_access": "unrestricted", "ip_allowlist": [], "expires_in_days": None}
    refused = await alice.call("POST", "step-up", {"intent": {"action": "create_key", **wish}})
    assert (refused.status, refused.errors) == (422, [("expires_in_days", "too_long")])
    assert (await alice.create(**{**wish, "expires_in_days": 30})).status == 201
