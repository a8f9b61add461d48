"""Closing of TCP connections: bytes not yet acknowledged, and an abortive close (RST) that the peer cannot mistake for a normal one."""

import asyncio
import fcntl
import socket
import struct
import sys
import termios

_RESET = struct.pack("ii", 1, 0)
"""For ``SO_LINGER``: closing resets the connection (RST) instead of ending it."""


def unsent(transport: asyncio.Transport) -> int:
    """Bytes buffered here or in the kernel that the peer's kernel has not acknowledged. 0 if the socket is closed."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return 0
    try:
        in_kernel = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):  # it is closed
        return 0
    return transport.get_write_buffer_size() + int.from_bytes(in_kernel, sys.byteorder)


def reset(transport: asyncio.Transport) -> None:
    """Abort the connection (RST): a normal close would complete an answer that is delimited by the end of the connection."""
    connected: socket.socket | None = transport.get_extra_info("socket")
    if connected is not None and connected.family in (socket.AF_INET, socket.AF_INET6):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()
