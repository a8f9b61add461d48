"""A counter for each owner (:func:`gateway.net.addresses.owners`) that forgets owners at zero."""

from typing import Final

Owners = tuple[str, ...]
"""The site of an IPv6 client, and its network; or one name alone."""


class Tally:
    """See the module. Memory is proportional to the total count."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        """Counts by name; never 0."""
        self.total = 0

    def add(self, owners: Owners) -> None:
        """One more, of each of them."""
        counts = self.counts
        for owner in owners:
            counts[owner] = counts.get(owner, 0) + 1
        self.total += 1

    def remove(self, owners: Owners) -> None:
        """Decrement the count of each of them.

        :raises KeyError: its count is 0
        """
        counts = self.counts
        for owner in owners:
            left = counts[owner] - 1
            if left:
                counts[owner] = left
            else:
                del counts[owner]
        self.total -= 1

    def room(self, owners: Owners, of_one: int, of_site: int, more: "Tally | None" = None) -> int:
        """How many more they may have; negative when they have too many.

        :param of_one: the most of a network
        :param of_site: the most of a site (:func:`gateway.net.addresses.most_of_site`)
        :param more: what they have besides
        """
        room = of_one - self.counts.get(owners[-1], 0) - (0 if more is None else more.counts.get(owners[-1], 0))
        if len(owners) == 1:
            return room
        return min(room, of_site - self.counts.get(owners[0], 0) - (0 if more is None else more.counts.get(owners[0], 0)))


NONE: Final = Tally()
"""Of nothing; nothing may be added."""
