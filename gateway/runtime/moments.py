"""Formats and parses times (RFC 3339, ``12h`` ago). Pure: the current time is an argument."""

import re
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime.max.replace(tzinfo=UTC) - _EPOCH
"""A zone can put a time beyond it, as in 9999-12-31T23:59:59-12:00."""
_BACK = re.compile(r"([0-9]{1,6})(s|m|h|d)")
_UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def rfc3339(milliseconds: int) -> str:
    """Unix milliseconds as RFC 3339 in UTC."""
    return (_EPOCH + timedelta(milliseconds=milliseconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse(text: str, now_ms: int) -> int:
    """Unix milliseconds of an RFC 3339 time, a date (its beginning in UTC), or a time ago: ``30m``, ``12h``, ``90d``.

    :raises ValueError: none of these; the message shows what to write
    """
    back = _BACK.fullmatch(text)
    if back is not None:
        return max(0, now_ms - int(back[1]) * _UNITS[back[2]])
    try:
        moment = datetime.fromisoformat(text)
        milliseconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    except (ValueError, OverflowError):
        milliseconds = timedelta(-1)
    if not timedelta(0) <= milliseconds <= _LATEST:
        raise ValueError('write a time as "2026-11-24T21:05:57Z", a date as "2026-11-24", or a time ago as "30m", "12h" or "90d"')
    return milliseconds // timedelta(milliseconds=1)
