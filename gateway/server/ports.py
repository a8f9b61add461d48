"""The interfaces between an exchange, its client connection, and a tunnel that takes the connection over."""

from abc import ABC, abstractmethod
from typing import Protocol

from gateway.server.client_lines import ClientLines


class Upgraded(Protocol):
    """What a connection hands its bytes to once it speaks another protocol than HTTP."""

    def client_data(self, data: bytes) -> None: ...
    def client_full(self) -> None: ...
    def client_drained(self) -> None: ...
    def client_closed(self) -> None: ...


class ClientEnd(ABC):
    """The client's connection, as an exchange and a tunnel use it."""

    __slots__ = ("lines", "shared")

    lines: ClientLines
    """The field lines that describe the client to an upstream."""
    shared: bool
    """Whether many clients share the connection, as behind a proxy."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Send this behind everything before it."""

    @abstractmethod
    def needs_own_turn(self) -> bool:
        """Whether the connection is shared, and the last request on it was not admitted for a key."""

    @abstractmethod
    def finish(self, *, keep_alive: bool) -> None:
        """The exchange has been answered to its end."""

    @abstractmethod
    def upgrade(self, upgraded: Upgraded) -> None:
        """Hand over everything that comes, and what has come already."""

    @abstractmethod
    def set_authenticated(self, authenticated: bool) -> None:
        """Whether what came last was admitted for a key, of a connection that was handed over: then the next is read at once."""

    @abstractmethod
    def close(self) -> None:
        """Close once everything is written, and in such a way that the client can read it."""

    @abstractmethod
    def abort(self) -> None:
        """Drop it."""

    @abstractmethod
    def pause_reading(self) -> None:
        """Take no more from the client."""

    @abstractmethod
    def resume_reading(self) -> None:
        """Read on."""

    @abstractmethod
    def pause_content(self) -> None:
        """The upstream takes the content slower than it comes; that is not held against the client."""

    @abstractmethod
    def resume_content(self) -> None:
        """It takes content again."""
