"""The interfaces between an exchange, its client connection, and a tunnel that takes the connection over."""

from abc import ABC, abstractmethod
from typing import Protocol

from gateway.server.client_lines import ClientLines


class Upgraded(Protocol):
    """Receives a connection's bytes after it has switched to another protocol."""

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
        """Append data to what is being sent."""

    @abstractmethod
    def needs_own_turn(self) -> bool:
        """Whether the connection is shared and the last request on it was not admitted with a key."""

    @abstractmethod
    def finish(self, keep_alive: bool, authenticated: bool) -> None:
        """End the exchange, which has been answered completely.

        :param authenticated: whether it was admitted with a key
        """

    @abstractmethod
    def upgrade(self, upgraded: Upgraded) -> None:
        """Hand over the connection's bytes, including those already received."""

    @abstractmethod
    def set_authenticated(self, authenticated: bool) -> None:
        """Note whether the last message on an upgraded connection was admitted with a key: then the next is processed at once."""

    @abstractmethod
    def close(self) -> None:
        """Close once everything is written, lingering so that the client can read it."""

    @abstractmethod
    def abort(self) -> None:
        """Drop it."""

    @abstractmethod
    def pause_reading(self) -> None:
        """Stop reading from the client."""

    @abstractmethod
    def resume_reading(self) -> None:
        """Read on."""

    @abstractmethod
    def pause_content(self) -> None:
        """The upstream reads the content more slowly than it arrives; the time does not count against the client."""

    @abstractmethod
    def resume_content(self) -> None:
        """The upstream reads content again."""
