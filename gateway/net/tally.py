"""A counter per name that forgets names at zero."""


class Tally:
    """See the module. Memory is proportional to the total count."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        """Counts by name; never 0."""
        self.total = 0

    def of(self, name: str) -> int:
        """The count of a name."""
        return self.counts.get(name, 0)

    def add(self, name: str) -> None:
        """One more."""
        self.counts[name] = self.counts.get(name, 0) + 1
        self.total += 1

    def remove(self, name: str) -> None:
        """Decrement a name's count.

        :raises KeyError: its count is 0
        """
        left = self.counts[name] - 1
        self.total -= 1
        if left:
            self.counts[name] = left
        else:
            del self.counts[name]
