"""Keys in PostgreSQL: written by the admin's role, read by the gateway's."""

import asyncio
from ipaddress import ip_address

import asyncpg
import pytest
from structlog.testing import capture_logs

from gateway.errors import StoreUnavailable
from gateway.keys import postgres, store
from gateway.keys.ids import new_key_id
from gateway.keys.record import Algorithm, Scope
from gateway.keys.store import KeyStore
from tests.support.keys import NOW_MS, a_record, a_vault, add_account, add_key


@pytest.fixture
async def admin(database):
    connection = await postgres.connect(database.admin_dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def pool(database):
    async with await postgres.create_pool(database.gateway_dsn) as pool:
        yield pool


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"scopes": frozenset({Scope.READ}), "expires_ms": NOW_MS + 1, "label": "字" * 64},
        {"ip_allowlist": (ip_address("8.8.8.8"), ip_address("2001:4860:4860::8888"))},
        {"algorithm": Algorithm.ED25519, "secret": None, "public_key": b"der"},
        {"algorithm": Algorithm.RSA_SHA256, "secret": None, "public_key": b"der"},
    ],
    ids=str,
)
async def test_the_gateway_finds_exactly_the_record_that_was_inserted(admin, pool, members):
    vault = a_vault()
    record = await add_key(admin, vault, **members)
    assert (await KeyStore(pool, vault).find([record.key_id])).records == {record.key_id: record}


async def test_an_unknown_id_is_missing(pool):
    assert (await KeyStore(pool, a_vault()).find([new_key_id()])).records == {}


async def test_the_database_holds_no_secret_in_the_clear(admin, pool):
    record = await add_key(admin, a_vault())
    sealed = await pool.fetchval("SELECT sealed_secret FROM api_keys")
    assert record.secret.reveal() not in sealed


async def test_a_deleted_key_is_gone_and_only_its_own_account_can_delete_it(admin, pool):
    vault = a_vault()
    record = await add_key(admin, vault)
    assert not await store.delete(admin, record.key_id, account_id="mallory")
    assert await store.delete(admin, record.key_id, account_id="alice")
    assert not await store.delete(admin, record.key_id, account_id="alice")
    assert (await KeyStore(pool, vault).find([record.key_id])).records == {}
    assert await store.get(admin, record.key_id) is None


async def test_a_revoked_key_is_absent_for_the_gate_and_listed_for_its_owner_without_its_secret(admin, pool):
    vault = a_vault()
    record = await add_key(admin, vault)
    assert await store.revoke(admin, record.key_id, reason="leaked", now_ms=NOW_MS + 5)
    assert not await store.revoke(admin, record.key_id, reason="again", now_ms=NOW_MS + 6)
    assert (await KeyStore(pool, vault).find([record.key_id])).records == {}
    (listed,) = await store.list_for_account(admin, "alice")
    assert (listed.key_id, listed.revoked_ms, listed.revoked_reason) == (record.key_id, NOW_MS + 5, "leaked")
    assert await admin.fetchval("SELECT sealed_secret FROM api_keys") is None


@pytest.mark.parametrize(
    ("frozen", "kyc", "stopped"),
    [(False, "verified", False), (True, "verified", True), (False, "revoked", True), (False, "unverified", True)],
)
async def test_a_key_is_frozen_unless_its_account_is_verified_and_not_frozen(admin, pool, frozen, kyc, stopped):
    vault = a_vault()
    record = await add_key(admin, vault)
    await admin.execute("UPDATE accounts SET frozen = $1, kyc = $2", frozen, kyc)
    found = await KeyStore(pool, vault).find([record.key_id])
    assert found.records[record.key_id].frozen is stopped


async def test_keys_are_listed_oldest_first_and_counted_per_account(admin):
    vault = a_vault()
    second = await add_key(admin, vault, created_ms=NOW_MS + 1)
    first = await add_key(admin, vault, created_ms=NOW_MS)
    await add_key(admin, vault, account_id="bob")
    assert [key.key_id for key in await store.list_for_account(admin, "alice")] == [first.key_id, second.key_id]
    assert await store.count(admin, "alice") == 2
    assert await store.list_for_account(admin, "nobody") == []


async def test_an_insertion_is_undone_with_its_transaction(admin):
    await add_account(admin)
    record = a_record()
    transaction = admin.transaction()
    await transaction.start()
    await store.insert(admin, record, a_vault())
    await transaction.rollback()
    assert await store.get(admin, record.key_id) is None


async def test_a_key_id_is_never_given_twice(admin):
    vault = a_vault()
    record = await add_key(admin, vault)
    with pytest.raises(asyncpg.UniqueViolationError):
        await store.insert(admin, record, vault)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE api_keys SET sealed_secret = 'garbage' WHERE id = $1",
        "UPDATE api_keys SET sealed_secret = (SELECT sealed_secret FROM api_keys WHERE id <> $1) WHERE id = $1",
        "UPDATE api_keys SET ip_allowlist = '{8.8.8.0/24}' WHERE id = $1",
    ],
)
async def test_one_unreadable_row_refuses_that_key_only(database, admin, pool, damage):
    vault = a_vault()
    broken, whole = await add_key(admin, vault), await add_key(admin, vault)
    owner = await postgres.connect(database.owner_dsn)
    await owner.execute(damage, broken.key_id)
    await owner.close()
    with capture_logs() as logs:
        found = await KeyStore(pool, vault).find([broken.key_id, whole.key_id])
    assert found.records == {whole.key_id: whole}
    assert [line["key_id"] for line in logs] == [broken.key_id]
    assert "gbs_" not in str(logs)


async def test_many_keys_are_found_at_once_and_one_that_cannot_be_read_is_missing(admin, pool):
    vault = a_vault()
    records = [await add_key(admin, vault) for _ in range(3)]
    broken, gone = await add_key(admin, a_vault()), new_key_id()
    found = await KeyStore(pool, vault).find([*(record.key_id for record in records), broken.key_id, gone])
    assert found.records == {record.key_id: record for record in records}


async def test_what_is_found_says_by_which_server(pool):
    keys = KeyStore(pool, a_vault())
    assert (await keys.find([new_key_id()])).server == (await keys.find([new_key_id()])).server > 1_600_000_000_000_000


async def test_a_stopped_server_is_unavailable_and_found_again_when_it_is_back(own_postgres):
    vault = a_vault()
    admin = await postgres.connect(own_postgres.admin_dsn)
    record = await add_key(admin, vault)
    await admin.close()
    async with await postgres.create_pool(own_postgres.gateway_dsn) as pool:
        keys = KeyStore(pool, vault)
        assert (await keys.find([record.key_id])).records == {record.key_id: record}
        await asyncio.to_thread(own_postgres.stop)
        with pytest.raises(StoreUnavailable):
            await keys.find([record.key_id])
        await asyncio.to_thread(own_postgres.start)
        assert (await keys.find([record.key_id])).records == {record.key_id: record}


async def test_a_frozen_server_is_unavailable_within_the_bound_and_used_again_when_it_thaws(own_postgres):
    vault = a_vault()
    admin = await postgres.connect(own_postgres.admin_dsn)
    record = await add_key(admin, vault)
    await admin.close()
    async with await postgres.create_pool(own_postgres.gateway_dsn, seconds=60) as pool:
        keys = KeyStore(pool, vault, seconds=0.3)
        assert (await keys.find([record.key_id])).records == {record.key_id: record}
        own_postgres.freeze()
        async with asyncio.timeout(30):  # the bound is the look-up's; asyncpg alone would wait until the server confirms the cancellation
            outcomes = await asyncio.gather(*(keys.find([new_key_id()]) for _ in range(20)), return_exceptions=True)
            assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
            with pytest.raises(StoreUnavailable):
                await keys.find([record.key_id])
        own_postgres.thaw()
        async with asyncio.timeout(10):
            while True:
                try:
                    assert (await keys.find([record.key_id])).records == {record.key_id: record}
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.01)
