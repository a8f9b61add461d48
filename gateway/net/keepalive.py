"""TCP keep-alive (RFC 9293 §3.8.4), which detects vanished peers of tunnels and long streams."""

import socket
from typing import Final

IDLE_S: Final = 60
"""Idle time before the first probe; below the idle time-outs of firewalls and load balancers (350 s is the shortest common one)."""
INTERVAL_S: Final = 15
PROBES: Final = 4
UNACKNOWLEDGED_MS: Final = (IDLE_S + PROBES * INTERVAL_S) * 1_000
"""How long sent data may stay unacknowledged (RFC 5482): probes are sent on idle connections only."""


def keep_alive(sock: socket.socket) -> None:
    """Let the kernel close a connection whose peer does not answer for two minutes. Accepted sockets inherit it from a listening one.

    :param sock: anything with ``setsockopt``; Unix sockets are left unchanged
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", IDLE_S), ("TCP_KEEPINTVL", INTERVAL_S), ("TCP_KEEPCNT", PROBES), ("TCP_USER_TIMEOUT", UNACKNOWLEDGED_MS),
    ):  # fmt: skip
        option = getattr(socket, name, None)  # not available on every system
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
