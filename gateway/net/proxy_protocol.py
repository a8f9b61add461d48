"""The PROXY protocol, versions 1 and 2 (haproxy.org, doc/proxy-protocol.txt): the client address as sent by a trusted load balancer.

The header precedes TLS, so exactly its bytes are read from the accepted socket (:mod:`gateway.net.preamble`).
"""

import asyncio
import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

SIGNATURE_V2 = b"\r\n\r\n\x00\r\nQUIT\n"
MAX_V1 = 107
MAX_V2_PAYLOAD = 4_096
"""Maximum length of addresses and TLVs."""
_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")
_FAMILIES = frozenset({0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32})
"""Address family and transport protocol, as §2.2 defines them; every other value must be rejected."""


class ProxyHeaderError(Exception):
    """Not a PROXY header; the connection must be dropped."""


def parse_v1(line: bytes) -> str | None:
    """The source address, or ``None`` for ``UNKNOWN`` (the connection's own peer is the client).

    :param line: with its CRLF
    :raises ProxyHeaderError:
    """
    if not line.startswith(b"PROXY ") or not line.endswith(b"\r\n") or len(line) > MAX_V1:
        raise ProxyHeaderError("not a version 1 line")
    family, *rest = line[6:-2].split(b" ")
    if family == b"UNKNOWN":
        return None
    if family not in (b"TCP4", b"TCP6") or len(rest) != 4:
        raise ProxyHeaderError("not TCP4, TCP6 or UNKNOWN with two addresses and two ports")
    try:
        source, destination = (ip_address(address.decode("ascii")) for address in rest[:2])
    except ValueError:
        raise ProxyHeaderError("not an address") from None
    if source.version != (4 if family == b"TCP4" else 6) or destination.version != source.version:
        raise ProxyHeaderError("address of another family")
    if not all(_PORT.fullmatch(port) and int(port) <= 65535 for port in rest[2:]):
        raise ProxyHeaderError("not a port")
    return str(source)


def v2_payload_length(header: bytes) -> int:
    """The number of bytes after the fixed 16.

    :raises ProxyHeaderError:
    """
    if len(header) != 16 or not header.startswith(SIGNATURE_V2) or header[12] not in (0x20, 0x21):
        raise ProxyHeaderError("not a version 2 header")
    length = int.from_bytes(header[14:16], "big")
    if length > MAX_V2_PAYLOAD:
        raise ProxyHeaderError("header too long")
    return length


def parse_v2(header: bytes, payload: bytes) -> str | None:
    """The source address, or ``None`` for ``LOCAL`` (the balancer's own health check) and for families without an IP address.

    :param header: the fixed 16 bytes, accepted by :func:`v2_payload_length`
    :raises ProxyHeaderError:
    """
    if header[12] == 0x20:
        return None
    if header[13] not in _FAMILIES:
        raise ProxyHeaderError("an undefined family or protocol")
    family = header[13] >> 4
    if family == 1 and len(payload) >= 12:
        return str(IPv4Address(payload[:4]))
    if family == 2 and len(payload) >= 36:
        return str(IPv6Address(payload[:16]))
    if family in (0, 3):
        return None
    raise ProxyHeaderError("no room for the addresses it announces")


async def read_source(sock: socket.socket) -> str | None:
    """Read exactly one header.

    :return: see :func:`parse_v1`
    :raises ProxyHeaderError: it is not a PROXY header, or the connection ended
    """
    start = await _exactly(sock, 12)  # the shortest version 1 line is longer than that
    if start == SIGNATURE_V2:
        header = start + await _exactly(sock, 4)
        return parse_v2(header, await _exactly(sock, v2_payload_length(header)))
    if not start.startswith(b"PROXY "):
        raise ProxyHeaderError("no PROXY header")
    line = start
    while not line.endswith(b"\n") and len(line) < MAX_V1:
        try:
            ahead = sock.recv(MAX_V1 - len(line), socket.MSG_PEEK)
        except BlockingIOError:
            ahead = b""
        line += await _exactly(sock, ahead.find(b"\n") + 1 or len(ahead) or 1)
    return parse_v1(line)


async def _exactly(sock: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < count:
        piece = await loop.sock_recv(sock, count - len(data))
        if not piece:
            raise ProxyHeaderError("the connection ended inside the header")
        data += piece
    return data
