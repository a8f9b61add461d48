"""What a client connection has received and not looked at yet, whose memory that takes, and whether more is read.

Bytes wait for two reasons: the request before them has no answer yet, or their client has proven nothing and it is not its turn
(:mod:`gateway.server.rounds`). The transport is read when there is neither a turn to wait for nor an order to pause.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from gateway.errors import Overloaded
from gateway.http1.body import Memory
from gateway.server.rounds import Rounds

FREE_BACKLOG: Final = 4_096
"""Bytes held for a connection that nobody accounts for; more than that takes its client's share of the memory for contents."""


class Intake:
    """See the module."""

    __slots__ = ("_charged", "_memory", "_rounds", "_transport", "data", "owner", "paused", "proven", "waits")

    def __init__(self, memory: Memory, rounds: Rounds) -> None:
        self._memory = memory
        self._rounds = rounds
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.data = b""
        self._charged = 0
        """Bytes of it that are taken from the memory for contents."""
        self.owner = ""
        """With whom it shares turns and memory: an address, or a connection of many clients."""
        self.paused = False
        """Whether its user wants no more for now."""
        self.proven = False
        """Whether the last request was admitted for a key: its client need not wait for turns."""
        self.waits = False
        """Whether it waits for a turn."""

    def open(self, transport: asyncio.Transport, owner: str) -> None:
        """Begin to receive from this transport."""
        self._transport = transport
        self.owner = owner

    # -- turns

    def has_turn(self, size: int = 0) -> bool:
        """Whether its bytes may be looked at now. If not: :meth:`wait`.

        :param size: bytes that have just been read
        """
        return self.proven or self._rounds.take(size)

    def wait(self, item: Callable[[], None]) -> None:
        """Do this, which ends with :meth:`turned`, when it is its turn; nothing is read until then."""
        self.waits = True
        if not self.paused and not self._transport.is_closing():
            self._transport.pause_reading()
        self._rounds.wait(self.owner, item)

    def turned(self) -> None:
        """It is its turn; read again."""
        self.waits = False
        if not self.paused and not self._transport.is_closing():
            self._transport.resume_reading()

    # -- orders

    def pause(self) -> None:
        """Read no more."""
        if not self.paused and not self._transport.is_closing():
            self.paused = True
            if not self.waits:
                self._transport.pause_reading()

    def resume(self) -> None:
        """Read on, at the latest when it is its turn."""
        if self.paused and not self._transport.is_closing():
            self.paused = False
            if not self.waits:
                self._transport.resume_reading()

    # -- bytes

    def charge(self) -> bool:
        """Take what is held from its owner's share of the memory. ``False``: there is none left."""
        size = len(self.data)
        if self._charged:
            self._memory.give(self._charged, (self.owner,))
            self._charged = 0
        if size > FREE_BACKLOG:
            try:
                self._memory.take(size, (self.owner,))
                self._charged = size
            except Overloaded:
                return False
        return True

    def take(self, most: int = 0) -> bytes:
        """Everything that is held, or no more than this many bytes of it."""
        data = self.data
        if most:
            self.data = data[most:]
            data = data[:most]
        else:
            self.data = b""
        if self._charged:
            self.charge()
        return data

    def drop(self) -> None:
        """Forget what is held."""
        self.data = b""
        if self._charged:
            self.charge()
