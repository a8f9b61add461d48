"""Collects one request head from llhttp's callbacks.

llhttp is fed heads alone, each exactly to its end: content never passes through it, so no trailer can pass for a header and no byte
behind a head for part of it. After a request with content it is left inside that content, and a new one is needed.
"""

from typing import Any

import httptools

from gateway.server.framing import SPECIAL, Field, check_field_name

_USUAL_NAMES = (
    "accept", "accept-encoding", "accept-language", "authorization", "content-digest", "content-type", "cookie", "date", "origin",
    "referer", "signature", "signature-input", "user-agent", "x-api-key", "x-mbx-apikey", "x-request-signature", "x-request-timestamp",
)  # fmt: skip
_USUAL: dict[bytes, bytes] = {
    spelling.encode(): name.encode()
    for name in _USUAL_NAMES
    for spelling in (name, name.title(), name.title().replace("Api-", "API-"), name.title().replace("Mbx-Apikey", "MBX-APIKEY"))
}
"""Usual spellings of usual names that need no look of their own; all others get one."""


class HeadReader:
    """A parser and what it has found. Names are in lower case; values still have white space behind them, if they came with any."""

    __slots__ = ("complete", "feed", "fields", "special")

    def __init__(self) -> None:
        parser: Any = httptools.HttpRequestParser(self)
        self.feed = parser.feed_data
        self.fields: list[Field] = []
        self.special: list[Field] = []
        """Those of :attr:`fields` that say something about framing."""
        self.complete = False

    def clear(self) -> None:
        """Make ready for the next head."""
        self.fields.clear()
        self.special.clear()
        self.complete = False

    def strip(self) -> None:
        """Take white space off the values' ends (RFC 9112 §5); llhttp takes it off their fronts alone."""
        self.fields = [(name, value.rstrip()) for name, value in self.fields]
        self.special = [(name, value.rstrip()) for name, value in self.special]

    # -- called by llhttp

    def on_header(self, name: bytes, value: bytes) -> None:
        usual = _USUAL.get(name)
        if usual is not None:
            self.fields.append((usual, value))
            return
        name = name.lower()
        field = (name, value)
        self.fields.append(field)
        if name in SPECIAL:
            self.special.append(field)
        elif b"_" in name:
            check_field_name(name)

    def on_headers_complete(self) -> None:
        self.complete = True
