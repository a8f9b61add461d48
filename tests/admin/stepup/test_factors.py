"""Factors in the store: sealed for their own id, sealed anew with a new ring, never shown."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from admin.stepup import factors
from admin.stepup.factors import Factor, Kind
from gateway.keys.reseal import Resealed
from gateway.keys.vault import SealBroken, Vault, new_entry
from tests.support.stack import Database

OLD, NEW = new_entry("old"), new_entry("new")
CONTENT = b"twenty bytes of TOTP"


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database.admin_dsn)
    await connection.execute("INSERT INTO accounts (id) VALUES ('alice')")
    yield connection
    await connection.close()


async def added(connection: asyncpg.Connection, vault: Vault) -> Factor:
    factor = factors.new_factor("alice", Kind.TOTP, "Phone", CONTENT, vault, proven=True, created_ms=1, confirmed_ms=1)
    await factors.insert(connection, factor)
    return factor


async def test_a_factor_comes_back_and_opens(connection: asyncpg.Connection) -> None:
    vault = Vault.parse(OLD)
    factor = await added(connection, vault)
    (read,) = await factors.confirmed(connection, "alice")
    assert read == factor
    assert read.open(vault) == CONTENT


async def test_a_seal_moved_to_another_factor_does_not_open(connection: asyncpg.Connection, database: Database) -> None:
    vault = Vault.parse(OLD)
    first, second = await added(connection, vault), await added(connection, vault)
    owner = await asyncpg.connect(database.owner_dsn)
    await owner.execute("UPDATE factors SET sealed = $2 WHERE id = $1", first.id, second.sealed)
    await owner.close()
    moved = next(factor for factor in await factors.confirmed(connection, "alice") if factor.id == first.id)
    with pytest.raises(SealBroken):
        moved.open(vault)


async def test_its_seal_is_not_shown(connection: asyncpg.Connection) -> None:
    assert "sealed" not in repr(await added(connection, Vault.parse(OLD)))


async def test_a_new_ring_seals_every_factor_anew_once(connection: asyncpg.Connection) -> None:
    for _ in range(3):
        await added(connection, Vault.parse(OLD))
    ring = Vault.parse(f"{NEW} {OLD}")
    assert await factors.reseal(connection, ring, batch=2) == Resealed(3, [])
    assert await factors.reseal(connection, ring, batch=2) == Resealed(0, [])
    assert [factor.open(Vault.parse(NEW)) for factor in await factors.confirmed(connection, "alice")] == [CONTENT] * 3


async def test_a_factor_that_no_key_opens_is_named_and_keeps_no_other_from_the_new_ring(connection: asyncpg.Connection) -> None:
    of_each_ring = [await added(connection, Vault.parse(ring)) for ring in (new_entry("lost"), OLD, new_entry("lost"), OLD, NEW)]
    lost = sorted((of_each_ring[0].id, of_each_ring[2].id))
    ring = Vault.parse(f"{NEW} {OLD}")
    assert await factors.reseal(connection, ring, batch=2) == Resealed(2, lost)
    assert await factors.reseal(connection, ring, batch=2) == Resealed(0, lost)
    rest = [factor for factor in await factors.confirmed(connection, "alice") if factor.id not in lost]
    assert [factor.open(Vault.parse(NEW)) for factor in rest] == [CONTENT] * 3


async def test_a_counter_only_grows(connection: asyncpg.Connection) -> None:
    factor = await added(connection, Vault.parse(OLD))
    assert await factors.advance(connection, factor.id, counter=5, now_ms=1)
    assert not await factors.advance(connection, factor.id, counter=5, now_ms=2)
    assert not await factors.advance(connection, factor.id, counter=4, now_ms=3)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE factors SET account_id = 'mallory'",
        "UPDATE factors SET proven = true",
        "UPDATE step_up_challenges SET expires_ms = 9e15",
        "UPDATE step_up_challenges SET intent_digest = ''",
        "UPDATE recovery_codes SET digest = ''",
        "UPDATE api_keys SET scopes = '{trade}'",
    ],
)
async def test_the_services_role_cannot_rewrite_what_is_fixed(connection: asyncpg.Connection, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(statement)
