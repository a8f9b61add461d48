"""A bounded cache of parsed heads and lines: most of a connection's requests repeat them.

Each memo belongs to the module that uses it. A key is a complete unit including its terminator, or one that was split at its
terminator, so that no key is a prefix of other input.
"""

from typing import Final, TypeVar

LINES: Final = 1_024
"""Maximum entries of a memo of lines."""
LINE_BYTES: Final = 160
"""Longer lines are not cached: they rarely repeat."""

Key = TypeVar("Key")
Value = TypeVar("Value")


def remember(memo: dict[Key, Value], key: Key, value: Value, entries: int = LINES) -> None:
    """Store ``value``; a full memo is cleared first.

    :param entries: maximum size of the memo
    """
    if len(memo) >= entries:
        memo.clear()
    memo[key] = value
