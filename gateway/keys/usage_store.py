"""Usage of each key in Redis: written by the gateway, read by the admin service for its pages, notices and expiry of idle keys.

:class:`UsageWriter` adds what :class:`gateway.keys.usage.UsageCounts` has counted. Losing Redis loses minutes of statistics, never a
request. All keys of Redis carry the key id as hash tag:

    gerbang:{<key id>}:usage:<hour>   hash, field "<minute of the hour> <admitted | code of the refusal>" → count; kept 25 h past its hour
    gerbang:{<key id>}:last           sorted set, client IP → Unix ms of its latest admitted request; the latest ten addresses
    gerbang:{<key id>}:refusals       list of JSON [Unix ms, code, client IP, route], latest first; at most fifty
    gerbang:active                    sorted set, key id → Unix ms of the latest write about it, polled by the admin service

The functions raise :class:`gateway.errors.StoreUnavailable`; missing statistics may leave a cell empty, but must not cause an error page.
"""

import asyncio
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import structlog

from gateway.errors import StoreUnavailable
from gateway.keys.redis_client import RedisRefused, is_other_type, translated
from gateway.keys.redis_line import Command, RedisLine, ask_all
from gateway.keys.usage import ADMITTED, MINUTE_MS, NONE_EARLIER, REFUSALS_KEPT, Entry, Refused, UsageCounts
from gateway.runtime import clock
from gateway.runtime.tasks import StallTolerantTimeout, cancel, repeat
from gateway.telemetry import Metrics

HOUR_MS = 3_600_000

_USAGE_TTL_S = 26 * 3600
_LAST_TTL_S = 400 * 86_400
_REFUSALS_TTL_S = 7 * 86_400
_ADDRESSES_KEPT = 10
_CHUNK = 20
"""Keys written in one round trip: few enough that preparing them does not block the event loop."""
_WRITE_SECONDS = 1.0
"""Time limit of a round trip."""
_ACTIVE = "gerbang:active"
_ACTIVE_KEPT_MS = 7 * 86_400_000
_LATEST_MS = 32_503_680_000_000
"""The year 3000: later times are invalid, and some could not be formatted as a date."""
_COUNTED = re.compile(r"([0-5]?[0-9]) ([a-z0-9_]{1,64}) ([0-9]{1,18})", re.ASCII)
"""Minute, outcome and count."""
_log = structlog.get_logger(__name__)


class LastUse(NamedTuple):
    """When (Unix ms) and from where a key was last admitted."""

    at_ms: int
    client_ip: str


class UsagePeriod(NamedTuple):
    """Counts of one minute or hour: its start (Unix ms), admitted, and refused by code."""

    start_ms: int
    admitted: int
    refused: dict[str, int]


class UsageWriter:
    """Adds the counts to Redis as they become due."""

    def __init__(self, counts: UsageCounts, redis: Any, metrics: Metrics) -> None:
        self._counts = counts
        self._redis = redis
        self._line = RedisLine.of(redis)
        self._metrics = metrics
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start writing in the background."""
        self._task = repeat(self._beat, name="usage-writer")

    async def stop(self) -> None:
        """Write what is left, and stop."""
        if self._task is not None:
            await cancel(self._task)
        await self.flush(clock.now_ms(), everything=True)

    async def _beat(self) -> None:
        await asyncio.sleep(1)
        await self.flush(clock.now_ms())

    async def flush(self, now_ms: int, *, everything: bool = False) -> None:
        """Add what is due, or everything, to Redis. What Redis does not accept is dropped, so that nothing is counted twice."""
        self._metrics.usage_dropped = self._counts.dropped
        failure, unwritten = "", 0
        for entries in _chunks(self._counts.take_all()) if everything else self._counts.take_due(now_ms, at_once=_CHUNK):
            if not failure and entries:
                try:
                    await self._write(_commands(entries, now_ms))
                except StoreUnavailable as error:
                    failure = str(error)
                except BaseException:  # cancelled by stop, which writes what comes in meanwhile
                    _forget_written(entries)
                    raise
                else:
                    self._metrics.usage_flushes["ok"] += 1
            if failure:
                unwritten += len(entries)
                _forget_written(entries)
            await asyncio.sleep(0)  # there may be thousands
        if failure:
            self._metrics.usage_flushes["failed"] += 1
            _log.warning("usage_not_written", keys=unwritten, reason=failure)

    async def _write(self, commands: Sequence[Command]) -> None:
        """:raises StoreUnavailable: Redis did not answer, or refused one of them"""
        with translated():
            async with StallTolerantTimeout(_WRITE_SECONDS):
                replies = await ask_all(self._redis, self._line, commands)
        for reply in replies:
            if isinstance(reply, Exception):
                raise RedisRefused(f"Redis refused: {reply}")


def _forget_written(entries: dict[str, Entry]) -> None:
    """Set expiries again with the next write: it is not known whether these have been."""
    for entry in entries.values():
        entry.written_hour, entry.written_ip = 0, ""


def _chunks(entries: dict[str, Entry]) -> Iterator[dict[str, Entry]]:
    each = iter(entries.items())
    while chunk := dict(islice(each, _CHUNK)):
        yield chunk


def _commands(entries: dict[str, Entry], now_ms: int) -> list[Command]:
    """The commands for these keys, whose entries are reset."""
    commands: list[Command] = [command for key_id, entry in entries.items() for command in _news(key_id, entry)]
    commands.append(("ZADD", _ACTIVE, "GT", *(part for key_id in entries for part in (now_ms, key_id))))
    commands.append(("PEXPIRE", _ACTIVE, _ACTIVE_KEPT_MS))
    return commands


def _news(key_id: str, entry: Entry) -> Iterator[Command]:
    """The commands for one key, whose entry is reset. Expiries are set again when there is something new to expire."""
    entry.turn(entry.turn_ms - 1)
    hour = 0
    for minute, outcome, count in entry.earlier:
        hour, of_hour = divmod(minute, 60)
        usage = _usage_key(key_id, hour)
        yield "HINCRBY", usage, f"{of_hour} {outcome}", count
        if hour != entry.written_hour:
            yield "EXPIRE", usage, _USAGE_TTL_S
            entry.written_hour = hour
    if any(outcome == ADMITTED for _, outcome, _ in entry.earlier):
        last = last_key(key_id)
        # GT: the latest use wins, in whatever order several workers flush.
        yield "ZADD", last, "GT", entry.last_ms, entry.client_ip
        if entry.written_ip != entry.client_ip:
            yield "ZREMRANGEBYRANK", last, 0, -_ADDRESSES_KEPT - 1
            yield "EXPIRE", last, _LAST_TTL_S
            entry.written_ip = entry.client_ip
    if entry.recent:
        refusals = _refusals_key(key_id)
        yield "LPUSH", refusals, *(json.dumps(refused) for refused in entry.recent)
        yield "LTRIM", refusals, 0, REFUSALS_KEPT - 1
        yield "EXPIRE", refusals, _REFUSALS_TTL_S
    entry.earlier, entry.recent = NONE_EARLIER, None


def _usage_key(key_id: str, hour: int) -> str:
    return f"gerbang:{{{key_id}}}:usage:{hour}"


def last_key(key_id: str) -> str:
    return f"gerbang:{{{key_id}}}:last"


def _refusals_key(key_id: str) -> str:
    return f"gerbang:{{{key_id}}}:refusals"


# -- reading. Redis may contain data that no version of this program wrote; unreadable data is omitted.


async def read_active(redis: Any, *, since_ms: int, now_ms: int) -> list[str]:
    """Ids of keys with writes since then; those of more than a week ago are removed. The contents are not trusted."""
    _, answer = await _ask(
        redis, [("ZREMRANGEBYSCORE", _ACTIVE, "-inf", now_ms - _ACTIVE_KEPT_MS), ("ZRANGEBYSCORE", _ACTIVE, since_ms, "+inf")]
    )
    return [_text(key_id) for key_id in answer]


async def read_last_use(redis: Any, key_ids: Sequence[str]) -> dict[str, LastUse]:
    """The last admitted request of each of these keys; a key never used (or not for 400 days) is left out."""
    answers = await _ask(redis, [("ZREVRANGE", last_key(key_id), 0, 0, "WITHSCORES") for key_id in key_ids])
    return {key_id: _last_use(answer) for key_id, answer in zip(key_ids, answers, strict=True) if answer}


def _last_use(answer: list[Any]) -> LastUse:
    # RESP2 answers [member, score], RESP3 and redis-py's own parsing [[member, score]].
    address, at_ms = answer[0] if isinstance(answer[0], list | tuple) else answer
    # Even an invalid time shows that the key was used: it must not be revoked as unused.
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

    The hours are counted back from the end of the current minute, so that the last bar covers a full hour.
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
    commands = [("LRANGE", _refusals_key(key_id), 0, REFUSALS_KEPT - 1) for key_id in key_ids]
    answers = await _ask(redis, commands, skip_other_types=True)
    return {key_id: sorted(filter(None, map(_refused, answer)), reverse=True) for key_id, answer in zip(key_ids, answers, strict=True)}


def _refused(item: bytes | str) -> Refused | None:
    try:
        found = json.loads(item)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list) or len(found) < 3:
        return None
    at_ms, texts = found[0], found[1:4]  # earlier versions wrote no route; a later one may add members
    if type(at_ms) is not int or not 0 <= at_ms <= _LATEST_MS:
        return None
    # Unprintable text, such as a lone surrogate, which could not be encoded.
    if not all(isinstance(text, str) and text.isprintable() for text in texts):
        return None
    return Refused(at_ms, *texts)


async def forget(redis: Any, key_id: str, *, now_ms: int) -> None:
    """Remove everything stored about a deleted key."""
    hours = range(now_ms // HOUR_MS - 26, now_ms // HOUR_MS + 1)
    keys = [last_key(key_id), _refusals_key(key_id), *(_usage_key(key_id, hour) for hour in hours)]
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
