"""The interface of a delivery channel, and the ways a delivery can fail."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from admin.outbox import LONGEST_DELAY_MS, Pending
from gateway.errors import GerbangError

DAY_MS: Final = 86_400_000
_FIRST_DELAY_MS = 2_000


class NotDelivered(GerbangError):
    """This notice was not accepted; others may be. The message is for the log: no address, no content."""

    give_up_after_ms = DAY_MS
    """From the first attempt."""


class ChannelDown(NotDelivered):
    """The server is unavailable, or accepts nothing at present, so other notices would fail, too."""


class Defective(NotDelivered):
    """A bug in this service prevents this notice from being sent; it must not delay the account's next ones for a day."""

    give_up_after_ms = 300_000


class Undeliverable(GerbangError):
    """There is no destination for this notice, now or later."""


Deliver = Callable[[Pending, int], Awaitable[None]]
"""Sends one notice; takes the current time in Unix milliseconds. Raises NotDelivered or Undeliverable."""


class Route(Protocol):
    """A delivery channel."""

    @property
    def channel(self) -> str:
        """A :class:`~admin.outbox.Channel`, or that of one upstream."""

    def open(self) -> AbstractAsyncContextManager[Deliver]:
        """For consecutive deliveries; several may be open at once."""


def delay_ms(attempts: int) -> int:
    """The delay after a number of failed attempts, at least one: 2 s, 4 s, 8 s, up to an hour."""
    return min(_FIRST_DELAY_MS << min(attempts - 1, 20), LONGEST_DELAY_MS)
