"""gerbang vault and gerbang migrate on a real database: a rotation of the key-encryption key, from the new key to the old one's end."""

import asyncio

import asyncpg
import pytest
from click.testing import CliRunner

from admin.stepup import factors
from admin.stepup.factors import Kind
from deploy.cli import main
from gateway.keys import store
from gateway.keys.ids import new_key_id, new_secret
from gateway.keys.record import Algorithm, KeyRecord, Scope
from gateway.keys.vault import SealBroken, Vault, new_entry


def run(*arguments):
    return CliRunner().invoke(main, [str(each) for each in arguments])


def record(key_id):
    return KeyRecord(
        key_id=key_id,
        account_id="budi",
        label="A key",
        scopes=frozenset({Scope.READ}),
        algorithm=Algorithm.HMAC_SHA256,
        secret=new_secret(),
        public_key=None,
        ip_allowlist=None,
        created_ms=1_800_000_000_000,
        expires_ms=None,
        frozen=False,
    )


async def stored(database, vault, key):
    connection = await asyncpg.connect(database.admin_dsn)
    await connection.execute("INSERT INTO accounts (id, kyc) VALUES ('budi', 'verified')")
    await store.insert(connection, key, vault)
    await connection.close()


async def sealed(database, key_id):
    connection = await asyncpg.connect(database.admin_dsn)
    try:
        return await connection.fetchval("SELECT sealed_secret FROM api_keys WHERE id = $1", key_id)
    finally:
        await connection.close()


@pytest.fixture
def in_thread():
    """Runs a command, which has an event loop of its own, away from the test's."""
    return lambda *arguments: asyncio.to_thread(run, *arguments)


async def test_after_resealing_the_old_key_can_be_taken_out(database, tmp_path, in_thread):
    old, new = new_entry("old"), new_entry("new")
    key = record(new_key_id())
    await stored(database, Vault.parse(old), key)
    ring = tmp_path / "ring"
    ring.write_text(f"{new}\n{old}\n")
    done = await in_thread("vault", "reseal", "--dsn", database.admin_dsn, "--keys", f"file:{ring}")
    assert (done.exit_code, done.output) == (0, "re-encrypted: 1 key secret, 0 second factors\n")
    assert Vault.parse(new).open(await sealed(database, key.key_id), context=key.key_id) == key.secret.reveal()
    again = await in_thread("vault", "reseal", "--dsn", database.admin_dsn, "--keys", f"file:{ring}")
    assert again.output == "re-encrypted: 0 key secrets, 0 second factors\n"


async def test_a_secret_that_no_key_opens_is_named_and_left(database, in_thread):
    lost, new = new_entry("lost"), new_entry("new")
    key = record(new_key_id())
    await stored(database, Vault.parse(lost), key)
    done = await in_thread("vault", "reseal", "--dsn", database.admin_dsn, "--keys", new)
    assert done.exit_code == 1
    assert key.key_id in done.stderr
    with pytest.raises(SealBroken):
        Vault.parse(new).open(await sealed(database, key.key_id), context=key.key_id)


async def test_a_second_factor_that_no_key_opens_is_named_after_all_others_were_sealed_anew(database, in_thread):
    lost, old, new = new_entry("lost"), new_entry("old"), new_entry("new")
    key = record(new_key_id())
    await stored(database, Vault.parse(lost), key)
    connection = await asyncpg.connect(database.admin_dsn)
    made = [
        factors.new_factor("budi", Kind.TOTP, "Phone", b"a TOTP secret", Vault.parse(ring), proven=True, created_ms=1, confirmed_ms=1)
        for ring in (old, lost)
    ]
    for factor in sorted(made, key=lambda each: each.id):
        await factors.insert(connection, factor)
    await connection.close()
    done = await in_thread("vault", "reseal", "--dsn", database.admin_dsn, "--keys", f"{new} {old}")
    assert (done.exit_code, done.stdout) == (1, "re-encrypted: 0 key secrets, 1 second factor\n")
    said = f"no key of the ring opens the secrets of: {key.key_id}, {made[1].id}; these were left unchanged"
    assert said in done.stderr


async def test_migrating_twice_changes_nothing(database, in_thread):
    for _ in range(2):
        done = await in_thread("migrate", "--dsn", database.owner_dsn)
        assert done.exit_code == 0
        assert done.output.startswith("schema is at ")


async def test_an_audit_trail_is_verified_and_a_wrong_expectation_is_told(database, in_thread):
    done = await in_thread("audit", "verify", "--dsn", database.admin_dsn)
    assert (done.exit_code, done.output.splitlines()[0]) == (0, "0 events, intact")
    done = await in_thread("audit", "verify", "--dsn", database.admin_dsn, "--expect", f"5:{'0' * 64}")
    assert done.exit_code == 1
    assert "missing" in done.stderr
    assert (await in_thread("audit", "verify", "--dsn", database.admin_dsn, "--expect", "five")).exit_code == 2


@pytest.mark.parametrize("arguments", [("audit", "verify"), ("vault", "reseal", "--keys", new_entry("a"))], ids=["audit", "vault"])
async def test_a_role_that_may_not_is_told_in_one_line(database, in_thread, arguments):
    done = await in_thread(*arguments, "--dsn", database.gateway_dsn)
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert "permission denied" in done.stderr
    assert isinstance(done.exception, SystemExit)
