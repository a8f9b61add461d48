"""A position in the change feed: a PostgreSQL transaction snapshot. Pure.

Transactions are numbered at their first write and may commit in any order. The textual form is PostgreSQL's own (``pg_snapshot``,
PostgreSQL 18, §8.20 and §9.27): ``xmin:xmax:xip,xip…``. Every transaction below ``xmin`` has ended, none from ``xmax`` on is visible,
and those listed were in progress.
"""

from functools import lru_cache
from typing import NamedTuple


class Snapshot(NamedTuple):
    """See the module."""

    text: str
    xmin: int
    xmax: int
    under_way: frozenset[int]

    def sees(self, xid: int) -> bool:
        """Whether this transaction's writes are visible to this snapshot."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.under_way)


@lru_cache(maxsize=1_024)
def parse_snapshot(text: str) -> Snapshot:
    """Parse PostgreSQL's textual form.

    :raises ValueError: not a snapshot
    """
    low, high, under_way = text.split(":")
    xmin, xmax = int(low), int(high)
    if not 0 < xmin <= xmax:
        raise ValueError("not a snapshot")
    return Snapshot(text, xmin, xmax, frozenset(map(int, under_way.split(","))) if under_way else frozenset())


BEGINNING = parse_snapshot("3:3:")
"""Before the first transaction of a database (3 is PostgreSQL's FirstNormalTransactionId)."""
