"""What a client connection has received and not looked at yet, whose memory that takes, and whether more is read.

Bytes wait for two reasons: the request before them has no answer yet, or their client has proven nothing and it is not its turn
(:mod:`gateway.server.rounds`). Who waits for a turn with little is still read: most clients send nothing until they have their answer, and
to stop and go on reading costs two system calls.
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

    __slots__ = ("_charged", "_memory", "_rounds", "_stopped", "_transport", "data", "owner", "paused", "proven", "waits")

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
        self._stopped = False
        """Whether the transport is not read."""

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
        """Do this, which begins with :meth:`turned` and ends with :meth:`follow`, when it is its turn."""
        self.waits = True
        self.follow()
        self._rounds.wait(self.owner, item)

    def turned(self) -> None:
        """It is its turn."""
        self.waits = False

    # -- orders

    def pause(self) -> None:
        """Read no more."""
        self.paused = True
        self.follow()

    def resume(self) -> None:
        """Read on, unless it has enough to wait for a turn with."""
        self.paused = False
        self.follow()

    def follow(self) -> None:
        """Read or do not, by what has come and what has been asked since."""
        stop = self.paused or (self.waits and len(self.data) > FREE_BACKLOG)
        if stop is self._stopped or self._transport.is_closing():
            return
        self._stopped = stop
        if stop:
            self._transport.pause_reading()
        else:
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
