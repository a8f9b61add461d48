"""Counts in messages."""


def counted(count: int, name: str) -> str:
    """``1 key``, ``2 keys``."""
    return f"{count} {name}" if count == 1 else f"{count} {name}s"
