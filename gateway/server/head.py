"""Collects one request head from llhttp's callbacks."""

from typing import Any, cast

import httptools

from gateway.server.framing import SPECIAL, Field, check_field_name


class HeadReader:
    """What ``httptools.HttpRequestParser`` calls back, and the parser itself.

    The parser is fed heads alone, each exactly to its end, so content never passes through it and no byte behind a head can be taken
    for part of it. After a request with content it is left inside that content and a new one is needed.
    """

    __slots__ = ("complete", "feed", "fields", "method", "special", "target")

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Start afresh, with a new parser."""
        parser: Any = httptools.HttpRequestParser(self)
        self.feed = parser.feed_data
        self.method = cast("Any", parser.get_method)
        self.clear()

    def clear(self) -> None:
        """Start the next head with the same parser."""
        self.target = b""
        self.fields: list[Field] = []
        self.special: list[Field] = []
        self.complete = False

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if value[-1:] <= b" ":
            value = value.rstrip(b" \t")  # llhttp takes white space off the front alone
        field = (name, value)
        self.fields.append(field)
        if name in SPECIAL:
            self.special.append(field)
        elif b"_" in name:
            check_field_name(name)

    def on_headers_complete(self) -> None:
        self.complete = True
