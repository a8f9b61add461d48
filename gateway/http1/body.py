"""Buffers a request body until it is complete, within its limit and a share of the memory for all bodies. Pure."""

from typing import Final

from gateway.errors import BodyTooLarge, Overloaded

SHARES: Final = 8
"""No owner of content holds more than one part in so many of the memory for it."""
UNVERIFIED: Final = "unverified"
"""The owner of all content sent with keys that do not exist: half of the memory, so that the other half is left to customers."""


class Memory:
    """Bytes that all content being collected by a worker may take together, and each of its owners a share of them.

    An owner is a client's address, an account or :data:`UNVERIFIED`; one that holds nothing is not remembered.
    """

    __slots__ = ("_half", "_held", "_share", "left", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.left = size
        self._share = size // SHARES
        self._half = size // 2
        self._held: dict[str, int] = {}

    def take(self, size: int, owners: tuple[str, ...]) -> None:
        """:raises Overloaded: there is not so much left, in all or for one of the owners"""
        if size > self.left:
            raise Overloaded("too many request bodies are being received; try again", close=True, resource="body_memory")
        held = self._held
        for owner in owners:
            if held.get(owner, 0) + size > (self._half if owner == UNVERIFIED else self._share):
                detail = "too many request bodies are being received from this client; send fewer at a time"
                raise Overloaded(detail, close=True, resource="body_memory_share")
        self.left -= size
        for owner in owners:
            held[owner] = held.get(owner, 0) + size

    def give(self, size: int, owners: tuple[str, ...]) -> None:
        """Back what was taken."""
        self.left += size
        for owner in owners:
            rest = self._held.get(owner, 0) - size
            if rest > 0:
                self._held[owner] = rest
            else:
                self._held.pop(owner, None)


class BodyBuffer:
    """Content held until it is whole, and counted in any case.

    :param limit: bytes at most
    :param announced: what the framing says: a length, or a negative number when it is not known beforehand
    :param owners: whose shares of the memory it takes
    :raises BodyTooLarge: more is announced than may come
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
        """:raises BodyTooLarge: more has come than may
        :raises Overloaded: there is no memory for it at this moment
        """
        self._size += len(data)
        self._check(self._size)
        if keep:
            self._memory.take(len(data), self._owners)
            self._held += len(data)
            self._pieces.append(data)

    def whole(self) -> bytes:
        """All that was kept. It is not kept any longer."""
        pieces, self._pieces = self._pieces, []
        held, self._held = self._held, 0
        self._memory.give(held, self._owners)
        return b"".join(pieces)

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise BodyTooLarge(f"the body exceeds {self._limit} bytes", close=True, extras={"limit": self._limit})
