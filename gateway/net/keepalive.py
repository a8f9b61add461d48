"""TCP keep-alive (RFC 9293 §3.8.4), which detects vanished peers of tunnels and long streams."""

import socket
from typing import Final

IDLE_S: Final = 60
"""Silence before the first probe; below what firewalls and load balancers forget a connection after (350 s is the shortest common one)."""
INTERVAL_S: Final = 15
PROBES: Final = 4
UNACKNOWLEDGED_MS: Final = (IDLE_S + PROBES * INTERVAL_S) * 1_000
"""How long what was sent may stay unacknowledged: probes are sent on silent connections alone (RFC 5482)."""


def keep_alive(sock: socket.socket) -> None:
    """Let the kernel end a connection whose other end does not answer for two minutes. Set on a listening socket, for all it accepts.

    :param sock: anything with ``setsockopt``; a Unix socket is left alone
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", IDLE_S), ("TCP_KEEPINTVL", INTERVAL_S), ("TCP_KEEPCNT", PROBES), ("TCP_USER_TIMEOUT", UNACKNOWLEDGED_MS),
    ):  # fmt: skip
        option = getattr(socket, name, None)  # not every system has each
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
