"""How many of something each client has: names that have none are forgotten."""


class Tally:
    """See the module. In as much memory as there are things that are counted."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        """By name; none is 0."""
        self.total = 0

    def of(self, name: str) -> int:
        """How many this name has."""
        return self.counts.get(name, 0)

    def add(self, name: str) -> None:
        """One more."""
        self.counts[name] = self.counts.get(name, 0) + 1
        self.total += 1

    def remove(self, name: str) -> None:
        """One less of those that were added.

        :raises KeyError: it has none
        """
        left = self.counts[name] - 1
        self.total -= 1
        if left:
            self.counts[name] = left
        else:
            del self.counts[name]
