"""The interfaces between the modules of the upstream side, and the interface of the receiver of a response.

Each class declares only what its user needs, so that connections do not depend on calls, nor calls on exchanges, and imports are not
circular: ``call → pool → upstream_server → connection →`` these.
"""

from abc import ABC, abstractmethod
from typing import Protocol

from gateway.errors import Refusal
from gateway.http1.response import ResponseHead


class TunnelEnd(Protocol):
    """Receives the bytes of an upstream connection that has become a tunnel."""

    def upstream_data(self, data: bytes) -> None: ...
    def upstream_closed(self) -> None: ...
    def upstream_full(self) -> None: ...
    def upstream_drained(self) -> None: ...


class UpstreamEnd(ABC):
    """A connection to an upstream, as calls and tunnels use it."""

    __slots__ = ("tunnel",)

    tunnel: TunnelEnd | None
    """Set by the tunnel when it takes the connection over."""

    @abstractmethod
    def begin(self, waiter: "Waiter", request: bytes) -> None:
        """Send a request and await its response."""

    @abstractmethod
    def write(self, piece: bytes) -> None:
        """Send more of a streamed request, or of a tunnel."""

    @abstractmethod
    def pause(self) -> None:
        """Stop reading, because the client reads more slowly than the server sends; the server's time limit is suspended."""

    @abstractmethod
    def resume(self) -> None:
        """Read on."""

    @abstractmethod
    def close(self) -> None:
        """Close once everything is written."""

    @abstractmethod
    def abandon(self) -> None:
        """Close it at once: the exchange in progress is no longer needed."""


class Receiver(ABC):
    """Receives a response. Called synchronously by the upstream connection, in this order: head, data…, end; or failed; or broken."""

    __slots__ = ("authenticated",)

    authenticated: bool
    """Whether its request was admitted with a key."""

    @abstractmethod
    def response_interim(self, head: ResponseHead) -> None:
        """A 1xx head, before the final one."""

    @abstractmethod
    def response_head(self, head: ResponseHead) -> None:
        """The final head."""

    @abstractmethod
    def response_data(self, data: bytes) -> None:
        """The content of one network read, coding removed; ``b""`` if it brought the head alone. More will follow."""

    @abstractmethod
    def response_end(self, last: bytes) -> None:
        """The response is complete.

        :param last: the last of its content; ``b""`` if all of it was handed over before
        """

    @abstractmethod
    def response_switched(self, head: ResponseHead, connection: UpstreamEnd, rest: bytes) -> None:
        """A 101: the receiver takes over the connection, and the bytes received behind the head."""

    @abstractmethod
    def response_failed(self, refusal: Refusal) -> None:
        """There is no response, and nothing was handed over."""

    @abstractmethod
    def response_broken(self) -> None:
        """The response ended prematurely."""

    @abstractmethod
    def request_due(self) -> bool:
        """Whether a request that has waited for a connection may still be sent. If not, it is started again once it may, or cancelled."""

    @abstractmethod
    def request_pause(self) -> None:
        """Pause the request's content: the server reads it more slowly than it arrives."""

    @abstractmethod
    def request_resume(self) -> None:
        """Resume the request's content."""


class Waiter(ABC):
    """A request that waits for a connection, then for its response: a call, as servers and connections use it."""

    __slots__ = ("cancelled", "client", "head_only", "held", "last", "receiver", "sent_at", "upgrade", "waiting_until_ms", "whole")

    cancelled: bool
    client: str
    """The client IP, as determined by the gate."""
    head_only: bool
    held: bool
    """Whether it counts against its client's share of connections: see ``fair_queue``."""
    last: bool
    """Whether the connection must be closed after the response."""
    receiver: Receiver
    sent_at: float
    """When it was sent, by :func:`gateway.runtime.clock.stopwatch`."""
    upgrade: bool
    """Whether a 101 is expected."""
    waiting_until_ms: int
    """When it stops waiting for a connection."""
    whole: bool
    """Whether the whole request has been handed over."""

    @abstractmethod
    def send_on(self, connection: UpstreamEnd) -> bool:
        """Use this free connection. ``False``: it is not used, because the request may no longer be sent."""

    @abstractmethod
    def connect_failed(self, reason: str) -> None:
        """No connection to the server could be established, so no byte was sent."""

    @abstractmethod
    def queue_timeout(self) -> None:
        """No connection became free within the limit."""

    @abstractmethod
    def switched(self, head: ResponseHead, connection: UpstreamEnd, rest: bytes) -> None:
        """The connection has become a tunnel."""

    @abstractmethod
    def finished(self, last: bytes) -> None:
        """The response is complete, and the connection released.

        :param last: the last of its content
        """

    @abstractmethod
    def lost(self, reason: str, *, kind: str, reused: bool, head_seen: bool) -> None:
        """The connection was lost, or the response on it cannot be framed.

        :param reused: it was a reused connection, and no byte of the response was received: the server was probably closing it
        """

    @abstractmethod
    def timed_out(self, *, head_seen: bool) -> None:
        """The response did not begin or did not continue within the time limit."""
