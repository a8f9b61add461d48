"""The queue of a session's messages: those awaiting a decision, and those decided, delivered or refused in order of arrival."""

from collections import deque
from collections.abc import Callable
from typing import Final

from gateway.admission.driver import Pending
from gateway.admission.outcome import Admitted
from gateway.admission.sessions import LOG_IN, LOG_OUT, Message

MAX_WAITING: Final = 64
"""Messages that may wait behind the first, decided or not."""


class Queued:
    """A message whose decision has begun.

    :param decided: called when the look-up or claim that the message waited for has finished
    """

    __slots__ = ("_decided", "admitted", "error", "known", "message", "pending", "request_id", "size")

    def __init__(self, request_id: str, size: int, decided: Callable[[], None]) -> None:
        self._decided = decided
        self.request_id = request_id
        self.size = size
        self.message: Message | None = None
        """``None`` when it could not be parsed."""
        self.pending: Pending | None = None
        self.known = False
        """Whether it has been decided: :attr:`admitted` or :attr:`error`."""
        self.admitted: Admitted | None = None
        self.error: BaseException | None = None

    def settled(self, admitted: Admitted | None, error: BaseException | None) -> None:
        """The look-up or claim has finished (``admission.driver.Settled``)."""
        self.admitted, self.error = admitted, error
        self.known, self.pending = True, None
        self._decided()

    @property
    def others_may_follow(self) -> bool:
        """Whether later messages can be decided before this one passes, because it does not change the session's key."""
        message, pending = self.message, self.pending
        if message is not None and message.act in {LOG_IN, LOG_OUT}:
            return False
        return self.known or (pending is not None and pending.claiming)


class MessageQueue:
    """The messages waiting in one session, in two parts: those whose decision has begun, then those as received."""

    __slots__ = ("_begun", "_bytes", "_undecided")

    def __init__(self) -> None:
        self._begun: deque[Queued] | None = None  # neither is created before it is needed: most sessions never queue
        self._undecided: deque[bytes] | None = None
        self._bytes = 0

    @property
    def undecided(self) -> int:
        """Number of messages whose decision has not begun."""
        return len(self._undecided) if self._undecided is not None else 0

    @property
    def begun(self) -> int:
        """Number of messages whose decision has begun."""
        return len(self._begun) if self._begun is not None else 0

    def may_decide(self) -> bool:
        """Whether the decision of the next message may begin."""
        begun = self._begun
        return not begun or (len(begun) <= MAX_WAITING and begun[-1].others_may_follow)

    def is_full(self, max_message_bytes: int) -> bool:
        """Whether the client must not be read."""
        count = self.begun + self.undecided
        return count > MAX_WAITING or (count > 0 and self._bytes >= 4 * max_message_bytes)

    def receive(self, text: bytes) -> None:
        """Append a message as received."""
        if self._undecided is None:
            self._undecided = deque()
        self._undecided.append(text)
        self._bytes += len(text)

    def take(self) -> bytes:
        """Remove and return the next message as received.

        :raises IndexError: there is none
        """
        text = self._undecided.popleft() if self._undecided is not None else b""
        self._bytes -= len(text)
        return text

    def append(self, message: Queued) -> None:
        """Append a message whose decision has begun."""
        if self._begun is None:
            self._begun = deque()
        self._begun.append(message)
        self._bytes += message.size

    def first(self) -> Queued | None:
        """The message to be delivered or refused next, once it has been decided."""
        return self._begun[0] if self._begun else None

    def remove_first(self) -> None:
        """Remove it."""
        if self._begun:
            self._bytes -= self._begun.popleft().size

    def cancel(self) -> None:
        """Drop everything, and cancel the look-ups and claims in progress."""
        begun, self._begun, self._undecided = self._begun, None, None
        for message in begun or ():
            if message.pending is not None:
                message.pending.cancel()
