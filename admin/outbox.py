"""The notification outbox in PostgreSQL (transactional outbox): SQL on the caller's connection.

The caller holds the account's row lock (``identity.accounts.lock``) or the audit's lock, so that numbers are in commit order.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from gateway.keys.postgres import AnyConnection, translated

LONGEST_DELAY_MS = 3_600_000
"""The longest delay of a retry. One that is due later than this, and a little, was postponed before the clock was set back: it is due."""
WAKE_CHANNEL = "gerbang_notices"
"""The PostgreSQL notification channel for new notices."""


class Topic(StrEnum):
    """The events that an owner is notified of; the ``type`` of a webhook."""

    KEY_CREATED = "key.created"
    KEY_DELETED = "key.deleted"
    KEY_REVOKED = "key.revoked"
    KEY_FIRST_USED = "key.first_used"
    KEY_REFUSED_NEW_ADDRESS = "key.refused_new_address"
    KEY_EXPIRING = "key.expiring"
    KEY_EXPIRED = "key.expired"
    KEY_IDLE = "key.idle"
    FACTOR_ADDED = "factor.added"
    FACTOR_REMOVED = "factor.removed"
    FACTORS_RESET = "factors.reset"
    ACCOUNT_FROZEN = "account.frozen"
    ACCOUNT_THAWED = "account.thawed"
    LOGIN_NEW_ADDRESS = "login.new_address"
    KYC_LOST = "account.kyc_lost"
    """Sent to upstreams only."""
    KEYS_REVOKED = "keys.revoked"
    """A bulk revocation by an operator: mailed to the addresses in ``[internal] notify``, not to owners."""


ENDS = {
    Topic.KEY_DELETED: "deleted",
    Topic.KEY_REVOKED: "revoked",
    Topic.KEY_EXPIRED: "expired",
    Topic.KEY_IDLE: "idle",
    Topic.ACCOUNT_FROZEN: "account_frozen",
    Topic.KYC_LOST: "kyc_lost",
}
"""The topics that end a key, or all keys of an account, with the cause reported to upstreams."""


class Channel(StrEnum):
    """How a notice is delivered."""

    MAIL = "mail"
    WEBHOOK = "webhook"
    UPSTREAMS = "upstreams"
    """Not addressed yet: the code that writes a notice does not know the upstreams (see :func:`address`)."""


def upstream_channel(name: str) -> str:
    """The channel of one upstream."""
    return f"upstream:{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One notice. ``detail`` contains JSON values, never a secret."""

    topic: Topic
    account_id: str
    at_ms: int
    key_id: str | None = None
    detail: Mapping[str, object] = field(default_factory=dict)
    once: str | None = None
    """A unique name of the event, if it may be detected more than once but must be notified once."""
    mailed: bool = True
    """False: only webhooks are sent, since another mail tells the owner the same."""


class Pending(NamedTuple):
    """A delivery that is due: the notice, its destination, and earlier attempts."""

    seq: int
    id: str
    account_id: str
    topic: Topic
    at_ms: int
    key_id: str | None
    detail: Mapping[str, object]
    email: str | None
    language: str | None
    attempts: int
    first_tried_ms: int | None


async def add(connection: AnyConnection, notice: Notice) -> bool:
    """Add a notice in the caller's transaction. False: it was notified before (``once``).

    :raises StoreUnavailable: PostgreSQL did not answer; the caller must then not commit its transaction
    """
    with translated():
        seq = await connection.fetchval(_ADD, *_arguments(notice))
    return seq is not None


async def add_all(connection: AnyConnection, notices: Sequence[Notice]) -> None:
    """Add several notices, in order, in one round trip."""
    with translated():
        await connection.executemany(_ADD, [_arguments(notice) for notice in notices])


def _arguments(notice: Notice) -> tuple[object, ...]:
    return (
        f"evt_{secrets.token_urlsafe(18)}",
        notice.account_id,
        notice.topic.value,
        notice.at_ms,
        notice.key_id,
        json.dumps(dict(notice.detail), ensure_ascii=False),
        notice.once,
        _channels(notice),
    )


NO_ACCOUNT = ""
"""In place of an account id, for notices to the exchange itself."""


def _channels(notice: Notice) -> list[str]:
    if notice.topic is Topic.KEYS_REVOKED:
        return [Channel.MAIL.value]
    owners = [] if notice.topic is Topic.KYC_LOST else [*([Channel.MAIL.value] if notice.mailed else []), Channel.WEBHOOK.value]
    return owners + ([Channel.UPSTREAMS.value] if notice.topic in ENDS else [])


async def address(connection: AnyConnection, upstreams: Sequence[str]) -> None:
    """Create a delivery to each of these upstreams for every notice that is not addressed yet."""
    with translated():
        if await connection.fetchval(_UNADDRESSED):  # an insert, even of no rows, wakes the sender
            await connection.execute(_ADDRESS, [upstream_channel(name) for name in upstreams])


async def due(connection: AnyConnection, channel: str, *, now_ms: int, limit: int) -> list[Pending]:
    """The oldest due deliveries, a few of each account, except accounts with a delivery that waits for a retry.

    Topics of newer versions of this service are skipped.
    """
    with translated():
        rows = await connection.fetch(_DUE, str(channel), now_ms, limit, _TOPICS)
    return [Pending(**{**row, "topic": Topic(row["topic"]), "detail": json.loads(row["detail"])}) for row in rows]


async def next_due_ms(connection: AnyConnection, channel: str, *, now_ms: int) -> int | None:
    """When the next retry is due."""
    with translated():
        found: int | None = await connection.fetchval(_NEXT_DUE, str(channel), now_ms)
    return found


async def done(connection: AnyConnection, channel: str, seqs: Sequence[int]) -> None:
    """Remove deliveries that have succeeded or finally failed."""
    with translated():
        await connection.execute("DELETE FROM notice_deliveries WHERE channel = $1 AND seq = ANY ($2::bigint[])", str(channel), seqs)


async def postpone(connection: AnyConnection, channel: str, seq: int, *, now_ms: int, due_ms: int) -> None:
    """Record a failed attempt and the time of the next, for which the account's later notices wait."""
    with translated():
        await connection.execute(_POSTPONE, str(channel), seq, now_ms, due_ms)


async def tidy(connection: AnyConnection, *, channels: Sequence[str], undelivered_before_ms: int, before_ms: int) -> None:
    """Delete old notices.

    :param channels: the channels in use; deliveries of others are dropped if older than ``undelivered_before_ms``
    :param before_ms: older notices without deliveries are deleted
    """
    with translated():
        await connection.execute(_TIDY_CHANNELS, [str(channel) for channel in channels], undelivered_before_ms)
        await connection.execute(_TIDY, before_ms)


_ADD = """
    WITH added AS (
        INSERT INTO notices (id, account_id, topic, at_ms, key_id, detail, once) VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (once) DO NOTHING RETURNING seq
    ), deliveries AS (
        INSERT INTO notice_deliveries (seq, channel, account_id) SELECT seq, channel, $2 FROM added, unnest($8::text[]) AS channel
    )
    SELECT seq FROM added
"""
_UNADDRESSED = "SELECT EXISTS (SELECT 1 FROM notice_deliveries WHERE channel = 'upstreams')"
_ADDRESS = """
    WITH taken AS (DELETE FROM notice_deliveries WHERE channel = 'upstreams' RETURNING seq, account_id)
    INSERT INTO notice_deliveries (seq, channel, account_id) SELECT seq, channel, account_id FROM taken, unnest($1::text[]) AS channel
"""
_TOPICS = [topic.value for topic in Topic]
_MAX_SCANNED, _MAX_PER_ACCOUNT = 10_000, 50
_LATEST = LONGEST_DELAY_MS + 300_000
_DUE = f"""
    WITH oldest AS (
        SELECT d.* FROM notice_deliveries d JOIN notices n USING (seq)
         WHERE d.channel = $1 AND n.topic = ANY ($4::text[]) AND NOT EXISTS (
            SELECT 1 FROM notice_deliveries w
             WHERE w.channel = $1 AND w.account_id = d.account_id AND w.due_ms > $2 AND w.due_ms <= $2 + {_LATEST} AND w.attempts > 0)
         ORDER BY d.seq LIMIT {_MAX_SCANNED}
    ), placed AS (SELECT *, row_number() OVER (PARTITION BY account_id ORDER BY seq) AS place FROM oldest)
    SELECT n.seq, n.id, n.account_id, n.topic, n.at_ms, n.key_id, n.detail, a.email, a.language, d.attempts, d.first_tried_ms
      FROM placed d JOIN notices n USING (seq) LEFT JOIN accounts a ON a.id = n.account_id
     WHERE d.place <= {_MAX_PER_ACCOUNT} ORDER BY d.seq LIMIT $3
"""  # noqa: S608  # constants
_NEXT_DUE = f"""
    SELECT min(due_ms) FROM notice_deliveries WHERE channel = $1 AND attempts > 0 AND due_ms > $2 AND due_ms <= $2 + {_LATEST}
"""  # noqa: S608  # constants
_POSTPONE = """
    UPDATE notice_deliveries SET attempts = attempts + 1, first_tried_ms = COALESCE(first_tried_ms, $3), due_ms = $4
     WHERE channel = $1 AND seq = $2
"""
_TIDY_CHANNELS = """
    DELETE FROM notice_deliveries d USING notices n WHERE n.seq = d.seq AND d.channel <> ALL ($1::text[]) AND n.at_ms < $2
"""
_TIDY = "DELETE FROM notices n WHERE at_ms < $1 AND NOT EXISTS (SELECT 1 FROM notice_deliveries d WHERE d.seq = n.seq)"
