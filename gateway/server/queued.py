"""A session message between its decision and its delivery or refusal, which happen in the order of arrival."""

from collections.abc import Callable

from gateway.admission.driver import Pending
from gateway.admission.outcome import Admitted
from gateway.admission.sessions import LOG_IN, LOG_OUT, Message


class Queued:
    """See the module.

    :param decided: called when what it waited for has come
    """

    __slots__ = ("_decided", "admitted", "error", "known", "message", "pending", "request_id", "size")

    def __init__(self, request_id: str, size: int, decided: Callable[[], None]) -> None:
        self._decided = decided
        self.request_id = request_id
        self.size = size
        self.message: Message | None = None
        """``None`` when it could not be read."""
        self.pending: Pending | None = None
        self.known = False
        """Whether it has been decided: :attr:`admitted` or :attr:`error`."""
        self.admitted: Admitted | None = None
        self.error: BaseException | None = None

    def settled(self, admitted: Admitted | None, error: BaseException | None) -> None:
        """What was awaited has come (``admission.driver.Settled``)."""
        self.admitted, self.error = admitted, error
        self.known, self.pending = True, None
        self._decided()

    @property
    def others_may_follow(self) -> bool:
        """Whether later messages can be decided before this one passes: it does not change which key they are from."""
        message, pending = self.message, self.pending
        if message is not None and message.act in {LOG_IN, LOG_OUT}:
            return False
        return self.known or (pending is not None and pending.claiming)
