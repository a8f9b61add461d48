"""The audit: append-only events, each holding the hash of the one before, so that a changed or missing one is found.

One chain for the whole log. Entries join the caller's transaction: no change without its entry, no entry without its change.
No entry ever holds a secret, a code or a token.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import structlog

from gateway.keys.postgres import Connection, translated

GENESIS = bytes(32)
"""What the first event holds in place of a predecessor's hash."""

# Appends of all processes stand in line from here to their commit: a chain has one end. Taken last, after the account's row lock.
_LOCK = 0x6175646974  # "audit"

_log = structlog.get_logger(__name__)


class Event(StrEnum):
    """What can have happened."""

    LOGIN = "login"
    KYC_CHANGED = "kyc_changed"
    TIER_CHANGED = "tier_changed"
    ACCOUNT_FROZEN = "account_frozen"
    ACCOUNT_THAWED = "account_thawed"
    FACTOR_ADDED = "factor_added"
    FACTOR_REMOVED = "factor_removed"
    FACTORS_RESET = "factors_reset"
    RECOVERY_CODES_RENEWED = "recovery_codes_renewed"
    STEP_UP_FAILED = "step_up_failed"
    KEY_CREATED = "key_created"
    KEY_CREATION_REFUSED = "key_creation_refused"
    KEY_DELETED = "key_deleted"
    KEY_REVOKED = "key_revoked"


class Actor(StrEnum):
    """Who did it."""

    ACCOUNT = "account"
    OPERATOR = "operator"
    PROVIDER = "provider"


class Occasion(NamedTuple):
    """When and from where: captured once per request."""

    now_ms: int
    client_ip: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One event before it has its place in the chain."""

    occasion: Occasion
    event: Event
    actor: Actor
    account_id: str
    key_id: str | None = None
    detail: Mapping[str, object] = field(default_factory=dict)
    """JSON values."""


class Recorded(NamedTuple):
    """One event of the log."""

    seq: int
    at_ms: int
    event: str
    actor: str
    account_id: str | None
    key_id: str | None
    client_ip: str | None
    detail: str
    """Canonical JSON."""


class Verdict(NamedTuple):
    """What :func:`verify` found. Keep ``seq`` and ``hash`` elsewhere: a log cut off at its end is a valid, shorter chain."""

    events: int
    seq: int
    hash: bytes
    problems: tuple[str, ...]


async def append(connection: Connection, entry: Entry) -> None:
    """Add an event as the last thing in the caller's transaction.

    :raises StoreUnavailable: PostgreSQL did not answer; the caller's transaction must not be committed then
    """
    with translated():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        last = await connection.fetchrow("SELECT seq, hash FROM audit_events ORDER BY seq DESC LIMIT 1")
        seq, previous = (last["seq"] + 1, last["hash"]) if last is not None else (1, GENESIS)
        at_ms, client_ip = entry.occasion
        detail = _canonical(dict(entry.detail))
        event = Recorded(seq, at_ms, entry.event, entry.actor, entry.account_id, entry.key_id, client_ip, detail)
        digest = chained(previous, event)
        await connection.execute(_INSERT, *event, previous, digest)
    # Who keeps the log lines elsewhere can compare them with the table's end (``verify(expected=…)``).
    _log.info("audit", seq=seq, event_name=entry.event, account_id=entry.account_id, key_id=entry.key_id, chain=digest.hex())


async def list_for_account(connection: Connection, account_id: str, *, limit: int, before_seq: int | None = None) -> list[Recorded]:
    """An account's events, latest first."""
    with translated():
        rows = await connection.fetch(_LIST, account_id, before_seq, limit)
    return [Recorded(*row) for row in rows]


async def verify(connection: Connection, *, expected: tuple[int, bytes] | None = None) -> Verdict:
    """Walk the whole chain.

    :param expected: number and hash of an event, noted earlier, that must still be there
    """
    problems: list[str] = []
    count, last_seq, previous = 0, 0, GENESIS
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        async for row in connection.cursor(_ALL, prefetch=1_000):
            event, stored_previous, stored_hash = Recorded(*row[:8]), row[8], row[9]
            if event.seq != last_seq + 1:
                problems.append(f"event {last_seq + 1}: missing, up to {event.seq - 1}")
            elif stored_previous != previous:
                problems.append(f"event {event.seq}: does not follow from the one before it")
            if chained(stored_previous, event) != stored_hash:
                problems.append(f"event {event.seq}: was changed")
            if expected is not None and event.seq == expected[0] and stored_hash != expected[1]:
                problems.append(f"event {event.seq}: is not the one noted earlier")
            count, last_seq, previous = count + 1, event.seq, stored_hash
    if expected is not None and last_seq < expected[0]:
        problems.append(f"event {expected[0]}: missing, the log ends at {last_seq}")
    return Verdict(count, last_seq, previous, tuple(problems))


def chained(previous: bytes, event: Recorded) -> bytes:
    """SHA-256 over the predecessor's hash and the canonical form of the event."""
    return hashlib.sha256(previous + _canonical(list(event)).encode()).digest()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


_COLUMNS = "seq, at_ms, event, actor, account_id, key_id, client_ip, detail"
_INSERT = f"INSERT INTO audit_events ({_COLUMNS}, previous, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"  # noqa: S608  # constants
_LIST = f"""
    SELECT {_COLUMNS} FROM audit_events WHERE account_id = $1 AND ($2::bigint IS NULL OR seq < $2) ORDER BY seq DESC LIMIT $3
"""  # noqa: S608  # constants
_ALL = f"SELECT {_COLUMNS}, previous, hash FROM audit_events ORDER BY seq"  # noqa: S608  # constants
