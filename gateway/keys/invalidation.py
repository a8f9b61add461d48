"""How a change of a key reaches every gate: a message of Redis and a notification of PostgreSQL. Losing one loses nothing.

The admin service publishes after its commit (:func:`publish`): first the tombstone over the record in Redis, then the message.
PostgreSQL's triggers notify at the commit itself, so a change reaches the gates also when the admin service dies right then; a
gate that hears of it that way puts up the tombstone too, and again when Redis comes back: a fail-over may have lost it, or there was
no Redis to take it. :class:`InvalidationListener` holds both channels open and says since when each has heard everything
(:class:`trust.Channels`).

A message is ``<Unix ms> <key id> <key id> …``. Whoever can write to Redis can make gates ask PostgreSQL again, and nothing worse.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from uuid import uuid4

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from gateway.errors import StoreUnavailable
from gateway.keys import postgres
from gateway.keys.ids import is_key_id
from gateway.keys.redis_client import FAILURES
from gateway.keys.shared import entomb
from gateway.keys.trust import MAX_RECORD_TTL_MS, Channels
from gateway.runtime import clock
from gateway.runtime.tasks import cancel, spawn
from gateway.telemetry.metrics import Metrics

__all__ = ["REDIS_CHANNEL", "Channels", "InvalidationListener", "parse_message", "publish"]

REDIS_CHANNEL = "gerbang:invalidate"
POSTGRES_CHANNEL = "gerbang_keys"
_EVERY_KEY = "*"

_PROBE_SECONDS = 1.0
"""How often each channel is made to prove that it still hears."""
_SILENCE_SECONDS = 1.0
"""How long the proof may take before the channel counts as lost."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5
_MESSAGE_LIMIT = 1_000
"""Most key ids in one message."""
_MOST_CHANGED = 2_000
"""Changes remembered for a Redis that comes back; the oldest are forgotten first."""

_log = structlog.get_logger(__name__)
Subscriber = Callable[[str | None], None]


async def publish(redis: Redis, key_ids: Sequence[str], *, now_ms: int) -> None:
    """Tell every gate that these keys changed: created, deleted, revoked, or their account frozen or thawed. After the commit.

    :raises StoreUnavailable: Redis did not take all of it. The change is committed, and PostgreSQL notifies the gates: log it, go on.
    """
    failure: StoreUnavailable | None = None
    try:
        await entomb(redis, key_ids, now_ms=now_ms)
    except StoreUnavailable as error:
        failure = error  # the message may get through all the same
    try:
        for start in range(0, len(key_ids), _MESSAGE_LIMIT):
            await redis.publish(REDIS_CHANNEL, " ".join((str(now_ms), *key_ids[start : start + _MESSAGE_LIMIT])))
    except FAILURES as error:
        failure = StoreUnavailable(f"Redis did not answer: {type(error).__name__}")
    if failure is not None:
        raise failure


def parse_message(data: bytes) -> tuple[int, list[str]]:
    """Time and key ids of a message; what is no key id is left out, and a time that is none is 0."""
    first, *rest = data.decode("ascii", "replace").split(" ", _MESSAGE_LIMIT + 1)
    return int(first) if first.isdigit() and len(first) < 16 else 0, [text for text in rest[:_MESSAGE_LIMIT] if is_key_id(text)]


class InvalidationListener:
    """Holds both channels open, for ever, and calls every subscriber with each key id that changed.

    ``None`` stands for every key: after a channel was down it may have missed anything, so that what is remembered must be
    asked for anew. Subscribers are plain functions and must not block.

    :param dsn: of the gateway's role, straight to PostgreSQL: a pooler that shares sessions swallows LISTEN. The probe notices.
    """

    def __init__(self, redis: Redis, dsn: str, channels: Channels, *, metrics: Metrics | None = None) -> None:
        self.on_invalidate: list[Subscriber] = []
        self._redis = redis
        self._dsn = dsn
        self._channels = channels
        self._metrics = metrics or Metrics()
        self._tasks: list[asyncio.Task[None]] = []
        self._changed: dict[str, int] = {}
        """Until when each key that changed lately is remembered, by PostgreSQL's word, the oldest first."""

    def start(self) -> None:
        """Begin to listen, in the background; a channel that cannot be opened is tried again until it can."""
        postgres.check_dsn(self._dsn)
        self._tasks = [
            spawn(self._keep("postgres", self._hold_postgres), name="invalidation-postgres"),
            spawn(self._keep("redis", self._hold_redis), name="invalidation-redis"),
        ]

    async def aclose(self) -> None:
        """Stop listening."""
        await cancel(*self._tasks)
        self._tasks = []

    async def _keep(self, name: str, hold: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        """Open one channel again and again. ``hold`` calls back when it hears, and returns or raises when it no longer does."""
        pause, said = _FIRST_PAUSE, False

        def up() -> None:
            nonlocal pause, said
            pause, said = _FIRST_PAUSE, False
            setattr(self._channels, f"{name}_up_ms", clock.monotonic_ms())
            self._metrics.listener_up[name] = 1
            _log.info("invalidation_channel_up", channel=name)
            self._tell(None)

        while True:
            self._metrics.listener_up[name] = 0
            reason = "it fell silent"
            try:
                await hold(up)
            except StoreUnavailable as error:
                reason = str(error)
            except FAILURES as error:
                reason = type(error).__name__
            except Exception:  # noqa: BLE001  # a gate that stops listening for a defect's sake would let revoked keys in
                _log.exception("invalidation_channel_defect", channel=name)
            finally:
                setattr(self._channels, f"{name}_up_ms", None)
                self._metrics.listener_up[name] = 0
            if not said:  # once an outage
                _log.warning("invalidation_channel_down", channel=name, reason=reason)
                said = True
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _hold_postgres(self, up: Callable[[], None]) -> None:
        connection = await postgres.connect(self._dsn, seconds=_SILENCE_SECONDS)
        lost, heard = asyncio.Event(), asyncio.Event()
        probe = f"gerbang_probe_{uuid4().hex}"

        def ended(_: object) -> None:
            lost.set()
            heard.set()

        connection.add_termination_listener(ended)
        try:
            with postgres.translated():
                async with asyncio.timeout(_SILENCE_SECONDS):
                    await connection.add_listener(POSTGRES_CHANNEL, lambda *notification: self._notified(str(notification[-1])))
                    await connection.add_listener(probe, lambda *_: heard.set())
                await self._probe_postgres(connection, probe, heard)
                up()
                while not lost.is_set():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_PROBE_SECONDS):
                            await lost.wait()
                    if not lost.is_set():
                        await self._probe_postgres(connection, probe, heard)
        finally:
            connection.terminate()

    async def _probe_postgres(self, connection: postgres.Connection, channel: str, heard: asyncio.Event) -> None:
        """Send itself a notification. Notifications come in the order of commits: once it is back, all earlier ones are here."""
        heard.clear()
        async with asyncio.timeout(_SILENCE_SECONDS):
            await connection.execute("SELECT pg_notify($1, '')", channel)
            await heard.wait()

    def _notified(self, payload: str) -> None:
        self._metrics.invalidations["postgres"] += 1
        if payload == _EVERY_KEY:
            self._tell(None)
        elif is_key_id(payload):
            self._tell(payload)
            self._remember(payload, clock.monotonic_ms())
            spawn(self._entomb([payload]), name="entomb")

    async def _entomb(self, key_ids: Sequence[str]) -> bool:
        """In case whoever committed the change died before it could do so. Whether Redis took all of it."""
        try:
            await entomb(self._redis, key_ids, now_ms=clock.now_ms())
        except StoreUnavailable:
            return False
        return True

    def _remember(self, key_id: str, now_ms: int) -> None:
        """Keep a change for as long as a record that was read before it could be valid."""
        self._changed.pop(key_id, None)
        self._changed[key_id] = now_ms + MAX_RECORD_TTL_MS
        oldest = next(iter(self._changed))
        while len(self._changed) > _MOST_CHANGED or self._changed[oldest] <= now_ms:
            del self._changed[oldest]
            oldest = next(iter(self._changed))

    async def _hold_redis(self, up: Callable[[], None]) -> None:
        async with self._subscription() as subscription:
            quiet, owed = False, False
            while True:
                if owed:
                    owed = not await self._entomb(list(self._changed))
                message = await subscription.get_message(timeout=_SILENCE_SECONDS if quiet else _PROBE_SECONDS)
                if message is None:
                    if quiet:
                        return
                    await subscription.ping()
                elif message["type"] == "subscribe":
                    up()
                    owed = True
                elif message["type"] == "message":
                    self._received(message["data"])
                quiet = message is None

    @contextlib.asynccontextmanager
    async def _subscription(self) -> AsyncIterator[PubSub]:
        await self._redis.initialize()  # a cluster client knows no node to subscribe at before
        subscription = self._redis.pubsub()
        try:
            async with asyncio.timeout(_SILENCE_SECONDS):
                await subscription.subscribe(REDIS_CHANNEL)
            yield subscription
        finally:
            with contextlib.suppress(*FAILURES):
                await subscription.aclose()  # type: ignore[no-untyped-call]

    def _received(self, data: bytes) -> None:
        published_ms, key_ids = parse_message(data)
        self._metrics.invalidations["redis"] += 1
        for key_id in key_ids:
            self._tell(key_id)
        if key_ids and published_ms:
            self._metrics.revocation_delay["redis"].observe(max(0, clock.now_ms() - published_ms) / 1_000)

    def _tell(self, key_id: str | None) -> None:
        for subscriber in self.on_invalidate:
            subscriber(key_id)
