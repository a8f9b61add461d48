"""Cache invalidation: follows the PostgreSQL change feed, which loses nothing, and Redis pub/sub, which is faster.

PostgreSQL's triggers append each change to the feed in its own transaction and notify at the commit. :class:`InvalidationListener` reads
the feed once a second, and immediately when notified, so a lost notification delays a change by a second at most. The admin service
publishes after its commit (:func:`publish`): it removes the record from Redis, then sends a message, which invalidates the key without the
feed and so works while PostgreSQL is unavailable.

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
from gateway.keys.cache import NEVER_MS
from gateway.keys.ids import is_key_id
from gateway.keys.redis_client import translated
from gateway.keys.shared import forget
from gateway.keys.snapshot import BEGINNING, parse_snapshot
from gateway.keys.trust import EVERY_KEY, FeedRead, Now, Trust
from gateway.runtime.tasks import StallTolerantTimeout, cancel, spawn, wait_at_most
from gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from gateway.keys.lookup import KeyLookup

REDIS_CHANNEL = "gerbang:invalidate"
POSTGRES_CHANNEL = "gerbang_keys"

READ_MS = 1_000
"""Longest interval between two reads of the feed; shorter if there would not be several of them in each ``local_ttl``."""
PAUSE_MS = 50
"""Shortest interval between two reads, however many changes there are."""
_SILENCE_SECONDS, WHOLE_FEED_SECONDS = 1.0, 5.0
"""How long an answer may take before the channel counts as lost, and a read of everything that the feed retains."""
_PROBE_SECONDS = 1.0
"""Interval between pings on an idle Redis subscription."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5
_MESSAGE_LIMIT = 1_000
"""Maximum number of key ids in one message."""

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
    connection: "postgres.Connection | postgres.Pool", before: FeedRead | None, at: Now, *, seconds: float = _SILENCE_SECONDS
) -> FeedRead:
    """The changes since the last read, or all that the feed retains (see ``Trust.expect``). Too many are omitted, as if pruned.

    :raises StoreUnavailable: PostgreSQL did not answer in time
    """
    since, server = (BEGINNING.text, None) if before is None else (before.position.text, before.server)
    with postgres.translated():
        async with StallTolerantTimeout(seconds):
            state, *rows = await connection.fetch(sql.READ_FEED, since, server)
    position, floor = parse_snapshot(state["position"]), state["floor"]
    if sum(len(row["xids"]) for row in rows) > sql.MOST_CHANGES:
        return FeedRead(at, position, state["server"], position.xmax, None)
    return FeedRead(at, position, state["server"], floor, [zip(row["key_ids"], row["xids"], strict=True) for row in rows])


class InvalidationListener:
    """Reads the feed and keeps both channels open; calls each of :attr:`on_invalidate` with the id of every key that changed.

    ``None`` stands for every key. Subscribers are plain functions and must not block. If one raises, the error is logged, and all are
    called for every key after the next read of the feed. After the first read and after a gap they are called for every key, and once
    more when no key is used in doubt any longer: until then a look-up may find what a key was before the gap.

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
        self._tell_all_ms = 0
        """From when on a read tells subscribers of every key: none was read, one has raised, or keys have been used in doubt until then."""

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
                await wait_at_most(woken, max(PAUSE_MS, min(READ_MS, self._memory.settings.local_ttl_ms // 4)))
                woken.clear()
                await self._read(connection)
                await asyncio.sleep(PAUSE_MS / 1_000)
        finally:
            connection.terminate()

    def _on_notification(self, woken: asyncio.Event) -> None:
        self._metrics.invalidations["postgres"] += 1
        woken.set()

    async def _read(self, connection: postgres.Connection, *, seconds: float = _SILENCE_SECONDS) -> None:
        """Read the feed once and apply its changes, each page in a turn of the event loop of its own.

        Until then, memory and Redis are judged by the read before. Should a defect interrupt it, no change is known that memory lacks.
        """
        trust, memory = self._trust, self._memory
        read = await read_feed(connection, trust.read, memory.now(), seconds=seconds)
        memory.postgres.answered()  # a server that has started is asked at once for the keys that its changes invalidate
        gap = trust.expect(read)
        if gap is not None:
            _log.warning("key_feed_gap", reason=gap)
        if gap is not None or trust.read is None:
            memory.invalidate_all(gap_ms=None if read.pages is None else read.at.ms)
        for page in read.pages or ():
            for key_id in trust.changes.add(page):
                self._invalidate(key_id)
                self._metrics.feed_changes += 1
            await asyncio.sleep(0)
        trust.accept(read)
        if gap is not None or read.at.ms >= self._tell_all_ms:
            doubt_ends_ms = memory.cache.doubt_ends_ms
            self._tell_all_ms = doubt_ends_ms if read.at.ms < doubt_ends_ms else NEVER_MS
            self._notify(None)
        self._metrics.feed_reads += 1
        spawn(memory.renew(), name="key-renewal")

    def _invalidate(self, key_id: str) -> None:
        self._memory.invalidate(key_id)
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
        if key_ids and published_ms:
            self._metrics.revocation_delay["redis"].observe(max(0, now.wall_ms - published_ms) / 1_000)

    def _notify(self, key_id: str | None) -> None:
        for subscriber in self.on_invalidate:
            try:
                subscriber(key_id)
            except Exception:  # noqa: BLE001  # it must not keep the changes behind it from memory
                _log.exception("invalidation_subscriber_defect", key_id=key_id)
                self._tell_all_ms = 0
