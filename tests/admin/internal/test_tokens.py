"""Who it was: a token for each person; the audit, the log and the answer to operators name them, the customer sees none of it."""

from collections.abc import AsyncIterator

import pytest

from admin.config import Internal
from tests.support.admin import Service, running_service, settings_for
from tests.support.issuer import Issuer
from tests.support.stack import Database

ALICE, BOB = "a" * 24, "b" * 24


@pytest.fixture
async def service(issuer: Issuer, database: Database, redis_url: str) -> AsyncIterator[Service]:
    internal = {"tokens": {"alice": ALICE, "bob": BOB}}
    async with running_service(settings_for(issuer, database.admin_dsn, redis_url, internal=internal), issuer) as service:
        yield service


async def test_the_audit_names_who_it_was_and_why_to_operators_and_not_to_the_customer(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    customer = service.customer("carol")
    await customer.enrol()
    for token, path, reason in ((ALICE, "freeze", "case 4711"), (BOB, "thaw", "case closed"), (BOB, "thaw", "once more")):
        assert (await service.operator("POST", f"accounts/carol/{path}", {"reason": reason}, token=token)).status == 200
    found = (await service.operator("GET", "audit?account=carol", token=BOB)).body["events"]
    told = [(event["event"], event["actor"], event["detail"].get("reason")) for event in found if event["actor"] != "account"]
    assert told[:3] == [
        ("operator_note", "bob", "once more"),
        ("account_thawed", "bob", "case closed"),
        ("account_frozen", "alice", "case 4711"),
    ]
    lines = [line for line in capsys.readouterr().out.splitlines() if "account_frozen" in line]
    assert "alice" in lines[0]
    assert "case 4711" in lines[0]
    own = await customer.call("GET", "audit")
    assert ("account_frozen", "operator", None, {}) in [
        (event["event"], event["actor"], event["client_ip"], event["detail"]) for event in own.body["events"]
    ]
    assert not [word for word in ("alice", "bob", "4711", "once more") if word in own.text]


async def test_only_a_named_token_opens(service: Service) -> None:
    other = await service.operator("GET", "keys", token="c" * 24)
    assert (other.status, other.body["detail"]) == (401, "The service token is not valid.")
    assert (await service.operator("GET", "keys", token=BOB)).status == 200


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "give a token"),
        ({"token": ALICE, "tokens": {"operator": BOB}}, "give only one"),
        ({"tokens": {"alice": ALICE, "bob": ALICE}}, "two names share one token"),
        *(({"tokens": {name: ALICE}}, "another actor") for name in ("account", "provider", "system")),
        ({"tokens": {"a b": ALICE}}, "pattern"),
        ({"tokens": {"alice": "short"}}, "at least 24"),
    ],
)
def test_tokens_that_would_not_tell_people_apart_are_refused(given: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Internal.model_validate(given)


def test_the_one_token_is_named_operator() -> None:
    assert list(Internal.model_validate({"token": ALICE, "tokens": {"bob": BOB}}).named) == ["operator", "bob"]
