"""Checks of PostgreSQL, database roles, the vault, and Redis."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg

from admin.config import AdminSettings
from admin.stepup import factors as stepup
from admin.stores import NEEDED
from deploy.doctor.findings import SECONDS, Finding, Findings, compare_clocks
from deploy.doctor.proxies import proxy_seen
from deploy.plural import counted
from gateway.config.settings import GatewaySettings
from gateway.errors import StoreUnavailable
from gateway.keys import postgres, redis_client, sql, usage_store
from gateway.keys.migrate import head, is_later
from gateway.keys.vault import SealBroken, Vault

MaybeConnection: TypeAlias = "postgres.Connection | None"
_BATCH = 500
_SAMPLE = 200
_MOST_FACTORS = 50_000


@asynccontextmanager
async def database(settings: GatewaySettings | AdminSettings) -> AsyncIterator[tuple[MaybeConnection, Finding]]:
    about = "stores.postgres"
    try:
        connection = await postgres.connect(settings.stores.postgres.get_secret_value())
    except StoreUnavailable as error:
        yield (
            None,
            Finding("wrong", about, str(error), "check the DSN's host, port, database, user and password, and whether the server runs"),
        )
        return
    try:
        yield connection, Finding("ok", about, "answers")
    finally:
        await connection.close()


async def server(connection: postgres.Connection, settings: GatewaySettings | AdminSettings) -> Findings:
    about = "stores.postgres"
    row = await connection.fetchrow(_WHO)
    if row is None or row["standby"]:
        yield Finding(
            "wrong", about, "the server is a standby: it may still have keys that were deleted", "specify the primary, or all hosts"
        )
        return
    yield Finding("ok", about, f"PostgreSQL {row['version'].split()[0]}, database {row['database']}, role {row['role']}")
    problem = await _schema_problem(connection, settings)
    if problem is not None:
        yield problem
    yield await compare_clocks(about, _time_of_postgres(connection))


async def _schema_problem(connection: postgres.Connection, settings: GatewaySettings | AdminSettings) -> Finding | None:
    """What is wrong with the schema. The services' own roles may not read its number: what they need is tried."""
    try:
        revision = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return _outdated("the database has no schema")
    except asyncpg.InsufficientPrivilegeError:
        try:
            for statement in (NEEDED,) if isinstance(settings, AdminSettings) else (sql.FIND_KEYS, sql.READ_FEED):
                await connection.prepare(statement)
        except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError) as error:
            return _outdated(f"the schema is not up to date ({error.args[0]})")
        return None
    if is_later(revision):
        text = f"the schema is at {revision}, of a later version of Gerbang than this one, which needs {head()}"
        return Finding("note", "stores.postgres", text, "install the later version")
    return None if revision == head() else _outdated(f"the schema is at {revision}")


def _outdated(problem: str) -> Finding:
    return Finding("wrong", "stores.postgres", f"{problem}; this version needs {head()}", "run gerbang migrate")


_WHO = """
    SELECT current_setting('server_version') AS version, current_user AS role, current_database() AS database,
           pg_is_in_recovery() AS standby
"""


async def _time_of_postgres(connection: postgres.Connection) -> int:
    return int(await connection.fetchval("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"))


_MAY = """
    SELECT name, privilege FROM unnest($1::text[]) AS name, unnest($2::text[]) AS privilege
     WHERE to_regclass(name) IS NOT NULL AND (has_table_privilege(name, privilege) OR
           (privilege IN ('SELECT', 'INSERT', 'UPDATE') AND has_any_column_privilege(name, privilege)))
"""


async def _may(connection: postgres.Connection, tables: list[str], privileges: list[str]) -> list[str]:
    return [f"{row['privilege']} {row['name']}" for row in await connection.fetch(_MAY, tables, privileges)]


async def _superuser(connection: postgres.Connection) -> bool:
    return bool(await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"))


async def role_of_gateway(connection: postgres.Connection) -> Findings:
    about = "stores.postgres role"
    if await _superuser(connection):
        yield Finding("wrong", about, "the role is a superuser: a compromised gateway could do anything", "use gerbang_gateway")
        return
    needed = await _may(connection, ["api_keys", "accounts"], ["SELECT"])
    too_much = await _may(connection, ["api_keys", "accounts"], ["INSERT", "UPDATE", "DELETE", "TRUNCATE"])
    too_much += await _may(connection, ["factors", "recovery_codes", "step_up_challenges", "audit_events"], ["SELECT", "INSERT", "UPDATE"])
    if len(needed) < 2:
        yield Finding(
            "wrong", about, "the role may not read the keys", "use gerbang_gateway, or make the role a member of it; run gerbang migrate"
        )
    elif too_much:
        yield Finding("wrong", about, f"the role can do more than read keys: {', '.join(too_much[:4])}", "use gerbang_gateway")
    else:
        yield Finding("ok", about, "can read keys and nothing else")


async def role_of_admin(connection: postgres.Connection) -> Findings:
    about = "stores.postgres role"
    if await _superuser(connection):
        yield Finding("wrong", about, "the role is a superuser: it could rewrite the audit", "use gerbang_admin")
        return
    needed = await _may(connection, ["api_keys", "accounts", "factors", "audit_events"], ["INSERT"])
    too_much = await _may(connection, ["audit_events"], ["UPDATE", "DELETE", "TRUNCATE"])
    if len(needed) < 4:
        yield Finding("wrong", about, "the role lacks what the admin service needs", "use gerbang_admin; run gerbang migrate")
    elif too_much:
        yield Finding("wrong", about, f"the role may change the audit: {', '.join(too_much)}", "use gerbang_admin")
    else:
        yield Finding("ok", about, "has the admin service's privileges, and can only append to the audit log")


async def customers(connection: postgres.Connection, settings: AdminSettings) -> Findings:
    """Check from past logins whether the provider's claims arrive."""
    try:
        row = await connection.fetchrow(_CLAIMED)
    except (asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError):
        return  # another finding says why
    if row is None or not row["seen"]:
        return
    seen = counted(row["seen"], "customer")
    if not row["verified"]:
        text = f"{seen} logged in, none verified by the claim {settings.kyc.claim!r}: no customer can create a key"
        yield Finding("wrong", "kyc.claim", text, "correct kyc.claim and kyc.verified, or add the scope that provides it to oidc.scopes")
    if not row["mail"]:
        text = f"{seen} logged in, none with an e-mail address: notices by mail cannot be delivered"
        yield Finding("note", "oidc.scopes", text, "add the scope that provides email")


_CLAIMED = """
    SELECT count(*) AS seen, count(*) FILTER (WHERE kyc_claim = 'verified') AS verified, count(email) AS mail
      FROM accounts WHERE claims_ms > 0
"""


async def vault(connection: postgres.Connection, settings: GatewaySettings | AdminSettings) -> Findings:
    about, ring = "vault.keys", Vault.parse(settings.vault.keys.get_secret_value())
    broken: list[str] = []
    stored, older, after = 0, 0, ""
    try:
        while rows := await connection.fetch(sql.SEALED_AFTER, after, _BATCH):
            for row in rows:
                stored += 1
                older += not ring.is_current(row["sealed_secret"])
                try:
                    ring.open(row["sealed_secret"], context=row["id"])
                except SealBroken:
                    broken.append(row["id"])
            after = rows[-1]["id"]
    except (asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError):
        yield Finding("wrong", about, "the stored secrets cannot be read to try the ring", "see stores.postgres")
        return
    if broken:
        named = ", ".join(broken[:3])
        text = f"opens {stored - len(broken)} of {stored} stored secrets; not those of {named}{' …' if len(broken) > 3 else ''}"
        yield Finding("wrong", about, text, "append the key that sealed them to the ring, or have those keys deleted")
    else:
        yield Finding("ok", about, f"opens every stored secret ({stored})")
    if older and older > len(broken):
        yield Finding("note", about, f"not yet sealed with the first key: {counted(older, 'secret')}", "run gerbang vault reseal")


async def factors(connection: postgres.Connection, settings: AdminSettings) -> Findings:
    """Check the secrets of second factors, which are sealed with the same ring."""
    about, ring = "vault.keys", Vault.parse(settings.vault.keys.get_secret_value())
    try:
        sealed = await stepup.seals(connection, limit=_MOST_FACTORS)
    except (asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError):
        return  # another finding says why
    broken = 0
    for seal, context in sealed:
        try:
            ring.open(seal, context=context)
        except SealBroken:
            broken += 1
    if broken:
        text = f"opens {len(sealed) - broken} of {len(sealed)} second factors: the others' owners cannot confirm anything"
        yield Finding("wrong", about, text, "append the key that sealed them to the ring")
    elif sealed:
        older = sum(not ring.is_current(seal) for seal, _ in sealed)
        yield Finding("ok", about, f"opens every second factor ({len(sealed)}{f', {older} by an older key' if older else ''})")


async def redis(settings: GatewaySettings | AdminSettings, connection: MaybeConnection) -> Findings:
    about = "stores.redis"
    client = redis_client.connect(settings.stores.redis.get_secret_value())
    try:
        with redis_client.translated():
            async with asyncio.timeout(SECONDS):
                nodes = _nodes(await client.info())
            clock = await compare_clocks(about, _time_of_redis(client))
        for finding in (*(finding for node in nodes for finding in _node(node)), clock):
            yield finding
        if connection is not None:
            async for finding in _proxies_as_seen(settings, connection, client):
                yield finding
    except StoreUnavailable as error:
        yield Finding("wrong", about, str(error), "check the URL, the password, and whether the server runs")
    finally:
        await client.aclose()


def _nodes(info: dict[str, Any]) -> list[dict[str, Any]]:
    """The answers of all nodes; a cluster returns one for each."""
    return [info] if "redis_version" in info else [node for node in info.values() if isinstance(node, dict)]


def _node(info: dict[str, Any]) -> list[Finding]:
    about, policy = "stores.redis", info.get("maxmemory_policy", "unknown")
    found = [Finding("ok", about, f"Redis {info.get('redis_version')}, {info.get('used_memory_human', '?')} in use, {policy}")]
    if policy not in ("noeviction", "unknown"):
        text = f"maxmemory-policy is {policy}: under memory pressure it would evict replay claims, and requests could pass twice"
        found.append(Finding("wrong", about, text, "set maxmemory-policy noeviction"))
    limit, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    if limit and used > limit * 0.8:
        found.append(
            Finding("wrong", about, f"{used * 100 // limit} % of maxmemory is in use", "raise maxmemory: no trade is admitted at 100 %")
        )
    return found


async def _time_of_redis(redis: Any) -> int:
    seconds, microseconds = await redis.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


async def _proxies_as_seen(settings: GatewaySettings | AdminSettings, connection: postgres.Connection, redis: Any) -> Findings:
    """Detect an untrusted proxy: all customers' actions come from one private address."""
    try:
        if isinstance(settings, GatewaySettings):
            rows = await connection.fetch("SELECT id FROM api_keys ORDER BY created_at DESC LIMIT $1", _SAMPLE)
            used = await usage_store.read_last_use(redis, [row["id"] for row in rows])
            seen = Counter(each.client_ip for each in used.values())
        else:
            rows = await connection.fetch(
                "SELECT client_ip FROM audit_events WHERE actor = 'account' AND client_ip IS NOT NULL ORDER BY seq DESC LIMIT $1", _SAMPLE
            )
            seen = Counter(row["client_ip"] for row in rows)
    except (asyncpg.PostgresError, StoreUnavailable):
        return  # another finding says why
    finding = proxy_seen(seen, settings.client_ip.trusted_proxies)
    if finding is not None:
        yield finding
