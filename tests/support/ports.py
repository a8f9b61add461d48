"""Ports for servers that must be told theirs, and could not be given port 0.

A port that is found free is taken a moment later: by a client, if the kernel gives such ports to clients, or by a server of another pytest
process. So they lie below those that the kernel gives out, each process of a run has rows of its own, and none is handed out twice.
"""

import os
import secrets
import socket

ROW = 20
"""Ports that go together. ``gerbang up`` takes fourteen."""
_FIRST, _ROWS = 12_000, 1_000
_rows: set[int] = set()
"""Handed out by this process."""
_singly: list[int] = []
"""Ports of a row that are handed out one at a time."""


def free_row() -> int:
    """The first of a row of ports that nobody listens on."""
    worker, workers = (int(os.environ.get(f"PYTEST_XDIST_{name}", default).lstrip("gw")) for name, default in _WHICH)
    own = [first for first in range(_FIRST + ROW * worker, _FIRST + ROW * _ROWS, ROW * workers) if first not in _rows]
    while own:
        first = own.pop(secrets.randbelow(len(own)))
        if all(_is_free(port) for port in range(first, first + ROW)):
            _rows.add(first)
            return first
    raise RuntimeError("no free ports")


_WHICH = (("WORKER", "gw0"), ("WORKER_COUNT", "1"))


def free_port() -> int:
    """One port that nobody listens on."""
    while True:
        if not _singly:
            first = free_row()
            _singly.extend(range(first, first + ROW))
        port = _singly.pop()
        if _is_free(port):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
