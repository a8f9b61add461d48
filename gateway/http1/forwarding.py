"""The ``Via`` and ``Max-Forwards`` fields (RFC 9110 §7.6). Pure."""

from collections.abc import Sequence
from typing import Final

from gateway.errors import MalformedRequest
from gateway.http1.framing import Field

VIA: Final = b"via: 1.1 gerbang\r\n"
VIA_HTTP10: Final = b"via: 1.0 gerbang\r\n"
"""The field line for requests received in each version (RFC 9110 §7.6.3), sent after the lines of earlier proxies."""


def hops_left(fields: Sequence[Field]) -> int | None:
    """How often an OPTIONS request may still be forwarded (RFC 9110 §7.6.2); ``None``: no limit is given.

    :raises MalformedRequest: the field is repeated or not a number
    """
    values = [value for name, value in fields if name == b"max-forwards"]
    if not values:
        return None
    if len(values) > 1 or not values[0].isdigit() or len(values[0]) > 9:
        raise MalformedRequest("Max-Forwards must be given once, in digits")
    return int(values[0])


def one_hop_less(fields: Sequence[Field], hops: int) -> list[Field]:
    """The fields to forward, with ``Max-Forwards`` decremented from ``hops``."""
    return [(name, b"%d" % (hops - 1) if name == b"max-forwards" else value) for name, value in fields]
