"""Lingering close: reads and drops what the client still sends until it has received the last answer (RFC 9112 §9.6).

Closing with unread bytes would reset the connection, and the client could lose the end of that answer.
"""

import asyncio
from typing import Final

from gateway.net.closing import unsent

DROPPED_AT_MOST: Final = 16 << 20
"""Bytes that are read and dropped after the last answer; a client that sends more is reset when the time has passed."""

LINGER: Final = 0
"""The linger is not over: check again later."""
DONE: Final = 1
"""The client has received everything, and had a moment to read it."""
STALLED: Final = 2
"""The client has stopped reading."""


class Lingering:
    """See the module."""

    __slots__ = ("_dropped", "_stalled_ms", "_unsent")

    def __init__(self) -> None:
        self._dropped = 0
        self._unsent = 0
        """Bytes that were unsent at the last check."""
        self._stalled_ms = 0
        """When a client that reads nothing is given up on."""

    def drop(self, size: int) -> bool:
        """Count received bytes. Returns whether more may be read."""
        self._dropped += size
        return self._dropped <= DROPPED_AT_MOST

    def look(self, transport: asyncio.Transport, now_ms: int, idle_timeout_ms: int) -> int:
        """Check the progress: :data:`LINGER`, :data:`DONE` or :data:`STALLED`."""
        before, self._unsent = self._unsent, unsent(transport)
        if self._unsent == before == 0:
            return DONE
        if before == 0 or self._unsent < before:
            self._stalled_ms = now_ms + idle_timeout_ms
            return LINGER
        return LINGER if now_ms < self._stalled_ms else STALLED
