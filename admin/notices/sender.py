"""Delivers queued notifications: at least once, in order per account, with growing delays for a day.

Of all admin processes one sends at a time: the one that holds an advisory lock in PostgreSQL. The lock is bound to a
separate connection, so that a killed process is replaced at once; notices sent but not yet recorded are sent again under the same id.
An unavailable channel pauses as a whole; one that refuses an account's notice delays only that account, and so does a
notice that cannot be sent because of a defect, for a few minutes.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence

import structlog

from admin import outbox
from admin.notices.delivery import DAY_MS, ChannelDown, Defective, Deliver, NotDelivered, Route, Undeliverable, delay_ms
from admin.outbox import Pending
from admin.stores import Stores
from gateway.errors import StoreUnavailable
from gateway.keys import postgres
from gateway.keys.postgres import Connection, translated
from gateway.runtime import clock
from gateway.runtime.tasks import cancel, repeated, spawn

BATCH = 500
WORKERS = 8
"""Concurrent deliveries of one channel, each of a different account."""

_GROUP_SIZE = 10
"""Deliveries of one account before they are recorded: at most so many are repeated if the process is killed."""
_LOCK = 0x6E6F7469636573  # "notices"
_STAND_BY_S = 1.0
_CHECK_S = 2.0
_LONGEST_REST_MS = 60_000
_KEPT_MS = 35 * DAY_MS
_TIDY_S = 600.0
_log = structlog.get_logger(__name__)


class Sender:
    """See the module.

    :param dsn: the stores' PostgreSQL, directly or through a session pooler, not a transaction pooler
    :param upstreams: names of upstreams that are notified when keys end, each by a separate channel
    :param chores: other work for a single process: intervals in seconds, and functions of the current time
    """

    def __init__(
        self,
        stores: Stores,
        dsn: str,
        routes: Sequence[Route],
        chores: Sequence[tuple[float, Callable[[int], Awaitable[None]]]] = (),
        *,
        upstreams: Sequence[str] = (),
    ) -> None:
        self._stores = stores
        self._dsn = dsn
        self._routes = routes
        self._upstreams = upstreams
        self._chores = [(_TIDY_S, self._tidy), *chores]
        self._wake = {route.channel: asyncio.Event() for route in routes}
        self._waits = ""
        """Why PostgreSQL cannot be reached, as it was last logged; ``""`` since a connection."""

    async def run(self) -> None:
        """Run until cancelled."""
        await repeated(self._stand_by, name="notices")

    async def _stand_by(self) -> None:
        try:
            connection = await postgres.connect(self._dsn)
        except StoreUnavailable as error:
            if str(error) != self._waits:  # tried each second, for as long as PostgreSQL is away
                self._waits = str(error)
                _log.warning("notices_wait", reason=self._waits)
        else:
            self._waits = ""
            try:
                await self._lead_if_free(connection)
            except StoreUnavailable as error:
                _log.warning("notices_interrupted", reason=str(error))
            finally:
                connection.terminate()  # immediately, which also releases the lock
        await asyncio.sleep(_STAND_BY_S)

    async def _lead_if_free(self, connection: Connection) -> None:
        """:raises StoreUnavailable: the connection, and so the lock, is lost"""
        with translated():
            if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
                return
            await connection.add_listener(outbox.WAKE_CHANNEL, self._on_wake)
        _log.info("notices_sending", channels=[str(route.channel) for route in self._routes])
        work = [spawn(self._drain(route), name=f"notices-{route.channel}") for route in self._routes]
        work += [spawn(self._repeat(seconds, chore), name="notices-chore") for seconds, chore in self._chores]
        try:
            while True:
                _, _ = await asyncio.wait(work, timeout=_CHECK_S, return_when=asyncio.FIRST_COMPLETED)
                if any(task.done() for task in work):
                    raise StoreUnavailable("a task of the sender ended")
                with translated():
                    await connection.fetchval("SELECT 1")
        finally:
            await cancel(*work)

    def _on_wake(self, *_log_fields: object) -> None:
        for event in self._wake.values():
            event.set()

    async def _drain(self, route: Route) -> None:
        rests = 0
        while True:
            event = self._wake[route.channel]
            event.clear()
            now_ms = clock.now_ms()
            try:
                async with self._stores.transaction() as connection:
                    if self._upstreams:
                        await outbox.address(connection, self._upstreams)
                    batch = await outbox.due(connection, route.channel, now_ms=now_ms, limit=BATCH)
                    next_ms = None if batch else await outbox.next_due_ms(connection, route.channel, now_ms=now_ms)
                down = await _Run(self._stores, route, batch).send() if batch else False
            except StoreUnavailable as error:
                _log.warning("notices_interrupted", channel=str(route.channel), reason=str(error))
                await asyncio.sleep(_STAND_BY_S)
                continue
            rests = rests + 1 if down else 0
            if down:
                await asyncio.sleep(min(delay_ms(rests), _LONGEST_REST_MS) / 1000)
            elif not batch:
                await _wait(event, None if next_ms is None else next_ms - now_ms)

    async def _repeat(self, seconds: float, chore: Callable[[int], Awaitable[None]]) -> None:
        while True:
            try:
                await chore(clock.now_ms())
            except StoreUnavailable as error:
                _log.warning("notices_chore_failed", reason=str(error))
            except Exception:  # noqa: BLE001  # one unexpected row must not block every notice
                _log.exception("notices_chore_failed")
            await asyncio.sleep(seconds)

    async def _tidy(self, now_ms: int) -> None:
        async with self._stores.transaction() as connection:
            channels = [route.channel for route in self._routes]
            await outbox.tidy(connection, channels=channels, undelivered_before_ms=now_ms - DAY_MS, before_ms=now_ms - _KEPT_MS)


class _Run:
    """One batch of one channel: accounts concurrently, each account's notices in order."""

    def __init__(self, stores: Stores, route: Route, batch: Sequence[Pending]) -> None:
        self._stores = stores
        self._route = route
        by_account: dict[str, list[Pending]] = {}
        for notice in batch:
            by_account.setdefault(notice.account_id, []).append(notice)
        self._accounts = deque(by_account.values())
        self._down = False

    async def send(self) -> bool:
        """Send the batch. Returns whether the channel is down; untried notices are then unchanged."""
        workers = [spawn(self._worker(), name=f"notices-{self._route.channel}-lane") for _ in range(min(WORKERS, len(self._accounts)))]
        try:
            await asyncio.gather(*workers)
        finally:
            await cancel(*workers)
        return self._down

    async def _worker(self) -> None:
        async with self._route.open() as deliver:
            while self._accounts and not self._down:
                for group in _groups(self._accounts.popleft()):
                    if self._down or not await self._deliver(deliver, group):
                        break

    async def _deliver(self, deliver: Deliver, group: Sequence[Pending]) -> bool:
        """Deliver some notices of one account and record them together. False: its next ones must wait."""
        gone: list[int] = []
        failed: tuple[Pending, NotDelivered] | None = None
        for notice in group:
            try:
                await deliver(notice, clock.now_ms())
            except Undeliverable as error:
                _log.info("notice_undeliverable", **self._log_fields(notice, error))
            except NotDelivered as error:
                failed = notice, error
                break
            except Exception as error:  # noqa: BLE001  # an unexpected error must not block the other notices
                _log.exception("notice_defective", notice=notice.id, topic=notice.topic.value)
                failed = notice, Defective(type(error).__name__)
                break
            gone.append(notice.seq)
        if gone:
            async with self._stores.transaction() as connection:
                await outbox.done(connection, self._route.channel, gone)
        return failed is None or await self._failed(*failed, clock.now_ms())

    async def _failed(self, notice: Pending, error: NotDelivered, now_ms: int) -> bool:
        """Record a failed attempt, or the final failure. Always False: the account's next notices wait for the next batch."""
        self._down = self._down or isinstance(error, ChannelDown)
        attempts = notice.attempts + 1
        last_ms = (now_ms if notice.first_tried_ms is None else notice.first_tried_ms) + error.give_up_after_ms
        over = now_ms >= last_ms
        async with self._stores.transaction() as connection:
            if over:
                await outbox.done(connection, self._route.channel, [notice.seq])
            else:
                due_ms = min(now_ms + delay_ms(attempts), last_ms)
                await outbox.postpone(connection, self._route.channel, notice.seq, now_ms=now_ms, due_ms=due_ms)
        fields = self._log_fields(notice, error) | {"attempts": attempts}
        if over:
            _log.error("notice_given_up", **fields)
        else:
            _log.warning("notice_not_delivered", **fields)
        return False

    def _log_fields(self, notice: Pending, error: Exception) -> dict[str, object]:
        return {"notice": notice.id, "topic": notice.topic.value, "channel": str(self._route.channel), "reason": str(error)}


def _groups(notices: Sequence[Pending]) -> Iterator[Sequence[Pending]]:
    return (notices[start : start + _GROUP_SIZE] for start in range(0, len(notices), _GROUP_SIZE))


async def _wait(event: asyncio.Event, at_most_ms: int | None) -> None:
    try:
        async with asyncio.timeout(None if at_most_ms is None else max(0, at_most_ms) / 1000):
            await event.wait()
    except TimeoutError:
        pass
