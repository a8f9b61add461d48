"""A bounded cache of parsed heads and lines: most of a connection's requests repeat them.

Each memo belongs to the module that reads with it. A key is a whole unit together with what ends it, or one that was cut at such an end:
no key may be the beginning of other bytes (a head without its empty line was taken for one, once).
"""

from typing import Final, TypeVar

LINES: Final = 1_024
"""Entries of a memo of lines."""
LINE_BYTES: Final = 160
"""Longer lines are not remembered: they are rarely the same twice."""

Key = TypeVar("Key")
Value = TypeVar("Value")


def remember(memo: dict[Key, Value], key: Key, value: Value, entries: int = LINES) -> None:
    """Keep ``value``; a full memo starts anew.

    :param entries: how many the memo may have
    """
    if len(memo) >= entries:
        memo.clear()
    memo[key] = value
