"""Challenges in the store: bound to account, session and intent, each checked again by the statement that uses them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from admin.identity.caller import Caller, Kyc
from admin.stepup import challenges
from admin.stepup.challenges import LIFETIME_MS, Challenge
from admin.stepup.intent import delete_key
from admin.stepup.proof import Wrong
from tests.support.stack import Database

NOW = 1_000_000
INTENT = delete_key("gbk_x")
ALICE = Caller(account_id="alice", email=None, kyc=Kyc.VERIFIED, authenticated_ms=0, issued_ms=0, session_id="first")


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database.admin_dsn)
    await connection.execute("INSERT INTO accounts (id) VALUES ('alice'), ('bob')")
    yield connection
    await connection.close()


async def opened(connection: asyncpg.Connection, caller: Caller = ALICE) -> str:
    return (await challenges.open_challenge(connection, caller, INTENT, NOW)).id


async def test_an_open_challenge_is_read_with_its_own_nonce(connection: asyncpg.Connection) -> None:
    first, second = [await challenges.open_challenge(connection, ALICE, INTENT, NOW) for _ in range(2)]
    assert first.nonce != second.nonce
    assert await challenges.read(connection, ALICE, INTENT, first.id, NOW) == first


@pytest.mark.parametrize(
    ("caller", "intent", "now_ms", "wrong"),
    [
        (replace(ALICE, account_id="bob"), INTENT, NOW, Wrong.CHALLENGE_UNKNOWN),
        (replace(ALICE, session_id="second"), INTENT, NOW, Wrong.CHALLENGE_UNKNOWN),
        (replace(ALICE, session_id=None), INTENT, NOW, Wrong.CHALLENGE_UNKNOWN),
        (ALICE, delete_key("gbk_y"), NOW, Wrong.OTHER_INTENT),
        (ALICE, INTENT, NOW + LIFETIME_MS, Wrong.CHALLENGE_EXPIRED),
    ],
)
async def test_it_is_good_for_one_account_session_intent_and_two_minutes(
    connection: asyncpg.Connection, caller: Caller, intent: object, now_ms: int, wrong: Wrong
) -> None:
    challenge_id = await opened(connection)
    assert await challenges.read(connection, caller, intent, challenge_id, now_ms) is wrong
    assert not await challenges.use(connection, caller, intent, challenge_id, now_ms)
    assert isinstance(await challenges.read(connection, ALICE, INTENT, challenge_id, NOW + LIFETIME_MS - 1), Challenge)


async def test_a_challenge_of_a_token_is_not_one_of_a_session(connection: asyncpg.Connection) -> None:
    challenge_id = await opened(connection, replace(ALICE, session_id=None))
    assert await challenges.read(connection, ALICE, INTENT, challenge_id, NOW) is Wrong.CHALLENGE_UNKNOWN


async def test_of_many_uses_at_once_exactly_one_wins(connection: asyncpg.Connection, database: Database) -> None:
    challenge_id = await opened(connection)
    pool = await asyncpg.create_pool(database.admin_dsn, min_size=5, max_size=5)

    async def use() -> bool:
        async with pool.acquire() as one:
            return await challenges.use(one, ALICE, INTENT, challenge_id, NOW)

    assert sorted(await asyncio.gather(*(use() for _ in range(20)))) == [False] * 19 + [True]
    await pool.close()


async def test_long_expired_challenges_of_the_account_are_removed(connection: asyncpg.Connection) -> None:
    await opened(connection)
    await opened(connection, replace(ALICE, account_id="bob"))
    await challenges.open_challenge(connection, ALICE, INTENT, NOW + 2 * 3_600_000)
    assert await connection.fetchval("SELECT count(*) FROM step_up_challenges WHERE account_id = 'alice'") == 1
    assert await connection.fetchval("SELECT count(*) FROM step_up_challenges WHERE account_id = 'bob'") == 1
