"""The end of a client connection: what the client still sends is read and dropped until it has had the last answer (RFC 9112 §9.6).

To close with bytes unread would reset the connection, and the client would lose the end of that answer.
"""

import asyncio
from typing import Final

from gateway.net.closing import unsent

DROPPED_AT_MOST: Final = 16 << 20
"""Bytes that are read and dropped behind the last answer; who sends more than that is reset when the time has passed."""

LINGER: Final = 0
"""Look again after a while."""
DONE: Final = 1
"""The client has had everything, and a moment to see that it was the last."""
STALLED: Final = 2
"""The client does not read."""


class Lingering:
    """See the module."""

    __slots__ = ("_dropped", "_stalled_ms", "_unsent")

    def __init__(self) -> None:
        self._dropped = 0
        self._unsent = 0
        """Bytes that were unsent when it was looked at last."""
        self._stalled_ms = 0
        """When a client that reads nothing has had time enough."""

    def drop(self, size: int) -> bool:
        """So many bytes have come. Whether more may be read."""
        self._dropped += size
        return self._dropped <= DROPPED_AT_MOST

    def look(self, transport: asyncio.Transport, now_ms: int, idle_timeout_ms: int) -> int:
        """A moment has passed: :data:`LINGER`, :data:`DONE` or :data:`STALLED`."""
        before, self._unsent = self._unsent, unsent(transport)
        if self._unsent == before == 0:
            return DONE
        if before == 0 or self._unsent < before:
            self._stalled_ms = now_ms + idle_timeout_ms
            return LINGER
        return LINGER if now_ms < self._stalled_ms else STALLED
