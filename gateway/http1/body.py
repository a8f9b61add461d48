"""Buffers a request body until it is complete, within its limit and its owner's share of the memory for all bodies. Pure."""

from collections.abc import Callable
from typing import Final

from gateway.errors import BodyTooLarge, Overloaded

SHARES: Final = 8
"""An owner may use at most this fraction (one in so many) of the memory."""
UNVERIFIED: Final = "unverified"
"""The owner of all content sent with unknown keys, limited to half of the memory, so that the other half is left for customers."""


class Memory:
    """The memory for all content that a worker is receiving, with a maximum share for each owner.

    An owner is a client's network, its site, an account or :data:`UNVERIFIED`; owners without content are not stored.

    :param of_site: what an owner may use that ``is_site``; default: as much as others
    """

    __slots__ = ("_held", "_is_site", "_of_site", "_share", "left", "size")

    def __init__(self, size: int, of_site: int = 0, is_site: Callable[[str], bool] = lambda _owner: False) -> None:
        self.size = size
        self.left = size
        self._share = size // SHARES
        self._of_site = of_site
        self._is_site = is_site
        self._held: dict[str, int] = {}

    def take(self, size: int, owners: tuple[str, ...]) -> None:
        """:raises Overloaded: there is not enough left, in total or for one of the owners"""
        if size > self.left:
            raise Overloaded("too many request bodies are being received; try again", close=True, resource="body_memory")
        held = self._held
        for owner in owners:
            total = held.get(owner, 0) + size
            if total > self._share and total > self._most(owner):
                detail = "too many request bodies are being received from this client; send fewer at a time"
                raise Overloaded(detail, close=True, resource="body_memory_share")
        self.left -= size
        for owner in owners:
            held[owner] = held.get(owner, 0) + size

    def _most(self, owner: str) -> int:
        """What an owner may use that needs more than a share."""
        if owner == UNVERIFIED:
            return self.size // 2
        return self._of_site if self._is_site(owner) else self._share

    def give(self, size: int, owners: tuple[str, ...]) -> None:
        """Release memory."""
        self.left += size
        for owner in owners:
            rest = self._held.get(owner, 0) - size
            if rest > 0:
                self._held[owner] = rest
            else:
                self._held.pop(owner, None)


class BodyBuffer:
    """Content that is counted and, unless streamed, buffered until it is complete.

    :param limit: maximum size in bytes
    :param announced: the length per the framing; negative: not known in advance
    :param owners: the owners that the memory is charged to
    :raises BodyTooLarge: the announced length exceeds the limit
    """

    __slots__ = ("_held", "_limit", "_memory", "_owners", "_pieces", "_size")

    def __init__(self, limit: int, announced: int, memory: Memory, owners: tuple[str, ...] = ()) -> None:
        self._limit = limit
        self._memory = memory
        self._owners = owners
        self._pieces: list[bytes] = []
        self._size = self._held = 0
        self._check(announced)

    def add(self, data: bytes, *, keep: bool) -> None:
        """:raises BodyTooLarge: the content exceeds the limit
        :raises Overloaded: there is not enough memory at present
        """
        self._size += len(data)
        self._check(self._size)
        if keep:
            self._memory.take(len(data), self._owners)
            self._held += len(data)
            self._pieces.append(data)

    def whole(self) -> bytes:
        """Remove and return the buffered content."""
        pieces, self._pieces = self._pieces, []
        held, self._held = self._held, 0
        self._memory.give(held, self._owners)
        return b"".join(pieces)

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise BodyTooLarge(f"the body exceeds {self._limit} bytes", close=True, extras={"limit": self._limit})
