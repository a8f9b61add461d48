"""Listening sockets, bound by the parent process: one per worker on the same address."""

import socket

from gateway.config.values import Address
from gateway.errors import ConfigError, ConfigProblem

BACKLOG = 4_096
"""Backlog per worker; also limited by the kernel's ``somaxconn``."""


def listen(address: Address, *, where: str, count: int = 1) -> list[socket.socket]:
    """Bind and listen; the kernel spreads connections over the sockets (``SO_REUSEPORT``).

    The first socket binds without sharing the port, so that it fails if the port is in use, even by another gateway; then the port is
    shared with the others.

    :param where: the setting that names the address
    :raises ConfigError: the address cannot be listened on; says why
    """
    sockets: list[socket.socket] = []
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        for number in range(count):
            listening = socket.socket(family, kind, protocol)
            sockets.append(listening)
            listening.setblocking(False)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if number > 0:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                target = sockets[0].getsockname()
            listening.bind(target)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listening.listen(BACKLOG)
    except OSError as error:
        for opened in sockets:
            opened.close()
        raise ConfigError([ConfigProblem(where, f"cannot listen on {address}: {error.strerror or error}")]) from None
    return sockets
