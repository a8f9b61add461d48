"""A finding of the diagnosis, and checks that several parts share."""

from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from gateway.runtime import clock

SECONDS = 5.0
"""Time limit of each request."""
CLOCK_MS = 500
"""Tolerated difference between two clocks: half of the tolerance for requests signed ahead of time."""
SOON_DAYS, LATE_DAYS = 30, 7
_DAY_MS = 86_400_000

Level = Literal["ok", "note", "wrong"]


class Finding(NamedTuple):
    """One line: the setting, the finding, and what to do about a problem."""

    level: Level
    about: str
    text: str
    advice: str = ""


Findings = AsyncIterator[Finding]


async def compare_clocks(about: str, asked: Awaitable[int]) -> Finding:
    """:param asked: awaitable that returns the other clock's time, in Unix milliseconds"""
    before = clock.now_ms()
    remote = await asked
    after = clock.now_ms()
    off = remote - (before + after) // 2
    off = 0 if before <= remote <= after else off
    if abs(off) > CLOCK_MS:
        return Finding(
            "wrong", f"{about} clock", f"is {abs(off)} ms {'ahead of' if off > 0 else 'behind'} this machine's", "synchronize both (NTP)"
        )
    return Finding("ok", f"{about} clock", f"within {CLOCK_MS} ms of this machine's")


def ending(about: str, end_ms: int, now_ms: int) -> Finding:
    """When a certificate expires, and whether that is soon."""
    days, day = (end_ms - now_ms) // _DAY_MS, datetime.fromtimestamp(end_ms / 1000, UTC).date()
    if end_ms <= now_ms:
        return Finding("wrong", about, f"the certificate expired on {day}", "renew it")
    if days < LATE_DAYS:
        return Finding("wrong", about, f"the certificate expires in {days} days, on {day}", "renew it now")
    return Finding("note" if days < SOON_DAYS else "ok", about, f"the certificate expires on {day}", "renew it" if days < SOON_DAYS else "")
