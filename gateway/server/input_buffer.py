"""The unprocessed input of a client connection: buffering, memory accounting, and when reading is paused.

Bytes wait for two reasons: the request before them is not answered yet, or their client is not authenticated and it is not its turn
(:mod:`gateway.server.fair_scheduler`). A connection that waits for a turn with few bytes is still read: most clients send nothing until
they have their answer, and to stop and resume reading costs two system calls.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from gateway.errors import Overloaded
from gateway.http1.body import Memory
from gateway.net.tally import Owners
from gateway.server.fair_scheduler import FairScheduler

FREE_BACKLOG: Final = 4_096
"""Bytes buffered for a connection without being charged; more than that is charged to its client's share of the memory for contents."""


class InputBuffer:
    """See the module."""

    __slots__ = (
        "_charged", "_memory", "_payers", "_scheduler", "_stopped", "_transport", "authenticated", "data", "owners", "paused", "waiting",
    )  # fmt: skip

    def __init__(self, memory: Memory, scheduler: FairScheduler) -> None:
        self._memory = memory
        self._scheduler = scheduler
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.data = b""
        self._charged = 0
        """Bytes of the buffer that are charged to the memory for contents."""
        self.owners: Owners = ("",)
        """The owners of its turns and memory: the client's, or the connection itself when many clients share it."""
        self._payers: Owners = ("",)
        """Those that the buffer is charged to."""
        self.paused = False
        """Whether reading is paused by :meth:`pause`."""
        self.authenticated = False
        """Whether the last request was admitted with a key: such a client does not wait for turns."""
        self.waiting = False
        """Whether it waits for a turn."""
        self._stopped = False
        """Whether the transport's reading is paused."""

    def open(self, transport: asyncio.Transport, owners: Owners) -> None:
        """Begin to receive from this transport."""
        self._transport = transport
        self.owners = owners

    # -- turns

    def may_process(self, size: int = 0) -> bool:
        """Whether its bytes may be processed now. If not, call :meth:`wait_turn`.

        :param size: bytes that have just been read
        """
        return self.authenticated or self._scheduler.may_run(size)

    def wait_turn(self, item: Callable[[], None]) -> None:
        """Schedule an item, which must begin with :meth:`turn_came` and end with :meth:`update_reading`."""
        self.waiting = True
        self.update_reading()
        self._scheduler.schedule(self.owners, item)

    def turn_came(self) -> None:
        """Note that the scheduled turn has come."""
        self.waiting = False

    # -- reading

    def pause(self) -> None:
        """Read no more."""
        self.paused = True
        self.update_reading()

    def resume(self) -> None:
        """Continue reading, unless enough is buffered while it waits for a turn."""
        self.paused = False
        self.update_reading()

    def update_reading(self) -> None:
        """Pause or resume reading, as the buffer and :meth:`pause` require."""
        stop = self.paused or (self.waiting and len(self.data) > FREE_BACKLOG)
        if stop is self._stopped or self._transport.is_closing():
            return
        self._stopped = stop
        if stop:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # -- bytes

    def charge(self) -> bool:
        """Charge the buffer to its owners' shares of the memory. ``False``: one of them is used up.

        An authenticated client pays for itself: what others of its site send must not cost it the connection.
        """
        size = len(self.data)
        if self._charged:
            self._memory.give(self._charged, self._payers)
            self._charged = 0
        if size > FREE_BACKLOG:
            self._payers = self.owners[-1:] if self.authenticated else self.owners
            try:
                self._memory.take(size, self._payers)
                self._charged = size
            except Overloaded:
                return False
        return True

    def take(self, most: int = 0) -> bytes:
        """Remove and return the buffered bytes; at most ``most`` of them unless 0."""
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
        """Discard the buffer."""
        self.data = b""
        if self._charged:
            self.charge()
