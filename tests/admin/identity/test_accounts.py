"""Accounts: of the provider's claims and the back office's word the stricter one wins, and older claims undo nothing."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from admin.audit import Provenance
from admin.errors import NotFound, Unauthenticated
from admin.identity import accounts
from admin.identity.accounts import Account, Accounts
from admin.identity.caller import Caller, Kyc
from admin.stores import Stores
from gateway.keys import postgres, redis_client
from tests.support.stack import Database

PROVENANCE = Provenance(1_000_000, "8.8.8.8")
V, U, R = Kyc.VERIFIED, Kyc.UNVERIFIED, Kyc.REVOKED


@pytest.fixture
async def stores(database: Database, redis_url: str) -> AsyncIterator[Stores]:
    pool, redis = await postgres.create_pool(database.admin_dsn), redis_client.connect(redis_url)
    yield Stores(pool, redis)
    await pool.close()
    await redis.aclose()


def claims(kyc: Kyc, issued: int, email: str | None = "a@example.com") -> Caller:
    return Caller(account_id="alice", email=email, kyc=kyc, authenticated_ms=issued, issued_ms=issued)


async def stored(stores: Stores) -> Account:
    return (await Accounts(stores).get("alice"))[0]


@pytest.mark.parametrize(
    ("steps", "kept", "told"),
    [
        ([(V, 1)], V, V),
        ([(U, 1)], U, U),
        ([(U, 1), (V, 2)], V, V),
        ([(V, 1), (U, 2)], U, U),
        ([(V, 2), (U, 1)], V, U),  # an older token speaks for itself alone
        ([(U, 2), (V, 1)], U, U),  # and undoes nothing
        ([(V, 1), (U, 1)], U, U),
        ([(U, 1), (V, 1)], U, U),
        ([(V, 1), R], R, None),
        ([(V, 1), R, (V, 2)], R, R),
        ([(V, 1), R, V], V, None),
        ([(V, 1), R, (U, 2), V], U, None),
        ([(U, 1), V], U, None),
        ([R, (V, 1), V], V, None),
        ([V], U, None),
    ],
)
async def test_the_stricter_word_wins(stores: Stores, steps: list[Any], kept: Kyc, told: Kyc | None) -> None:
    answer = None
    for step in steps:
        if isinstance(step, Kyc):
            await Accounts(stores).set_kyc("alice", step, PROVENANCE)
            answer = None
        else:
            answer = (await Accounts(stores).for_caller(claims(*step), PROVENANCE)).kyc
    assert ((await stored(stores)).kyc, answer) == (kept, told)


async def test_a_newer_email_replaces_an_older_one_and_not_the_other_way_and_none_replaces_none(stores: Stores) -> None:
    for issued, email in ((1, "old@example.com"), (3, "new@example.com"), (2, "middle@example.com"), (4, None)):
        await Accounts(stores).for_caller(claims(V, issued, email), PROVENANCE)
    assert (await stored(stores)).email == "new@example.com"


async def test_a_login_counts_only_when_it_is_of_a_later_second_than_the_end_of_logins(stores: Stores) -> None:
    await Accounts(stores).for_caller(claims(V, 5_000), PROVENANCE)
    async with stores.transaction() as connection:
        await accounts.end_logins(connection, "alice", 7_400, forget_failures=True)
    for issued in (5_000, 7_000):
        with pytest.raises(Unauthenticated, match="login has been ended"):
            await Accounts(stores).for_caller(claims(U, issued, "older@example.com"), PROVENANCE)
    assert (await stored(stores)).email == "a@example.com", "a login that is over says nothing any more"
    assert (await Accounts(stores).for_caller(claims(V, 8_000), PROVENANCE)).kyc is V


async def test_an_unknown_account_is_not_found(stores: Stores) -> None:
    with pytest.raises(NotFound):
        await Accounts(stores).get("nobody")
    async with stores.transaction() as connection:
        with pytest.raises(NotFound):
            await accounts.lock(connection, "nobody")
