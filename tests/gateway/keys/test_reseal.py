"""Rotating the key-encryption key."""

import pytest

from gateway.keys import reseal as module
from gateway.keys import store
from gateway.keys.postgres import connect
from gateway.keys.reseal import Resealed, reseal
from gateway.keys.store import KeyStore
from gateway.keys.vault import Vault, new_entry
from tests.gateway.keys.test_migrate import Notifications
from tests.support.keys import NOW_MS, a_vault, add_key

OLD, NEW = new_entry("old"), new_entry("new")


@pytest.fixture
async def admin(database):
    connection = await connect(database.admin_dsn)
    yield connection
    await connection.close()


async def test_every_secret_opens_with_the_new_key_alone_afterwards(world, admin, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 3)
    records = [await add_key(admin, Vault.parse(OLD)) for _ in range(7)]
    assert await reseal(admin, Vault.parse(f"{NEW} {OLD}")) == Resealed(7, [])
    keys = KeyStore(world.pool, Vault.parse(NEW))
    assert (await keys.find([record.key_id for record in records])).records == {record.key_id: record for record in records}


async def test_a_second_run_finds_nothing_to_do(admin):
    await add_key(admin, Vault.parse(OLD))
    ring = Vault.parse(f"{NEW} {OLD}")
    await reseal(admin, ring)
    before = await admin.fetchval("SELECT sealed_secret FROM api_keys")
    assert await reseal(admin, ring) == Resealed(0, [])
    assert await admin.fetchval("SELECT sealed_secret FROM api_keys") == before


async def test_a_secret_that_does_not_open_is_named_left_and_does_not_stop_the_others(admin):
    broken, whole = await add_key(admin, a_vault()), await add_key(admin, Vault.parse(OLD))
    before = await admin.fetchval("SELECT sealed_secret FROM api_keys WHERE id = $1", broken.key_id)
    assert await reseal(admin, Vault.parse(f"{NEW} {OLD}")) == Resealed(1, [broken.key_id])
    assert await admin.fetchval("SELECT sealed_secret FROM api_keys WHERE id = $1", broken.key_id) == before
    assert whole.key_id != broken.key_id


async def test_a_secret_wiped_meanwhile_stays_wiped(admin):
    await add_key(admin, Vault.parse(OLD))

    class RevokedMeanwhile:
        """The connection, with a revocation between reading a row and writing it."""

        fetch = admin.fetch

        async def execute(self, *arguments):
            await admin.execute("UPDATE api_keys SET revoked_at = now(), revoked_reason = 'x', sealed_secret = NULL")
            return await admin.execute(*arguments)

    assert await reseal(RevokedMeanwhile(), Vault.parse(f"{NEW} {OLD}")) == Resealed(0, [])
    assert await admin.fetchval("SELECT sealed_secret FROM api_keys") is None


async def test_public_keys_and_revoked_keys_have_nothing_to_seal(admin):
    record = await add_key(admin, Vault.parse(OLD))
    await store.revoke(admin, record.key_id, reason="x", now_ms=NOW_MS)
    assert await reseal(admin, Vault.parse(f"{NEW} {OLD}")) == Resealed(0, [])


async def test_gates_are_not_told_of_a_seal(database, admin):
    await add_key(admin, Vault.parse(OLD))
    listening = await connect(database.owner_dsn)
    notifications = Notifications(listening)
    await listening.add_listener("gerbang_keys", notifications.note)
    await reseal(admin, Vault.parse(f"{NEW} {OLD}"))
    assert await notifications.of("SELECT 1") == []
    await listening.close()
