"""Operators' searches for keys and accounts: filters, exact counts, pagination.

All given filters must match. Text matches a part of the e-mail address or label, case-insensitively. The
last use is stored in Redis: with ``unused_since_ms`` the search fails if Redis is unavailable.
"""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Generic, NamedTuple, TypeVar

from admin.errors import FieldError, InvalidRequest
from admin.stores import Stores
from gateway.keys import sql, store, usage_store
from gateway.keys.postgres import Connection, translated
from gateway.keys.store import StoredKey

ItemT = TypeVar("ItemT")

CHUNK = 500
"""Keys whose last use or refusals are read from Redis in one round trip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Filters for keys or accounts; times are Unix milliseconds."""

    account: str | None = None
    email: str | None = None
    label: str | None = None
    ip: IPv4Network | IPv6Network | None = None
    """Keys whose IP allowlist has an address in this network."""
    scope: str | None = None
    unrestricted: bool | None = None
    unused_since_ms: int | None = None
    """Keys not admitted since then, or never."""
    since_ms: int | None = None
    until_ms: int | None = None
    """Created from ``since_ms`` on, and before ``until_ms``."""


class Page(NamedTuple):
    """The page size, and the cursor of the previous page."""

    limit: int
    cursor: str | None = None


class FoundKey(NamedTuple):
    key: StoredKey
    suspended: bool


class FoundAccount(NamedTuple):
    """One account, and its number of keys, including revoked and expired ones."""

    id: str
    email: str | None
    kyc: str
    frozen: bool
    tier: str | None
    created_at: datetime
    keys: int


class Found(NamedTuple, Generic[ItemT]):
    """One page of results; ``total`` counts all matches."""

    items: list[ItemT]
    total: int
    cursor: str | None
    """Of the next page; ``None``: there is none."""


async def keys(connection: Connection, stores: Stores, filters: Filters, page: Page) -> Found[FoundKey]:
    """Keys, oldest first.

    :raises StoreUnavailable: PostgreSQL or, if the last use is needed, Redis did not answer
    :raises InvalidRequest: the cursor is invalid
    """
    where = await _where_keys(connection, stores, filters)
    with translated():
        count = await connection.fetchval(f"SELECT count(*) {_KEYS} {where.sql}", *where.values)
        if page.cursor is not None:
            moment, key_id = from_cursor(page.cursor, str, str)
            where = where.also("(k.created_at, k.id) > ({}, {})", _moment(moment), key_id)
        select = f"SELECT {_COLUMNS} {_KEYS} {where.sql} ORDER BY k.created_at, k.id LIMIT"
        rows = await connection.fetch(f"{select} {page.limit + 1:d}", *where.values)
    found = [FoundKey(store.stored(row), row["suspended"]) for row in rows[: page.limit]]
    last = rows[page.limit - 1] if len(rows) > page.limit else None
    return Found(found, count, None if last is None else to_cursor(last["created_at"].isoformat(), last["id"]))


async def key_ids(connection: Connection, stores: Stores, filters: Filters, *, live: bool = False) -> dict[str, str]:
    """All matching keys, by id, with their accounts.

    :param live: omit revoked keys
    """
    where = await _where_keys(connection, stores, filters)
    if live:
        where = where.also("k.revoked_at IS NULL")
    with translated():
        rows = await connection.fetch(f"SELECT k.id, k.account_id {_KEYS} {where.sql} ORDER BY k.account_id, k.id", *where.values)
    return {row["id"]: row["account_id"] for row in rows}


async def accounts(connection: Connection, filters: Filters, page: Page, *, frozen: bool | None, kyc: str | None) -> Found[FoundAccount]:
    """Accounts, by id.

    :raises InvalidRequest: the cursor is invalid
    """
    where = _where(
        ("a.id = {}", filters.account),
        ("strpos(lower(a.email), lower({})) > 0", filters.email),
        ("a.frozen = {}", frozen),
        ("a.kyc = {}", kyc),
        ("a.created_at >= {}", _time(filters.since_ms)),
        ("a.created_at < {}", _time(filters.until_ms)),
    )
    with translated():
        count = await connection.fetchval(f"SELECT count(*) FROM accounts a {where.sql}", *where.values)  # noqa: S608  # constants, numbered parameters
        if page.cursor is not None:
            where = where.also("a.id > {}", *from_cursor(page.cursor, str))
        select = f"SELECT {_ACCOUNT} FROM accounts a {where.sql} ORDER BY a.id LIMIT {page.limit + 1:d}"  # noqa: S608  # the same
        found = [FoundAccount(*row) for row in await connection.fetch(select, *where.values)]
    more = len(found) > page.limit
    return Found(found[: page.limit], count, to_cursor(found[page.limit - 1].id) if more else None)


async def _where_keys(connection: Connection, stores: Stores, filters: Filters) -> "_Where":
    where = _where(
        ("k.account_id = {}", filters.account),
        ("strpos(lower(a.email), lower({})) > 0", filters.email),
        ("strpos(lower(k.label), lower({})) > 0", filters.label),
        ("EXISTS (SELECT FROM unnest(k.ip_allowlist) AS allowed WHERE allowed <<= {})", filters.ip),
        ("{} = ANY (k.scopes)", filters.scope),
        ("(k.ip_allowlist IS NULL) = {}", filters.unrestricted),
        ("k.created_at >= {}", _time(filters.since_ms)),
        ("k.created_at < {}", _time(filters.until_ms)),
        # PostgreSQL has the uses, to the hour, that Redis has lost.
        ("NOT EXISTS (SELECT FROM key_activity u WHERE u.key_id = k.id AND u.last_ms >= {})", filters.unused_since_ms),
    )
    if filters.unused_since_ms is not None:
        with translated():
            rows = await connection.fetch(f"SELECT k.id {_KEYS} {where.sql}", *where.values)
        unused = await _unused(stores, [row["id"] for row in rows], filters.unused_since_ms)
        where = where.also("k.id = ANY ({}::text[])", unused)
    return where


async def _unused(stores: Stores, ids: Sequence[str], since_ms: int) -> list[str]:
    unused: list[str] = []
    for chunk in chunks(ids):
        used = await usage_store.read_last_use(stores.redis, chunk)
        unused += [key_id for key_id in chunk if key_id not in used or used[key_id].at_ms < since_ms]
    return unused


def chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Split ids into chunks of a bounded size."""
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))


class _Where(NamedTuple):
    """An incrementally built WHERE clause: fixed text, numbered parameters."""

    conditions: tuple[str, ...] = ()
    values: tuple[object, ...] = ()

    @property
    def sql(self) -> str:
        return f"WHERE {' AND '.join(self.conditions)}" if self.conditions else ""

    def also(self, condition: str, *values: object) -> "_Where":
        """:param condition: with ``{}`` for each value"""
        numbers = (f"${len(self.values) + position}" for position in range(1, len(values) + 1))
        return _Where((*self.conditions, condition.format(*numbers)), self.values + values)


def _where(*conditions: tuple[str, object]) -> _Where:
    """:param conditions: each with its value; ``None``: it is not set"""
    where = _Where()
    for condition, value in conditions:
        if value is not None:
            where = where.also(condition, value)
    return where


def to_cursor(*values: object) -> str:
    """The end of a page, as an opaque cursor."""
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def from_cursor(text: str, *kinds: type) -> list[Any]:
    """:raises InvalidRequest: not an output of :func:`to_cursor` for values of these types"""
    try:
        values = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or [type(value) for value in values] != list(kinds):
        raise _invalid_cursor()
    if not all(value.isprintable() for value in values if isinstance(value, str)):
        raise _invalid_cursor()
    return values


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise _invalid_cursor()
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _invalid_cursor() from None


def _invalid_cursor() -> InvalidRequest:
    return InvalidRequest([FieldError("cursor", "malformed", "Send the next_cursor of the previous page, unchanged.")])


def _time(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else store.moment(milliseconds)


_COLUMNS = f"{', '.join(f'k.{name}' for name in sql.LISTED)}, (a.frozen OR a.kyc <> 'verified') AS suspended"
_KEYS = "FROM api_keys k JOIN accounts a ON a.id = k.account_id"
_ACCOUNT = "a.id, a.email, a.kyc, a.frozen, a.tier, a.created_at, (SELECT count(*) FROM api_keys k WHERE k.account_id = a.id) AS keys"
