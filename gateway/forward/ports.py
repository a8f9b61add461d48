"""The interfaces between the modules of the upstream side, and the interface of the receiver of a response.

Each class names what its user needs and nothing more, so that a connection knows no call, a call no exchange, and no module imports in a
circle: ``call → pool → upstream_server → connection →`` these.
"""

from abc import ABC, abstractmethod
from typing import Protocol

from gateway.errors import Refusal
from gateway.http1.response import ResponseHead


class TunnelEnd(Protocol):
    """What an upstream connection that has become a tunnel hands its bytes to."""

    def upstream_data(self, data: bytes) -> None: ...
    def upstream_closed(self) -> None: ...
    def upstream_full(self) -> None: ...
    def upstream_drained(self) -> None: ...


class UpstreamEnd(ABC):
    """A connection to an upstream, as calls and tunnels use it."""

    __slots__ = ("tunnel",)

    tunnel: TunnelEnd | None
    """Set when the connection has become a tunnel, by its new owner."""

    @abstractmethod
    def begin(self, waiter: "Waiter", request: bytes) -> None:
        """Send a request and await its response."""

    @abstractmethod
    def write(self, piece: bytes) -> None:
        """More of a streamed request, or of a tunnel."""

    @abstractmethod
    def pause(self) -> None:
        """Stop reading: the client reads slower than the server sends, and that is not held against the server."""

    @abstractmethod
    def resume(self) -> None:
        """Read on."""

    @abstractmethod
    def close(self) -> None:
        """Close once everything is written."""

    @abstractmethod
    def abandon(self) -> None:
        """Drop it: what is in progress on it is of no more use."""


class Receiver(ABC):
    """Who asked. Called synchronously from the upstream connection, in this order: head, data…, end; or failed; or broken."""

    __slots__ = ()

    @abstractmethod
    def response_interim(self, head: ResponseHead) -> None:
        """A 1xx head; the final one is still to come."""

    @abstractmethod
    def response_head(self, head: ResponseHead) -> None:
        """The final head."""

    @abstractmethod
    def response_data(self, data: bytes) -> None:
        """Content, coding removed; to be kept until :meth:`response_flush` or :meth:`response_end`."""

    @abstractmethod
    def response_flush(self) -> None:
        """All that one read of the network brought has been handed over, and more is to come."""

    @abstractmethod
    def response_end(self) -> None:
        """The response is whole."""

    @abstractmethod
    def response_switched(self, head: ResponseHead, connection: UpstreamEnd, rest: bytes) -> None:
        """A 101; the connection and what came behind the head are the receiver's from now on."""

    @abstractmethod
    def response_failed(self, refusal: Refusal) -> None:
        """There will be no response; nothing was handed over before."""

    @abstractmethod
    def response_broken(self) -> None:
        """The response ends in its middle."""

    @abstractmethod
    def request_due(self) -> bool:
        """It has waited for a connection: whether it may still be sent. If not, the call is started again once it may, or cancelled."""

    @abstractmethod
    def request_pause(self) -> None:
        """Content of the request is not taken as fast as it comes."""

    @abstractmethod
    def request_resume(self) -> None:
        """It is again."""


class Waiter(ABC):
    """A request that waits for a connection, then for its response: a call, as a server and its connections see it."""

    __slots__ = ("cancelled", "client", "head_only", "held", "last", "receiver", "sent_at", "upgrade", "waiting_until_ms", "whole")

    cancelled: bool
    client: str
    """The address of who asked, as the gate believes it."""
    head_only: bool
    held: bool
    """Whether it counts among the connections that its client holds: see ``fair_queue``."""
    last: bool
    """The connection is closed after its response."""
    receiver: Receiver
    sent_at: float
    """When it was sent, by :func:`gateway.runtime.clock.stopwatch`."""
    upgrade: bool
    """A 101 is an answer that was asked for."""
    waiting_until_ms: int
    """Set when it waits for a connection."""
    whole: bool
    """The request has been handed over to its end."""

    @abstractmethod
    def send_on(self, connection: UpstreamEnd) -> bool:
        """Here is a connection that is free; false when it is not taken, since the request may no longer be sent."""

    @abstractmethod
    def connect_failed(self, reason: str) -> None:
        """No connection to the server could be made, so no byte was sent."""

    @abstractmethod
    def queue_timeout(self) -> None:
        """No connection became free within the limit."""

    @abstractmethod
    def switched(self, head: ResponseHead, connection: UpstreamEnd, rest: bytes) -> None:
        """The connection has become a tunnel."""

    @abstractmethod
    def finished(self) -> None:
        """The response is whole and the connection given back."""

    @abstractmethod
    def lost(self, reason: str, *, kind: str, reused: bool, head_seen: bool) -> None:
        """The connection broke, or the response on it cannot be framed.

        :param reused: it had served before and not a byte of the response came: most likely the server was just closing it
        """

    @abstractmethod
    def timed_out(self, *, head_seen: bool) -> None:
        """The response did not come, or stopped coming, within the limit."""
