"""Cache invalidation: follows the PostgreSQL change feed, which loses nothing, and Redis pub/sub, which is faster.

PostgreSQL's triggers append each change to the feed in its own transaction and notify at the commit. :class:`InvalidationListener` reads
the feed once a second, and immediately when notified, so a lost notification delays a change by a second at most. The admin service
publishes after its commit (:func:`publish`): it removes the record from Redis, then sends a message, which invalidates the key without the
feed and so works while PostgreSQL is unavailable. Each gateway also removes outdated records of the keys that have changed, and again after
Redis was down, because a failover may have restored them.

A message is ``<Unix ms> <key id> <key id> …``. Write access to Redis allows forcing lookups in PostgreSQL, and nothing more.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from gateway.errors import StoreUnavailable
from gateway.keys import postgres, sql
from gateway.keys.ids import is_key_id
from gateway.keys.redis_client import translated
from gateway.keys.shared import forget
from gateway.keys.snapshot import BEGINNING, parse_snapshot
from gateway.keys.trust import EVERY_KEY, FeedRead, Trust
from gateway.runtime.tasks import StallTolerantTimeout, cancel, spawn
from gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from gateway.config.settings import Cache
    from gateway.keys.lookup import KeyLookup

REDIS_CHANNEL = "gerbang:invalidate"
POSTGRES_CHANNEL = "gerbang_keys"

READ_SECONDS = 1.0
"""Longest interval between two reads of the feed (see :meth:`InvalidationListener.fit`)."""
PAUSE_SECONDS = 0.05
"""Shortest interval between two reads, however many changes there are."""
_SILENCE_SECONDS, WHOLE_FEED_SECONDS = 1.0, 5.0
"""How long an answer may take before the channel counts as lost, and a read of everything that the feed retains."""
_PROBE_SECONDS = 1.0
"""Interval between pings on an idle Redis subscription."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5
_MESSAGE_LIMIT = 1_000
"""Maximum number of key ids in one message."""
_NEVER_MS = 1 << 62

_log = structlog.get_logger(__name__)
Subscriber = Callable[[str | None], None]


async def publish(redis: Redis, key_ids: Sequence[str], *, now_ms: int) -> None:
    """Announce to every gateway that these keys changed: created, deleted, revoked, or their account frozen or thawed. After the commit.

    :raises StoreUnavailable: Redis did not accept all of it. The change is committed, and in the feed: log the error and continue.
    """
    try:
        await forget(redis, key_ids)
    finally:  # the messages may be delivered even so
        with translated():
            for start in range(0, len(key_ids), _MESSAGE_LIMIT):
                await redis.publish(REDIS_CHANNEL, " ".join((str(now_ms), *key_ids[start : start + _MESSAGE_LIMIT])))


def parse_message(data: bytes) -> tuple[int, list[str]]:
    """Time and key ids of a message; malformed key ids are skipped, a malformed time is 0."""
    first, *rest = data.decode("ascii", "replace").split(" ", _MESSAGE_LIMIT + 1)
    return int(first) if first.isdigit() and len(first) < 16 else 0, [text for text in rest[:_MESSAGE_LIMIT] if is_key_id(text)]


async def read_feed(
    connection: "postgres.Connection | postgres.Pool", before: FeedRead | None, *, seconds: float = _SILENCE_SECONDS
) -> FeedRead:
    """The changes since the last read, in one statement; from a new server, all that it retains. Too many are omitted, as if pruned.

    :raises StoreUnavailable: PostgreSQL did not answer in time
    """
    since, mark, server = (BEGINNING.text, None, None) if before is None else (before.position.text, before.mark, before.server)
    with postgres.translated():
        async with StallTolerantTimeout(seconds):
            state, *rows = await connection.fetch(sql.READ_FEED, since, mark, server)
    position, is_complete = parse_snapshot(state["position"]), sum(len(row["xids"]) for row in rows) <= sql.MOST_CHANGES
    pages = [zip(row["key_ids"], row["xids"], strict=True) for row in rows if is_complete]
    floor = state["floor"] if is_complete else position.xmax
    return FeedRead(position, state["server"], floor, state["mark"], state["mark_is_there"], pages, is_complete)


class InvalidationListener:
    """Reads the feed and keeps both channels open; calls each of :attr:`on_invalidate` with the id of every key that changed.

    ``None`` stands for every key. Subscribers are plain functions and must not block. If one raises, the error is logged, and all are
    called for every key after the next read of the feed. After a gap in the feed they are called for every key, and once more when no key
    is used in doubt any longer: until then a look-up may find what a key was before the gap.

    :param dsn: the gateway role's DSN, directly to PostgreSQL: behind a pooler that drops LISTEN, changes arrive up to a second late
    """

    def __init__(self, redis: Redis, dsn: str, trust: Trust, memory: "KeyLookup[Any]", *, metrics: Metrics | None = None) -> None:
        self.on_invalidate: list[Subscriber] = []
        self.up = asyncio.Event()
        """Set once the feed has been read and the Redis subscription confirmed for the first time."""
        self._redis = redis
        self._dsn = dsn
        self._trust = trust
        self._memory = memory
        self._metrics = metrics or Metrics()
        self._metrics.listener_up.update(postgres=0, redis=0)
        self._tasks: list[asyncio.Task[None]] = []
        self._read_seconds = READ_SECONDS
        self._has_missed = False
        """Whether subscribers may not have been told of every change: one has raised since the last read, or there was a gap."""
        self._doubt_ends_ms = _NEVER_MS
        """After a gap: when no key is used in doubt any longer."""

    def fit(self, settings: "Cache") -> None:
        """Set the read interval, several reads per ``local_ttl``."""
        self._read_seconds = max(PAUSE_SECONDS, min(READ_SECONDS, settings.local_ttl_ms / 4_000))

    def start(self) -> None:
        """Start listening in the background; a channel that cannot be opened is retried until it can."""
        postgres.check_dsn(self._dsn)
        self._tasks = [
            spawn(self._keep("postgres", self._follow_feed), name="invalidation-postgres"),
            spawn(self._keep("redis", self._follow_messages), name="invalidation-redis"),
        ]

    async def aclose(self) -> None:
        """Stop listening."""
        await cancel(*self._tasks)
        self._tasks = []

    def down(self) -> list[str]:
        """Channels that are down."""
        return [name for name, is_up in self._metrics.listener_up.items() if not is_up]

    async def _keep(self, name: str, hold: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        """Keep one channel open. ``hold`` calls back once the channel is up, and returns or raises when it is lost."""
        pause = _FIRST_PAUSE

        def up() -> None:
            nonlocal pause
            pause = _FIRST_PAUSE
            self._metrics.listener_up[name] = 1
            _log.info("invalidation_channel_up", channel=name)
            if not self.down():
                self.up.set()

        while True:
            reason = "no answer"
            try:
                await hold(up)
            except StoreUnavailable as error:
                reason = str(error)
            except Exception:  # noqa: BLE001  # a defect must not end the listener: revoked keys would be admitted
                _log.exception("invalidation_channel_defect", channel=name)
            finally:
                self._metrics.listener_up[name] = 0
            if pause == _FIRST_PAUSE:  # once for each outage
                _log.warning("invalidation_channel_down", channel=name, reason=reason)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    # -- the feed ------------------------------------------------------------------------------------------------------

    async def _follow_feed(self, up: Callable[[], None]) -> None:
        connection = await postgres.connect(self._dsn, seconds=_SILENCE_SECONDS)
        woken = asyncio.Event()
        connection.add_termination_listener(lambda _: woken.set())
        try:
            with postgres.translated():
                async with StallTolerantTimeout(_SILENCE_SECONDS):
                    await connection.add_listener(POSTGRES_CHANNEL, lambda *_: self._on_notification(woken))
            await self._read(connection, seconds=WHOLE_FEED_SECONDS)  # it may be a different server
            up()
            while not connection.is_closed():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._read_seconds):
                        await woken.wait()
                woken.clear()
                await self._read(connection)
                await asyncio.sleep(PAUSE_SECONDS)
        finally:
            connection.terminate()

    def _on_notification(self, woken: asyncio.Event) -> None:
        self._metrics.invalidations["postgres"] += 1
        woken.set()

    async def _read(self, connection: postgres.Connection, *, seconds: float = _SILENCE_SECONDS) -> None:
        """Read the feed once and apply its changes, each page in a turn of the event loop of its own.

        A new server may lack what was read from the last one: memory goes on once its changes have shown that it does not.
        """
        at, before = self._memory.now(), self._trust.read
        read = await read_feed(connection, before, seconds=seconds)
        self._memory.postgres_answered()
        # In one turn, before any key is read: no outdated record may enter memory in between.
        is_same_server, gap = self._trust.is_current_server(read.server), self._trust.begin_read(read, at)
        ended = None if gap is None and is_same_server else self._memory.invalidate_all(gradually=read.is_complete)
        pages = []
        for page in read.pages:
            pages.append(self._trust.changes.add(page, read))
            for key_id, xid in pages[-1]:
                self._invalidate(key_id, xid)
            await asyncio.sleep(0)
        lost = self._trust.end_read(read)
        gap = gap or lost
        if at.ms >= self._doubt_ends_ms:
            self._has_missed, self._doubt_ends_ms = True, _NEVER_MS
        if ended is not None and gap is not None:
            _log.warning("key_feed_gap", reason=gap)
            self._has_missed, self._doubt_ends_ms = True, ended.until_ms
        elif ended is not None and before is not None:
            ended.resume(before.position)
        if self._has_missed:
            self._has_missed = False
            self._notify(None)
        # Only after all of them are invalid: each command may yield the processor on a busy machine.
        for page in pages if before is not None else ():
            self._memory.remove_outdated(key_id for key_id, _ in page)
            await asyncio.sleep(0)
        self._metrics.feed_reads += 1
        self._metrics.feed_changes += sum(map(len, pages))
        spawn(self._memory.renew(), name="key-renewal")

    def _invalidate(self, key_id: str, xid: int | None = None) -> None:
        self._memory.invalidate(key_id, xid)
        self._notify(None if key_id == EVERY_KEY else key_id)

    # -- messages ------------------------------------------------------------------------------------------------------

    async def _follow_messages(self, up: Callable[[], None]) -> None:
        with translated():
            # In a Cluster the slots are read again only when a command fails, and a subscription is none: without this one it would be
            # asked for again and again at a node that is gone.
            await self._redis.exists(REDIS_CHANNEL)
            subscription = self._redis.pubsub()
            try:
                async with StallTolerantTimeout(_SILENCE_SECONDS):
                    await subscription.subscribe(REDIS_CHANNEL)
                await self._listen(subscription, up)
            finally:
                self._trust.redis_up_ms, self._metrics.listener_up["redis"] = None, 0  # together, before anything is awaited
                with contextlib.suppress(StoreUnavailable), translated():
                    await subscription.aclose()  # type: ignore[no-untyped-call]

    async def _listen(self, subscription: PubSub, up: Callable[[], None]) -> None:
        """Apply messages until a ping is not answered."""
        quiet = False
        while True:
            message = await subscription.get_message(timeout=_SILENCE_SECONDS if quiet else _PROBE_SECONDS)
            if message is None:
                if quiet:
                    return
                await subscription.ping()
            elif message["type"] == "subscribe":
                self._trust.redis_up_ms = self._memory.now().ms
                up()
                self._memory.remove_outdated(self._trust.changes)
            elif message["type"] == "message":
                self._on_message(message["data"])
                await asyncio.sleep(0)  # yield: thousands of keys in one turn of the loop would be too many
            quiet = message is None

    def _on_message(self, data: bytes) -> None:
        published_ms, key_ids = parse_message(data)
        self._metrics.invalidations["redis"] += 1
        now = self._memory.now()
        for key_id in key_ids:
            self._trust.announce(key_id, now.ms)
            self._invalidate(key_id)
        self._memory.remove_outdated(key_ids)
        if key_ids and published_ms:
            self._metrics.revocation_delay["redis"].observe(max(0, now.wall_ms - published_ms) / 1_000)

    def _notify(self, key_id: str | None) -> None:
        for subscriber in self.on_invalidate:
            try:
                subscriber(key_id)
            except Exception:  # noqa: BLE001  # it must not keep the changes behind it from memory
                _log.exception("invalidation_subscriber_defect", key_id=key_id)
                self._has_missed = True
