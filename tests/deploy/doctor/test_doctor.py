"""What doctor says of a real system, and that each thing spoiled in it is found."""

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis.asyncio as redis

from admin.config import AdminSettings
from admin.stepup import factors
from admin.stepup.factors import Kind
from deploy.doctor import Finding, examine
from gateway.config.settings import GatewaySettings
from gateway.keys.usage import UsageCounts
from gateway.keys.usage_store import UsageWriter
from gateway.keys.vault import Vault, new_entry
from gateway.runtime import clock
from gateway.telemetry import Metrics
from tests.support.certificates import self_signed
from tests.support.issuer import AUDIENCE, Issuer, running_issuer
from tests.support.keys import add_account, add_key
from tests.support.stack import Database, migrate_to, sql
from tests.support.system import GERBANG


async def said(settings: GatewaySettings | AdminSettings) -> list[Finding]:
    return [finding async for finding in examine(settings)]


def wrong(findings: list[Finding]) -> dict[str, str]:
    """What is wrong, by what it is about; each with what to do."""
    assert all(finding.advice for finding in findings if finding.level == "wrong")
    return {finding.about: finding.text for finding in findings if finding.level == "wrong"}


class Scene:
    """A gateway's configuration that is right in everything, until a test changes something."""

    def __init__(self, database: Database, redis_url: str, folder: Path) -> None:
        self.database = database
        self.redis_url = redis_url
        self.vault = new_entry("k1")
        self.folder = folder

    def settings(self, server: str, **sections: Any) -> GatewaySettings:
        raw: dict[str, Any] = {
            "stores": {"postgres": self.database.gateway_dsn, "redis": self.redis_url},
            "vault": {"keys": self.vault},
            "client_ip": {"trusted_proxies": ["192.0.2.10/32"]},
            "assertion": {"keys": str(self.folder / "assertion")},
            "upstreams": {"spot": {"servers": [server], "health": {"path": "/health"}}},
            **sections,
        }
        return GatewaySettings.model_validate(raw)

    async def add_keys(self, count: int) -> list[str]:
        connection = await asyncpg.connect(self.database.owner_dsn)
        keys = [await add_key(connection, Vault.parse(self.vault)) for _ in range(count)]
        await connection.close()
        return [key.key_id for key in keys]


@pytest.fixture
def scene(database: Database, redis_url: str, tmp_path: Path) -> Scene:
    return Scene(database, redis_url, tmp_path)


@pytest.fixture
async def upstream():
    """A server that answers 200 to everything."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readline():
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def test_of_a_gateway_in_order_nothing_is_wrong_and_a_line_stands_for_each_thing(scene: Scene, upstream: str) -> None:
    await scene.add_keys(2)
    found = await said(scene.settings(upstream))
    assert wrong(found) == {}
    about = [finding.about for finding in found]
    for thing in ("stores.postgres", "stores.postgres role", "stores.postgres clock", "vault.keys", "stores.redis", "stores.redis clock",
                  "client_ip.trusted_proxies", "assertion.keys", "upstreams.spot"):  # fmt: skip
        assert thing in about
    assert "opens every stored secret (2)" in [finding.text for finding in found]


async def test_that_content_which_no_proxy_speaks_of_passes_is_noted(scene: Scene, upstream: str) -> None:
    for auth, levels in (({}, []), ({"unseen_content": "ignore"}, ["note"])):
        found = await said(scene.settings(upstream, auth=auth))
        assert [finding.level for finding in found if finding.about == "auth.unseen_content"] == levels


async def test_a_superuser_and_a_role_that_may_do_too_much_are_found(scene: Scene, upstream: str) -> None:
    for dsn, told in ((scene.database.owner_dsn, "is a superuser"), (scene.database.admin_dsn, "can do more than read keys")):
        stores = {"postgres": dsn, "redis": scene.redis_url}
        assert told in wrong(await said(scene.settings(upstream, stores=stores)))["stores.postgres role"]


async def test_a_ring_that_does_not_open_what_is_stored_is_found_with_the_keys(scene: Scene, upstream: str) -> None:
    (key_id,) = await scene.add_keys(1)
    scene.vault = new_entry("k1")
    (other,) = await scene.add_keys(1)
    told = wrong(await said(scene.settings(upstream)))["vault.keys"]
    assert ("opens 1 of 2 stored secrets" in told, key_id in told, other in told) == (True, True, False)


async def test_secrets_under_an_older_key_of_the_ring_are_told(scene: Scene, upstream: str) -> None:
    await scene.add_keys(1)
    scene.vault = f"{new_entry('k2')} {scene.vault}"
    found = await said(scene.settings(upstream))
    assert wrong(found) == {}
    assert ("note", "run gerbang vault reseal") in [(finding.level, finding.advice) for finding in found]


async def test_an_eviction_policy_that_forgets_claims_is_found(scene: Scene, upstream: str) -> None:
    async with redis.Redis.from_url(scene.redis_url) as client:
        await client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            assert "requests could pass twice" in wrong(await said(scene.settings(upstream)))["stores.redis"]
        finally:
            await client.config_set("maxmemory-policy", "noeviction")


async def test_stores_that_are_away_are_found_and_the_rest_is_looked_at_all_the_same(scene: Scene, upstream: str) -> None:
    stores = {"postgres": "postgresql://u:topsecret@127.0.0.1:9/x", "redis": "redis://:topsecret@127.0.0.1:9"}
    found = await said(scene.settings(upstream, stores=stores))
    assert set(wrong(found)) == {"stores.postgres", "stores.redis"}
    assert "upstreams.spot" in [finding.about for finding in found]
    assert "topsecret" not in str(found)


async def test_an_upstream_that_is_away_is_found(scene: Scene) -> None:
    assert "cannot be reached" in wrong(await said(scene.settings("http://127.0.0.1:9")))["upstreams.spot"]


@pytest.mark.parametrize(("days", "level"), [(-1, "wrong"), (3, "wrong"), (20, "note"), (90, "ok")])
async def test_the_end_of_a_certificate_is_told(scene: Scene, upstream: str, days: int, level: str) -> None:
    certificate, key = self_signed(scene.folder, "localhost", days=days)
    listen = {"tls": {"certificate": str(certificate), "key": str(key)}}
    found = {finding.about: finding for finding in await said(scene.settings(upstream, listen=listen))}
    assert found["listen.tls"].level == level


async def test_a_proxy_that_is_not_trusted_shows_in_what_customers_did(scene: Scene, upstream: str) -> None:
    counts = UsageCounts()
    for key_id in await scene.add_keys(6):
        counts.admitted(key_id, "10.1.2.3", clock.now_ms())
    async with redis.Redis.from_url(scene.redis_url) as client:
        await UsageWriter(counts, client, Metrics()).flush(clock.now_ms(), everything=True)
    assert "every customer seen came from 10.1.2.3" in wrong(await said(scene.settings(upstream)))["client_ip.trusted_proxies"]
    trusted = {"trusted_proxies": ["10.1.2.3/32"]}
    assert wrong(await said(scene.settings(upstream, client_ip=trusted))) == {}
    wide = {"trusted_proxies": ["10.0.0.0/8"]}
    assert "is wide" in wrong(await said(scene.settings(upstream, client_ip=wide)))["client_ip.trusted_proxies"]


def admin_settings(issuer: Issuer, postgres: str, redis_url: str, **changes: Any) -> AdminSettings:
    raw = {
        "public_url": "http://127.0.0.1:8090",
        "stores": {"postgres": postgres, "redis": redis_url},
        "vault": {"keys": new_entry("test")},
        "oidc": {"issuer": issuer.url, "audience": AUDIENCE},
        "internal": {"token": "t" * 24},
        **changes,
    }
    return AdminSettings.model_validate(raw)


async def test_of_an_admin_service_role_provider_and_proxy_are_told(database: Database, redis_url: str) -> None:
    async with running_issuer() as issuer:
        issuer.discovery |= {"authorization_endpoint": f"{issuer.url}/authorize", "token_endpoint": f"{issuer.url}/token"}
        assert wrong(await said(admin_settings(issuer, database.admin_dsn, redis_url))) == {}
        found = wrong(await said(admin_settings(issuer, database.owner_dsn, redis_url, public_url="https://keys.exchange.example")))
        assert "could rewrite the audit" in found["stores.postgres role"]
        assert "every customer appears to have its address" in found["client_ip.trusted_proxies"]
        url = issuer.url
    away = admin_settings(issuer, database.admin_dsn, redis_url, oidc={"issuer": url, "audience": AUDIENCE})
    assert "openid-configuration" in wrong(await said(away))["oidc.issuer"]


@pytest.mark.parametrize(
    ("revision", "of_gateway", "of_admin"),
    [
        ("0005", "key_changes", "login_failures"),
        ("0007", "key_changes", "login_failures"),
        ("0010", None, "login_failures"),
    ],
)
async def test_a_schema_that_was_not_migrated_is_found_by_the_services_own_roles(
    scene: Scene, upstream: str, revision: str, of_gateway: str | None, of_admin: str
) -> None:
    await asyncio.to_thread(migrate_to, scene.database, revision)
    async with running_issuer() as issuer:
        admin = admin_settings(issuer, scene.database.admin_dsn, scene.redis_url)
        for settings, lacking in ((scene.settings(upstream), of_gateway), (admin, of_admin)):
            found = [finding for finding in await said(settings) if finding.about == "stores.postgres" and finding.level == "wrong"]
            assert [finding.advice for finding in found] == ["run gerbang migrate"] * (lacking is not None)
            assert all("the schema is not up to date" in finding.text and str(lacking) in finding.text for finding in found)


async def test_the_schema_of_a_later_version_is_not_to_be_migrated(scene: Scene, upstream: str) -> None:
    sql(scene.database.server, "UPDATE alembic_version SET version_num = '9999'", scene.database.name)
    settings = scene.settings(upstream, stores={"postgres": scene.database.owner_dsn, "redis": scene.redis_url})
    found = [finding for finding in await said(settings) if "9999" in finding.text]
    assert [(finding.level, finding.advice) for finding in found] == [("note", "install the later version")]


async def test_second_factors_that_the_ring_does_not_open_are_found(database: Database, redis_url: str) -> None:
    ring = new_entry("test")
    connection = await asyncpg.connect(database.owner_dsn)
    await add_account(connection)
    for kind, sealed_by in ((Kind.PASSKEY, ring), (Kind.TOTP, new_entry("test"))):
        vault, made = Vault.parse(sealed_by), {"proven": True, "created_ms": 1, "confirmed_ms": 1}
        await factors.insert(connection, factors.new_factor("alice", kind, "x", b"content", vault, **made))
    async with running_issuer() as issuer:
        settings = admin_settings(issuer, database.admin_dsn, redis_url, vault={"keys": ring})
        assert "opens 1 of 2 second factors" in wrong(await said(settings))["vault.keys"]
        await connection.execute("DELETE FROM factors WHERE kind = 'totp'")
        found = await said(settings)
    await connection.close()
    assert "vault.keys" not in wrong(found)
    assert "opens every second factor (1)" in [finding.text for finding in found]


def test_the_command_ends_with_status_1_when_anything_is_wrong(scene: Scene) -> None:
    file = scene.folder / "gateway.toml"
    file.write_text(f'[stores]\npostgres = "{scene.database.owner_dsn}"\nredis = "{scene.redis_url}"\n[vault]\nkeys = "{scene.vault}"\n')
    done = subprocess.run([GERBANG, "doctor", "--config", file], capture_output=True, text=True)
    assert (done.returncode, "WRONG  stores.postgres role: the role is a superuser" in done.stdout) == (1, True), done
    assert "→ use gerbang_gateway" in done.stdout
    assert "1 thing is wrong" in done.stderr
