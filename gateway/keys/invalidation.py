"""Cache invalidation: follows the PostgreSQL change feed, which loses nothing, and Redis pub/sub, which is faster.

PostgreSQL's triggers append each change to the feed in its own transaction and notify at the commit. :class:`InvalidationListener` reads
the feed once a second, and immediately when notified, so a lost notification delays a change by a second at most. The admin service
publishes after its commit (:func:`publish`): it removes the record from Redis, then sends a message, which invalidates the key without the
feed and so works while PostgreSQL is unavailable. Each gateway also removes the record of a key that changed, and again after Redis was
down, because a failover may have restored it.

A message is ``<Unix ms> <key id> <key id> …``. Write access to Redis allows forcing lookups in PostgreSQL, and nothing more.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from gateway.errors import StoreUnavailable
from gateway.keys import postgres, redis_client, sql
from gateway.keys.ids import is_key_id
from gateway.keys.redis_client import translated
from gateway.keys.shared import forget
from gateway.keys.snapshot import BEGINNING, Snapshot, parse_snapshot
from gateway.keys.trust import EVERY_KEY, Change, FeedRead, Now, Trust
from gateway.runtime import clock
from gateway.runtime.tasks import StallTolerantTimeout, cancel, spawn
from gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from gateway.config.settings import Cache

REDIS_CHANNEL = "gerbang:invalidate"
POSTGRES_CHANNEL = "gerbang_keys"

READ_SECONDS = 1.0
"""Longest interval between two reads of the feed (see :meth:`InvalidationListener.fit`)."""
PAUSE_SECONDS = 0.05
"""Shortest interval between two reads, however many changes there are."""
_SILENCE_SECONDS, _WHOLE_FEED_SECONDS = 1.0, 5.0
"""How long an answer may take before the channel counts as lost, and a read of everything that the feed retains."""
_PROBE_SECONDS = 1.0
"""Interval between pings on an idle Redis subscription."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5
_MESSAGE_LIMIT = 1_000
"""Maximum number of key ids in one message."""

_log = structlog.get_logger(__name__)
Subscriber = Callable[[str | None], None]


class InvalidationTarget(Protocol):
    """The cache to invalidate: :class:`lookup.KeyLookup`."""

    def invalidate(self, key_id: str, xid: int | None = None) -> bool: ...
    def invalidate_all(self, *, gradually: bool) -> None: ...
    def server_changed(self, position: Snapshot) -> None: ...
    def forget(self, key_ids: Sequence[str]) -> None: ...
    async def purge(self) -> bool: ...
    async def renew(self) -> None: ...


async def publish(redis: Redis, key_ids: Sequence[str], *, now_ms: int) -> None:
    """Announce to every gateway that these keys changed: created, deleted, revoked, or their account frozen or thawed. After the commit.

    :raises StoreUnavailable: Redis did not accept all of it. The change is committed, and in the feed: log the error and continue.
    """
    failure: StoreUnavailable | None = None
    try:
        await forget(redis, key_ids)
    except StoreUnavailable as error:
        failure = error  # the message may get through all the same
    try:
        with redis_client.translated():
            for start in range(0, len(key_ids), _MESSAGE_LIMIT):
                await redis.publish(REDIS_CHANNEL, " ".join((str(now_ms), *key_ids[start : start + _MESSAGE_LIMIT])))
    except StoreUnavailable as error:
        failure = error
    if failure is not None:
        raise failure


def parse_message(data: bytes) -> tuple[int, list[str]]:
    """Time and key ids of a message; malformed key ids are skipped, a malformed time is 0."""
    first, *rest = data.decode("ascii", "replace").split(" ", _MESSAGE_LIMIT + 1)
    return int(first) if first.isdigit() and len(first) < 16 else 0, [text for text in rest[:_MESSAGE_LIMIT] if is_key_id(text)]


async def read_feed(connection: postgres.Connection, since: Snapshot, mark: str | None) -> FeedRead:
    """The changes since a position, in one statement.

    :raises StoreUnavailable: PostgreSQL did not answer in time
    """
    with postgres.translated():
        async with StallTolerantTimeout(_WHOLE_FEED_SECONDS if since is BEGINNING else _SILENCE_SECONDS):
            state, *rows = await connection.fetch(sql.READ_FEED, since.text, mark)
    pages = [zip(row["key_ids"], row["xids"], strict=True) for row in rows]
    return FeedRead(parse_snapshot(state["position"]), state["server"], state["floor"], state["mark"], state["mark_is_there"], pages)


class Clock(Protocol):
    """:mod:`gateway.runtime.clock`, or a test's."""

    def now_ms(self) -> int: ...
    def monotonic_ms(self) -> int: ...


class InvalidationListener:
    """Reads the feed and keeps both channels open; calls each of :attr:`on_invalidate` with the id of every key that changed.

    ``None`` stands for every key. Subscribers are plain functions and must not block. When one raises that is logged, and all are
    told of every key after the next read of the feed.

    :param dsn: of the gateway's role, straight to PostgreSQL: behind a pooler that swallows LISTEN changes are a second late
    """

    def __init__(
        self, redis: Redis, dsn: str, trust: Trust, memory: InvalidationTarget, *, metrics: Metrics | None = None, now: Clock = clock
    ) -> None:
        self.on_invalidate: list[Subscriber] = []
        self.up = asyncio.Event()
        """Set when the feed was first read and the Redis subscription first confirmed."""
        self._redis = redis
        self._dsn = dsn
        self._trust = trust
        self._memory = memory
        self._clock = now
        self._metrics = metrics or Metrics()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_up = {"postgres": False, "redis": False}
        self._read_seconds = READ_SECONDS
        self._is_applied = True
        """Whether all changes of the last read have been applied: a defect may have interrupted that."""
        self._has_missed = False
        """Whether a subscriber has raised since the last read."""

    def fit(self, settings: "Cache") -> None:
        """Read the feed several times while memory is believed."""
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
        return [name for name, is_up in self._is_up.items() if not is_up]

    async def _keep(self, name: str, hold: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        """Keep one channel open. ``hold`` calls back once the channel is up, and returns or raises when it is lost."""
        pause, said = _FIRST_PAUSE, False

        def up() -> None:
            nonlocal pause, said
            pause, said = _FIRST_PAUSE, False
            self._is_up[name] = True
            self._metrics.listener_up[name] = 1
            _log.info("invalidation_channel_up", channel=name)
            if not self.down():
                self.up.set()

        while True:
            self._metrics.listener_up[name] = 0
            reason = "no answer"
            try:
                await hold(up)
            except StoreUnavailable as error:
                reason = str(error)
            except Exception:  # noqa: BLE001  # a defect must not end the listener: revoked keys would be admitted
                _log.exception("invalidation_channel_defect", channel=name)
            finally:
                self._is_up[name] = False
                self._metrics.listener_up[name] = 0
                if name == "redis":
                    self._trust.redis_up_ms = None
            if not said:  # once for each outage
                _log.warning("invalidation_channel_down", channel=name, reason=reason)
                said = True
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
            await self._read(connection, BEGINNING)  # it may be another server: read everything that is retained
            up()
            while not connection.is_closed():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._read_seconds):
                        await woken.wait()
                woken.clear()
                await self._read(connection, BEGINNING if self._trust.read is None else self._trust.read.position)
                await asyncio.sleep(PAUSE_SECONDS)
        finally:
            connection.terminate()

    def _on_notification(self, woken: asyncio.Event) -> None:
        self._metrics.invalidations["postgres"] += 1
        woken.set()

    async def _read(self, connection: postgres.Connection, since: Snapshot) -> None:
        """Read the feed once and apply its changes, each page in a turn of the event loop of its own."""
        at, sequence, before = Now(self._clock.monotonic_ms(), self._clock.now_ms()), self._trust.sequence, self._trust.read
        read = await read_feed(connection, since, None if before is None else before.mark)
        changes, is_same_server = self._trust.changes_for(read), self._trust.is_current_server(read.server)
        was_applied, self._is_applied = self._is_applied, False
        pages, all_changed = [], False
        for page in read.pages:
            new = changes.add(page, read)
            pages.append([change for change in new if change[0] != EVERY_KEY])
            all_changed |= len(pages[-1]) < len(new)
            await asyncio.sleep(0)
        # Up to the end of `_invalidate_all` in one turn, and before any key: no outdated record may enter memory in between.
        gap = self._trust.gap(read, changes) if was_applied else "the changes of the last read were not applied"
        if not is_same_server:
            self._trust.note_all_changed()
            self._memory.server_changed(BEGINNING if before is None else before.position)
        self._trust.record_read(read, changes, at, sequence)
        if gap is not None or all_changed:
            self._invalidate_all(gap, gradually=not all_changed)
        for page in pages:
            self._apply(page, is_same_server=is_same_server)
            await asyncio.sleep(0)
        if self._has_missed:
            self._has_missed = False
            self._notify(None)
        self._is_applied = True
        self._trust.record_applied()
        if before is not None:  # once all of them are refused: on a busy machine each command hands over the processor
            self._memory.forget([key_id for page in pages for key_id, _ in page])
        self._metrics.feed_reads += 1
        self._metrics.feed_changes += sum(map(len, pages)) + all_changed
        spawn(self._memory.renew(), name="key-renewal")

    def _apply(self, page: list[Change], *, is_same_server: bool) -> None:
        for key_id, xid in page:
            if is_same_server:  # otherwise every key was noted
                self._trust.note_change(key_id)
            self._memory.invalidate(key_id, xid if is_same_server else None)
            self._notify(key_id)

    def _invalidate_all(self, gap: str | None, *, gradually: bool) -> None:
        """Invalidate every key.

        :param gap: why changes may have been missed; ``None`` when none have been
        :param gradually: the feed does not say that every key changed
        """
        if gap is not None:
            _log.warning("key_feed_gap", reason=gap)
        self._trust.note_all_changed()
        self._memory.invalidate_all(gradually=gradually)
        self._notify(None)

    # -- messages ------------------------------------------------------------------------------------------------------

    async def _follow_messages(self, up: Callable[[], None]) -> None:
        with translated():
            async with self._subscription() as subscription:
                await self._listen(subscription, up)

    async def _listen(self, subscription: PubSub, up: Callable[[], None]) -> None:
        """Apply messages until a ping is not answered."""
        quiet, owed = False, False
        while True:
            if owed:
                owed = not await self._memory.purge()
            message = await subscription.get_message(timeout=_SILENCE_SECONDS if quiet else _PROBE_SECONDS)
            if message is None:
                if quiet:
                    return
                await subscription.ping()
            elif message["type"] == "subscribe":
                self._trust.redis_up_ms = self._clock.monotonic_ms()
                up()
                owed = True
            elif message["type"] == "message":
                self._on_message(message["data"])
                await asyncio.sleep(0)  # the next message may have come with it: thousands of keys are not for one turn of the loop
            quiet = message is None

    @contextlib.asynccontextmanager
    async def _subscription(self) -> AsyncIterator[PubSub]:
        await self._redis.initialize()  # a cluster client knows no node to subscribe at until then
        subscription = self._redis.pubsub()
        try:
            async with StallTolerantTimeout(_SILENCE_SECONDS):
                await subscription.subscribe(REDIS_CHANNEL)
            yield subscription
        finally:
            with contextlib.suppress(StoreUnavailable), translated():
                await subscription.aclose()  # type: ignore[no-untyped-call]

    def _on_message(self, data: bytes) -> None:
        published_ms, key_ids = parse_message(data)
        self._metrics.invalidations["redis"] += 1
        held = []
        for key_id in key_ids:
            self._trust.note_change(key_id)
            if self._memory.invalidate(key_id):
                held.append(key_id)
            self._notify(key_id)
        self._memory.forget(held)
        if key_ids and published_ms:
            self._metrics.revocation_delay["redis"].observe(max(0, self._clock.now_ms() - published_ms) / 1_000)

    def _notify(self, key_id: str | None) -> None:
        for subscriber in self.on_invalidate:
            try:
                subscriber(key_id)
            except Exception:  # noqa: BLE001  # it must not keep the changes behind it from memory
                _log.exception("invalidation_subscriber_defect", key_id=key_id)
                self._has_missed = True
