"""The audit log: append-only events, hash-chained so that changed or missing events are detected.

One chain for the whole log. Entries join the caller's transaction: no change without its entry, no entry without its change.
No entry contains a secret, a code or a token. Events that owners are notified of (:data:`_NOTIFIED`) are added to the outbox, too.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Any, NamedTuple

import structlog

from admin import outbox
from admin.outbox import Notice, Topic
from gateway.keys.postgres import Connection, translated
from gateway.runtime.moments import rfc3339

GENESIS = bytes(32)
"""The first event's value for the predecessor's hash."""

# Serializes appends of all processes until their commit. Taken last, after the account's row lock.
_LOCK = 0x6175646974  # "audit"

_log = structlog.get_logger(__name__)


class Event(StrEnum):
    """The kinds of events."""

    LOGIN = "login"
    LOGINS_ENDED = "logins_ended"
    OTHER_LOGINS_ENDED = "other_logins_ended"
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
    KEY_IDLE = "key_idle"


class OfficeEvent(StrEnum):
    """Events that only operators see."""

    KEYS_REVOKED = "keys_revoked"
    """A bulk revocation, without an account; in addition to one ``key_revoked`` for each key."""
    OPERATOR_NOTE = "operator_note"
    """The reason given for a change that had been made before."""


class Actor(StrEnum):
    """Who did it. Operators are logged by the name of their token (:attr:`Provenance.operator`)."""

    ACCOUNT = "account"
    OPERATOR = "operator"
    PROVIDER = "provider"
    SYSTEM = "system"
    """This service itself: an unused key ended, a leaked one revoked."""


class Provenance(NamedTuple):
    """When, from where and, in the back office, by whom: determined once per request."""

    now_ms: int
    client_ip: str | None
    operator: str = Actor.OPERATOR
    """The name of the operator's token; only used for :attr:`Actor.OPERATOR`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One event before it is added to the chain."""

    provenance: Provenance
    event: Event | OfficeEvent
    actor: Actor
    account_id: str | None
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

    def as_json(self) -> dict[str, Any]:
        """The event as the APIs and the stream show it."""
        what = {"id": self.seq, "at": rfc3339(self.at_ms), "event": self.event, "actor": self.actor}
        about = {"account_id": self.account_id, "key_id": self.key_id, "client_ip": self.client_ip}
        return {**what, **about, "detail": json.loads(self.detail)}


class Verdict(NamedTuple):
    """The result of :func:`verify`. Keep ``seq`` and ``hash`` elsewhere, since a truncated log is still a valid chain."""

    events: int
    seq: int
    hash: bytes
    problems: tuple[str, ...]


async def append(connection: Connection, *entries: Entry) -> None:
    """Add events, in this order, as the last thing in the caller's transaction.

    :raises StoreUnavailable: PostgreSQL did not answer; the caller must then not commit its transaction
    """
    with translated():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        last = await connection.fetchrow("SELECT seq, hash FROM audit_events ORDER BY seq DESC LIMIT 1")
        seq, previous = (last["seq"], last["hash"]) if last is not None else (0, GENESIS)
        rows = []
        for seq, entry in enumerate(entries, seq + 1):  # noqa: B020  # continues from the last number
            event = _recorded(seq, entry)
            digest = chained(previous, event)
            rows.append((*event, previous, digest))
            previous = digest
        await connection.executemany(_INSERT, rows)
    # Allows comparing archived log lines with the end of the table (``verify(expected=…)``).
    for entry, row in zip(entries, rows, strict=True):
        event, digest = Recorded(*row[:8]), row[9]
        why = {"reason": entry.detail["reason"]} if "reason" in entry.detail else {}
        common = {"actor": event.actor, "account_id": event.account_id, "key_id": event.key_id, "client_ip": event.client_ip}
        _log.info("audit", seq=event.seq, event_name=event.event, **common, **why, chain=digest.hex())
    notified = [(topic, entry, entry.account_id) for entry in entries if (topic := _topic(entry)) is not None]
    notices = [_notice(topic, entry, owner) for topic, entry, owner in notified if owner is not None]
    notices += [_bulk_revocation_notice(entry) for entry in entries if entry.event is OfficeEvent.KEYS_REVOKED]
    await outbox.add_all(connection, notices)


def note(about: Event, reason: str, provenance: Provenance, *, account_id: str, key_id: str | None = None) -> Entry:
    """An operator's reason for a change that had been made before."""
    return Entry(
        provenance=provenance,
        event=OfficeEvent.OPERATOR_NOTE,
        actor=Actor.OPERATOR,
        account_id=account_id,
        key_id=key_id,
        detail={"about": about, "reason": reason},
    )


def _recorded(seq: int, entry: Entry) -> Recorded:
    actor = entry.provenance.operator if entry.actor is Actor.OPERATOR else entry.actor
    detail = _canonical(dict(entry.detail))
    return Recorded(seq, entry.provenance.now_ms, entry.event, actor, entry.account_id, entry.key_id, entry.provenance.client_ip, detail)


async def list_for_account(connection: Connection, account_id: str, *, limit: int, before_seq: int | None = None) -> list[Recorded]:
    """An account's events for its holder, latest first; without operators' names, addresses and reasons for a freeze."""
    with translated():
        rows = await connection.fetch(_LIST, account_id, before_seq, limit)
    return [_for_holder(Recorded(*row)) for row in rows]


def _for_holder(event: Recorded) -> Recorded:
    if event.actor in (Actor.ACCOUNT, Actor.PROVIDER, Actor.SYSTEM):
        return event
    # The holder must not be warned by the reason for a freeze; the reason for a revocation is shown on the page.
    detail = "{}" if event.event in _REASON_FOR_OPERATORS_ONLY else event.detail
    return event._replace(actor=Actor.OPERATOR, client_ip=None, detail=detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilters:
    """A filter for events; ``None`` matches all. Unix milliseconds, from ``since_ms`` on and before ``until_ms``."""

    account: str | None = None
    key: str | None = None
    event: str | None = None
    actor: str | None = None
    email: str | None = None
    """A part of the account's e-mail address, case-insensitive."""
    ip: IPv4Network | IPv6Network | None = None
    """The network that the client's address is in."""
    since_ms: int | None = None
    until_ms: int | None = None


async def search(
    connection: Connection, wanted: EventFilters, *, limit: int, before_seq: int | None
) -> tuple[list[tuple[Recorded, bytes]], int]:
    """Events with their hashes, latest first, and the total number of matches."""
    values = (wanted.account, wanted.key, wanted.event, wanted.actor, wanted.email, wanted.ip, wanted.since_ms, wanted.until_ms)
    with translated():
        count = await connection.fetchval(_COUNT, *values)
        rows = await connection.fetch(_SEARCH, *values, before_seq, limit)
    return [(Recorded(*row[:8]), row[8]) for row in rows], count


async def since(connection: Connection, seq: int, *, limit: int) -> list[tuple[Recorded, bytes]]:
    """Events from ``seq`` on, oldest first, with their hashes. They are committed, and no lower number can follow."""
    with translated():
        return [(Recorded(*row[:8]), row[8]) for row in await connection.fetch(_SINCE, seq, limit)]


async def verify(connection: Connection, *, expected: tuple[int, bytes] | None = None) -> Verdict:
    """Walk the whole chain.

    :param expected: number and hash of an earlier event that must still be in the log
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


def _topic(entry: Entry) -> Topic | None:
    if entry.event is Event.KYC_CHANGED and entry.detail.get("from") == "verified":
        return Topic.KYC_LOST
    return _NOTIFIED.get(entry.event)


def _notice(topic: Topic, entry: Entry, account_id: str) -> Notice:
    """The members of an entry that the account's holder may see; without an operator's address."""
    members = _NOTIFIED_MEMBERS - ({"reason"} if entry.event in _REASON_FOR_OPERATORS_ONLY else set())
    shown = {name: value for name, value in entry.detail.items() if name in members and value is not None}
    if entry.actor is Actor.ACCOUNT and entry.provenance.client_ip is not None:
        shown["client_ip"] = entry.provenance.client_ip
    return Notice(
        topic=topic,
        account_id=account_id,
        at_ms=entry.provenance.now_ms,
        key_id=entry.key_id,
        detail={**shown, "by": "owner" if entry.actor is Actor.ACCOUNT else "exchange"},
    )


def _bulk_revocation_notice(entry: Entry) -> Notice:
    """The notice of a bulk action to a second person at the exchange."""
    common = {"operator": entry.provenance.operator, "client_ip": entry.provenance.client_ip}
    return Notice(topic=Topic.KEYS_REVOKED, account_id=outbox.NO_ACCOUNT, at_ms=entry.provenance.now_ms, detail={**entry.detail, **common})


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


_REASON_FOR_OPERATORS_ONLY = frozenset({Event.ACCOUNT_FROZEN, Event.ACCOUNT_THAWED})
_NOTIFIED: Mapping[str, Topic] = {
    Event.KEY_CREATED: Topic.KEY_CREATED,
    Event.KEY_DELETED: Topic.KEY_DELETED,
    Event.KEY_REVOKED: Topic.KEY_REVOKED,
    Event.KEY_IDLE: Topic.KEY_IDLE,
    Event.FACTOR_ADDED: Topic.FACTOR_ADDED,
    Event.FACTOR_REMOVED: Topic.FACTOR_REMOVED,
    Event.FACTORS_RESET: Topic.FACTORS_RESET,
    Event.ACCOUNT_FROZEN: Topic.ACCOUNT_FROZEN,
    Event.ACCOUNT_THAWED: Topic.ACCOUNT_THAWED,
}
_NOTIFIED_MEMBERS = frozenset(
    {"label", "scopes", "ip_allowlist", "expires_in_days", "reason", "found_at", "kind", "name", "unused_days", "kyc"}
)

_COLUMNS = "seq, at_ms, event, actor, account_id, key_id, client_ip, detail"
_INSERT = f"INSERT INTO audit_events ({_COLUMNS}, previous, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"  # noqa: S608  # constants
_LIST = f"""
    SELECT {_COLUMNS} FROM audit_events
     WHERE account_id = $1 AND event <> 'operator_note' AND ($2::bigint IS NULL OR seq < $2) ORDER BY seq DESC LIMIT $3
"""  # noqa: S608  # constants
_WHERE = """
    FROM audit_events
   WHERE ($1::text IS NULL OR account_id = $1) AND ($2::text IS NULL OR key_id = $2) AND ($3::text IS NULL OR event = $3)
     AND ($4::text IS NULL OR actor = $4) AND ($6::inet IS NULL OR client_ip::inet <<= $6)
     AND ($5::text IS NULL OR account_id IN (SELECT id FROM accounts WHERE strpos(lower(email), lower($5)) > 0))
     AND ($7::bigint IS NULL OR at_ms >= $7) AND ($8::bigint IS NULL OR at_ms < $8)
"""
_SINCE = f"SELECT {_COLUMNS}, hash FROM audit_events WHERE seq >= $1 ORDER BY seq LIMIT $2"  # noqa: S608  # constants
_COUNT = f"SELECT count(*) {_WHERE}"  # constants
_SEARCH = f"SELECT {_COLUMNS}, hash {_WHERE} AND ($9::bigint IS NULL OR seq < $9) ORDER BY seq DESC LIMIT $10"  # constants
_ALL = f"SELECT {_COLUMNS}, previous, hash FROM audit_events ORDER BY seq"  # noqa: S608  # constants
