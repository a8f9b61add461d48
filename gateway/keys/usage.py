"""Usage of each key: requests per minute, last use, recent refusals. Written by the gateway, read by the admin service. Uses Redis.

The gateway counts in memory (:class:`UsageCounts`: one dict operation a request) and :class:`UsageWriter` adds that to Redis: what is news
(a first use, another address, a refusal after a quiet time) within seconds, more of the same once a minute, each key at its own moment.
Losing Redis loses minutes of statistics, never a request. All keys of Redis carry the key id as hash tag:

    gerbang:{<key id>}:usage:<hour>   hash, field "<minute of the hour> <admitted | code of the refusal>" → count; kept 25 h past its hour
    gerbang:{<key id>}:last           sorted set, client IP → Unix ms of its latest admitted request; the latest ten addresses
    gerbang:{<key id>}:refusals       list of JSON [Unix ms, code, client IP, route], latest first; at most fifty
    gerbang:active                    sorted set, key id → Unix ms of the latest write about it: where the admin service looks for news

For the admin service: :func:`read_active`, :func:`read_last_use` and :func:`read_refusals_of` (many keys, one round trip),
:func:`read_minutes`, :func:`read_hours`, :func:`read_refusals`, and :func:`forget` when a key is deleted. All raise
:class:`gateway.errors.StoreUnavailable`; statistics are worth an empty cell on the page, never an error page.
"""

import asyncio
import json
import re
import secrets
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import structlog

from gateway.errors import StoreUnavailable
from gateway.keys.redis_client import is_other_type, translated
from gateway.runtime import clock
from gateway.runtime.tasks import spawn
from gateway.telemetry import Metrics

ADMITTED = "admitted"
MINUTE_MS = 60_000
HOUR_MS = 3_600_000

_USAGE_TTL_S = 26 * 3600
_LAST_TTL_S = 400 * 86_400
_REFUSALS_TTL_S = 7 * 86_400
_REFUSALS_KEPT = 50
_ADDRESSES_KEPT = 10
_CHUNK = 50
"""Keys written in one round trip: few enough that preparing them does not hold up the event loop."""
_ACTIVE = "gerbang:active"
_ACTIVE_KEPT_MS = 7 * 86_400_000
SOON_MS = 4_000
"""What is news is written after this time, together with what follows it until then."""
PERIOD_MS = 60_000
_SPREAD_MS = 10_000
_FAR_S = 2 * PERIOD_MS // 1_000
_LATEST_MS = 32_503_680_000_000
"""The year 3000: every later time is garbage, and some could not be written as a date."""
_COUNTED = re.compile(r"([0-5]?[0-9]) ([a-z0-9_]{1,64}) ([0-9]{1,18})", re.ASCII)
"""Minute, outcome and count."""
_NOTHING: dict[str, int] = {}
_NONE: list[tuple[int, str, int]] = []
_log = structlog.get_logger(__name__)


class LastUse(NamedTuple):
    """When (Unix ms) and from where a key was last admitted."""

    at_ms: int
    client_ip: str


class Refused(NamedTuple):
    """One refused request of a key: when (Unix ms), the contract's code, the address the gate saw, and the route as written."""

    at_ms: int
    code: str
    client_ip: str
    call: str = ""


class UsagePeriod(NamedTuple):
    """Counts of one minute or hour: its start (Unix ms), admitted, and refused by code."""

    start_ms: int
    admitted: int
    refused: dict[str, int]


class _Entry:
    """One key that is in use. What most keys do not need, room for refusals, is made with the first of them."""

    __slots__ = (
        "admitted", "client_ip", "due_ms", "earlier", "last_ms", "minute", "recent", "refused",
        "refused_until_ms", "turn_ms", "written_hour", "written_ip",
    )  # fmt: skip

    def __init__(self) -> None:
        self.admitted = 0
        self.refused: dict[str, int] = _NOTHING
        self.minute = 0
        """Of which both are the counts, since the epoch."""
        self.turn_ms = 0
        """Its end."""
        self.earlier: list[tuple[int, str, int]] = _NONE
        """Minute, outcome and count of earlier minutes."""
        self.last_ms = 0
        self.client_ip = ""
        self.recent: deque[Refused] | None = None
        self.due_ms = 0
        """When this is to be written; 0 while there is nothing new."""
        self.refused_until_ms = 0
        """Until then a refusal is more of the same."""
        self.written_hour = 0
        """Whose hash in Redis has its expiry."""
        self.written_ip = ""
        """What Redis has as the latest address."""

    def turn(self, now_ms: int) -> None:
        """Begin another minute."""
        counts = [(ADMITTED, self.admitted), *self.refused.items()]
        self.earlier = [*self.earlier, *((self.minute, outcome, count) for outcome, count in counts if count)]
        self.admitted = 0
        self.refused = _NOTHING
        self.minute = now_ms // MINUTE_MS
        self.turn_ms = (self.minute + 1) * MINUTE_MS


class UsageCounts:
    """Counts in memory, for keys that exist: callers never pass a key id that was not found, so strangers cannot fill this.

    :param limit: keys in use at once; a use of further keys is only counted in :attr:`dropped`
    """

    __slots__ = ("_due", "_entries", "_limit", "dropped")

    def __init__(self, *, limit: int = 100_000) -> None:
        self._entries: dict[str, _Entry] = {}
        self._due: defaultdict[int, list[str]] = defaultdict(list)
        """Keys by the second in which they may be due."""
        self._limit = limit
        self.dropped = 0

    def admitted(self, key_id: str, client_ip: str, now_ms: int) -> None:
        """Count an admitted request; on the hot path."""
        entry = self._entries.get(key_id) or self._enter(key_id)
        if entry is not None:
            if now_ms >= entry.turn_ms:
                entry.turn(now_ms)
            entry.admitted += 1
            entry.last_ms = now_ms
            if client_ip != entry.client_ip:
                entry.client_ip = client_ip
                self._write_by(key_id, entry, now_ms + SOON_MS)

    def refused(  # noqa: PLR0917  # on the hot path
        self, key_id: str, code: str, client_ip: str, now_ms: int, call: str = "", proven: bool = True
    ) -> None:  # fmt: skip
        """Count a request that was refused for one of the contract's codes.

        :param call: its route's pattern
        :param proven: whether the key had signed it. Only such a refusal is kept one by one: whoever knows a key's id could push the others
            out, and put any address in their place.
        """
        entry = self._entries.get(key_id) or self._enter(key_id)
        if entry is not None:
            if now_ms >= entry.turn_ms:
                entry.turn(now_ms)
            if entry.refused is _NOTHING:
                entry.refused = defaultdict(int)
            entry.refused[code] += 1
            if proven:
                if entry.recent is None:
                    entry.recent = deque(maxlen=_REFUSALS_KEPT)
                entry.recent.append(Refused(now_ms, code, client_ip, call))
            if now_ms >= entry.refused_until_ms:
                entry.refused_until_ms = now_ms + PERIOD_MS
                self._write_by(key_id, entry, now_ms + SOON_MS)

    def _enter(self, key_id: str) -> _Entry | None:
        if len(self._entries) >= self._limit:
            self.dropped += 1
            return None
        entry = self._entries[key_id] = _Entry()
        return entry

    def _write_by(self, key_id: str, entry: _Entry, due_ms: int) -> None:
        if not entry.due_ms or due_ms < entry.due_ms:
            entry.due_ms = due_ms
            self._due[due_ms // 1_000].append(key_id)

    def take(self, now_ms: int | None = None) -> "dict[str, _Entry]":
        """What is to be written at this time; everything when none is given. Each is due again in a minute, if it is used until then."""
        if now_ms is None:
            entries, self._entries = self._entries, {}
            self._due.clear()
            return entries
        taken: dict[str, _Entry] = {}
        now_s = now_ms // 1_000
        # What is due in hours was written down before the clock was set back.
        for second in sorted(second for second in self._due if second <= now_s or second > now_s + _FAR_S):
            for key_id in self._due.pop(second):
                entry = self._entries.get(key_id)
                if entry is None or not entry.due_ms or entry.due_ms // 1_000 != second:
                    continue
                entry.due_ms = 0
                if entry.admitted or entry.refused or entry.earlier:
                    taken[key_id] = entry
                    self._write_by(key_id, entry, now_ms + PERIOD_MS - secrets.randbelow(_SPREAD_MS))
                else:  # not used for a while
                    del self._entries[key_id]
        return taken


class UsageWriter:
    """Adds the counts to Redis as they become due."""

    def __init__(self, counts: UsageCounts, redis: Any, metrics: Metrics) -> None:
        self._counts = counts
        self._redis = redis
        self._metrics = metrics
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write in the background."""
        self._task = spawn(self._run(), name="usage-writer")

    async def stop(self) -> None:
        """Write what is left and end."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self.flush(clock.now_ms(), everything=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(1)
            await self.flush(clock.now_ms())

    async def flush(self, now_ms: int, *, everything: bool = False) -> None:
        """Add to Redis what is due, or everything. What Redis does not take is given up: never counted twice."""
        entries = list(self._counts.take(None if everything else now_ms).items())
        self._metrics.usage_dropped = self._counts.dropped
        for start in range(0, len(entries), _CHUNK):
            pipeline = self._redis.pipeline(transaction=False)
            chunk = entries[start : start + _CHUNK]
            for key_id, entry in chunk:
                _add(pipeline, key_id, entry)
            pipeline.execute_command("ZADD", _ACTIVE, "GT", *(part for key_id, _ in chunk for part in (now_ms, key_id)))
            pipeline.execute_command("PEXPIRE", _ACTIVE, _ACTIVE_KEPT_MS)
            try:
                with translated():
                    await pipeline.execute(raise_on_error=True)
            except StoreUnavailable as error:
                self._metrics.usage_flushes["failed"] += 1
                _log.warning("usage_not_written", keys=len(entries) - start, reason=str(error))
                for _, entry in entries[start:]:
                    entry.written_hour, entry.written_ip = 0, ""
                return
            self._metrics.usage_flushes["ok"] += 1


def _add(pipeline: Any, key_id: str, entry: _Entry) -> None:
    """One key's part of a pipeline; its entry begins anew. Expiries are set again when there is something new to expire."""
    entry.turn(entry.turn_ms - 1)
    hour = 0
    for minute, outcome, count in entry.earlier:
        hour, of_hour = divmod(minute, 60)
        usage = _usage_key(key_id, hour)
        pipeline.execute_command("HINCRBY", usage, f"{of_hour} {outcome}", count)
        if hour != entry.written_hour:
            pipeline.execute_command("EXPIRE", usage, _USAGE_TTL_S)
            entry.written_hour = hour
    if any(outcome == ADMITTED for _, outcome, _ in entry.earlier):
        last = _last_key(key_id)
        # GT: of several workers' flushes the latest use wins, in whatever order they arrive.
        pipeline.execute_command("ZADD", last, "GT", entry.last_ms, entry.client_ip)
        if entry.written_ip != entry.client_ip:
            pipeline.execute_command("ZREMRANGEBYRANK", last, 0, -_ADDRESSES_KEPT - 1)
            pipeline.execute_command("EXPIRE", last, _LAST_TTL_S)
            entry.written_ip = entry.client_ip
    if entry.recent:
        refusals = _refusals_key(key_id)
        pipeline.execute_command("LPUSH", refusals, *(json.dumps(refused) for refused in entry.recent))
        pipeline.execute_command("LTRIM", refusals, 0, _REFUSALS_KEPT - 1)
        pipeline.execute_command("EXPIRE", refusals, _REFUSALS_TTL_S)
    entry.earlier, entry.recent = _NONE, None


def _usage_key(key_id: str, hour: int) -> str:
    return f"gerbang:{{{key_id}}}:usage:{hour}"


def _last_key(key_id: str) -> str:
    return f"gerbang:{{{key_id}}}:last"


def _refusals_key(key_id: str) -> str:
    return f"gerbang:{{{key_id}}}:refusals"


# -- reading. Redis may hold what no version of this program wrote: what cannot be read is left out.


async def read_active(redis: Any, *, since_ms: int, now_ms: int) -> list[str]:
    """Ids of keys that something was written about since then, and forget those of more than a week ago. What is there is not trusted."""
    _, answer = await _ask(
        redis, [("ZREMRANGEBYSCORE", _ACTIVE, "-inf", now_ms - _ACTIVE_KEPT_MS), ("ZRANGEBYSCORE", _ACTIVE, since_ms, "+inf")]
    )
    return [_text(key_id) for key_id in answer]


async def read_last_use(redis: Any, key_ids: Sequence[str]) -> dict[str, LastUse]:
    """The last admitted request of each of these keys; a key never used (or not for 400 days) is left out."""
    answers = await _ask(redis, [("ZREVRANGE", _last_key(key_id), 0, 0, "WITHSCORES") for key_id in key_ids])
    return {key_id: _last_use(answer) for key_id, answer in zip(key_ids, answers, strict=True) if answer}


def _last_use(answer: list[Any]) -> LastUse:
    # RESP2 answers [member, score], RESP3 and redis-py's own parsing [[member, score]].
    address, at_ms = answer[0] if isinstance(answer[0], list | tuple) else answer
    # A time that none can be still says that the key was used: it must not end for being unused.
    return LastUse(int(min(max(float(at_ms), 0.0), float(_LATEST_MS))), _text(address))


async def read_minutes(redis: Any, key_id: str, *, now_ms: int, hours: int = 24) -> list[UsagePeriod]:
    """Minutes with any request in the last ``hours`` hours (at most 24), oldest first; quiet minutes are left out."""
    since_ms = now_ms - hours * HOUR_MS
    first, last = since_ms // HOUR_MS, now_ms // HOUR_MS
    answers = await _ask(redis, [("HGETALL", _usage_key(key_id, hour)) for hour in range(first, last + 1)], skip_other_types=True)
    periods: dict[int, UsagePeriod] = {}
    for hour, answer in zip(range(first, last + 1), answers, strict=True):
        for field, count in _pairs(answer):
            counted = _COUNTED.fullmatch(f"{_text(field)} {_text(count)}")
            if counted is not None:
                _count(periods, hour * HOUR_MS + int(counted[1]) * MINUTE_MS, counted[2], int(counted[3]))
    return [periods[start_ms] for start_ms in sorted(periods) if start_ms > since_ms - MINUTE_MS]


async def read_hours(redis: Any, key_id: str, *, now_ms: int, hours: int = 24) -> list[UsagePeriod]:
    """The last ``hours`` hours up to the present minute, oldest first, quiet ones included: a bar chart's data.

    The hours are counted back from the end of the present minute, so that the last bar is as full as the others.
    """
    end_ms = (now_ms // MINUTE_MS + 1) * MINUTE_MS
    starts = [end_ms - back * HOUR_MS for back in range(hours, 0, -1)]
    periods = {start_ms: UsagePeriod(start_ms, 0, {}) for start_ms in starts}
    for minute in await read_minutes(redis, key_id, now_ms=now_ms, hours=hours):
        start_ms = end_ms - ((end_ms - 1 - minute.start_ms) // HOUR_MS + 1) * HOUR_MS
        if start_ms in periods:
            for outcome, count in ((ADMITTED, minute.admitted), *minute.refused.items()):
                _count(periods, start_ms, outcome, count)
    return [periods[start_ms] for start_ms in starts]


def _count(periods: dict[int, UsagePeriod], start_ms: int, outcome: str, count: int) -> None:
    period = periods.get(start_ms) or UsagePeriod(start_ms, 0, {})
    if outcome == ADMITTED:
        period = period._replace(admitted=period.admitted + count)
    else:
        period.refused[outcome] = period.refused.get(outcome, 0) + count
    periods[start_ms] = period


async def read_refusals(redis: Any, key_id: str) -> list[Refused]:
    """Recent refusals of this key, latest first, at most fifty."""
    return (await read_refusals_of(redis, [key_id]))[key_id]


async def read_refusals_of(redis: Any, key_ids: Sequence[str]) -> dict[str, list[Refused]]:
    """Recent refusals of each of these keys, latest first, at most fifty."""
    commands = [("LRANGE", _refusals_key(key_id), 0, _REFUSALS_KEPT - 1) for key_id in key_ids]
    answers = await _ask(redis, commands, skip_other_types=True)
    return {key_id: sorted(filter(None, map(_refused, answer)), reverse=True) for key_id, answer in zip(key_ids, answers, strict=True)}


def _refused(item: bytes | str) -> Refused | None:
    try:
        found = json.loads(item)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list) or len(found) not in (3, 4):
        return None
    at_ms, texts = found[0], found[1:]
    if type(at_ms) is not int or not 0 <= at_ms <= _LATEST_MS:
        return None
    # Not printable, among others: half a surrogate pair, which no answer could be encoded with.
    if not all(isinstance(text, str) and text.isprintable() for text in texts):
        return None
    return Refused(at_ms, *texts)


async def forget(redis: Any, key_id: str, *, now_ms: int) -> None:
    """Remove everything kept about a key: it was deleted."""
    hours = range(now_ms // HOUR_MS - 26, now_ms // HOUR_MS + 1)
    keys = [_last_key(key_id), _refusals_key(key_id), *(_usage_key(key_id, hour) for hour in hours)]
    await _ask(redis, [("ZREM", _ACTIVE, key_id), *(("UNLINK", key) for key in keys)])


async def _ask(redis: Any, commands: Iterable[tuple[Any, ...]], *, skip_other_types: bool = False) -> list[Any]:
    """:param skip_other_types: answer ``[]`` for a key of Redis that holds another type

    :raises StoreUnavailable: Redis did not answer, or refused one of them
    """
    with translated():
        pipeline = redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        answers: list[Any] = await pipeline.execute(raise_on_error=not skip_other_types)
        for position, answer in enumerate(answers):
            if skip_other_types and is_other_type(answer):
                answers[position] = []
            elif isinstance(answer, Exception):
                raise answer
    return answers


def _pairs(answer: Any) -> Iterable[tuple[Any, Any]]:
    return answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2], strict=True)


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
