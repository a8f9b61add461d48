"""Cross-origin resource sharing (WHATWG Fetch §3.2): preflight requests and response headers. Pure.

Credentials are header fields that a page sets itself, never cookies, so ``Access-Control-Allow-Credentials`` is not sent.
"""

import re
from collections.abc import Iterable
from typing import Final

from gateway.http1.message import Answer, Request

MAX_AGE_S: Final = 7_200
"""How long a browser may cache the answer to a preflight; Chromium's maximum."""
REPLACED: Final = frozenset({b"access-control-allow-origin", b"access-control-allow-credentials", b"access-control-expose-headers"})
"""Fields of a service's response that the gate's own replace."""
_EXPOSED: Final = (
    b"RateLimit, RateLimit-Policy, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, Retry-After, Allow, Gerbang-Key-Expires, "
    b"X-MBX-USED-WEIGHT-1M, X-MBX-ORDER-COUNT-1M"
)
_VARY: Final = b"vary: Origin\r\n"
_ORIGIN_LINE: Final = re.compile(rb"(?i)\r\norigin:([^\r\n]*)(?=\r\n)")
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")
_NAMES: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z, ]{1,2048}")


class Cors:
    """The origins that one version of the configuration allows.

    :param origins: as browsers send them in ``Origin``: scheme, host, and port unless it is the scheme's default
    """

    __slots__ = ("_lines",)

    def __init__(self, origins: Iterable[str]) -> None:
        self._lines: dict[bytes, bytes] = {
            origin.encode(): b"access-control-allow-origin: %b\r\naccess-control-expose-headers: %b\r\n" % (origin.encode(), _EXPOSED)
            + _VARY
            for origin in origins
        }

    def lines(self, request: Request) -> bytes:
        """The CORS field lines of any answer to this request."""
        return self._lines.get(_origin(request), _VARY)

    def lines_for_head(self, received: bytes) -> bytes:
        """The CORS field lines of the refusal of a head that cannot be read as a request, by the ``Origin`` line in it.

        :param received: what was received of the head
        """
        sent = _ORIGIN_LINE.findall(received)
        return self._lines.get(sent[0].strip(b" \t") if len(sent) == 1 else b"", _VARY)

    def preflight(self, request: Request) -> Answer | None:
        """The answer to a preflight from an allowed origin, for any path: a missing route is reported to the request itself.

        :return: ``None`` for any other request, which is processed as usual
        """
        if request.method != b"OPTIONS" or _origin(request) not in self._lines:
            return None
        asked = request.field_lines(b"access-control-request-method")
        if len(asked) != 1 or not _TOKEN.fullmatch(asked[0]):
            return None
        headers = [(b"Access-Control-Allow-Methods", asked[0])]
        names = b", ".join(request.field_lines(b"access-control-request-headers"))
        if names and _NAMES.fullmatch(names):
            headers.append((b"Access-Control-Allow-Headers", names))
        headers += [
            (b"Access-Control-Max-Age", b"%d" % MAX_AGE_S),
            (b"Vary", b"Access-Control-Request-Method, Access-Control-Request-Headers"),
        ]
        return Answer(204, tuple(headers), b"")


def _origin(request: Request) -> bytes:
    """The ``Origin`` field; ``b""``: none, or several."""
    sent = request.field_lines(b"origin")
    return sent[0] if len(sent) == 1 else b""
