"""A request's head: judged by llhttp, then cut into its fields.

llhttp is fed heads alone, each exactly to its end: content never passes through it, so no trailer can pass for a header and no byte
behind a head for part of it. After a request with content it is left inside that content, and a new one is needed. It says whether a
head is one; the fields are cut out here, line by line, because most lines are the same in every request of a client.
"""

from typing import Any, Final

import httptools

from gateway.http1.framing import SPECIAL, Field, check_field_name

_STEADY: Final = frozenset({
    b"accept", b"accept-encoding", b"accept-language", b"cache-control", b"connection", b"content-length", b"content-type", b"expect",
    b"host", b"origin", b"transfer-encoding", b"upgrade", b"user-agent", b"x-api-key", b"x-mbx-apikey",
})  # fmt: skip
"""Fields that a client sends with the same value again and again and that hold no secret: only their lines are remembered."""
_CHANGING = ("authorization", "content-digest", "signature", "signature-input", "x-request-signature", "x-request-timestamp")
_SPELLED: Final[dict[bytes, bytes]] = {
    spelling.encode(): name.encode() for name in _CHANGING for spelling in (name, name.title(), name.upper())
}
"""Usual spellings of usual names that need no look of their own."""
_MEMO_LINES: Final = 1_024
_MEMO_LINE_BYTES: Final = 160
_plain: Final[dict[bytes, Field]] = {}
_special: Final[dict[bytes, Field]] = {}
"""Lines cut before; bounded. The second holds those that say something about framing."""


class HeadReader:
    """llhttp, as far as a head goes."""

    __slots__ = ("complete", "feed")

    def __init__(self) -> None:
        parser: Any = httptools.HttpRequestParser(self)
        self.feed = parser.feed_data
        self.complete = False
        """Whether a whole head has been accepted."""

    def on_headers_complete(self) -> None:
        """Called by llhttp."""
        self.complete = True


def cut_fields(lines: list[bytes]) -> tuple[list[Field], list[Field]]:
    """The field lines of a head that llhttp has accepted: names in lower case, values without white space around (RFC 9112 §5).

    :param lines: the head's lines, the request line first
    :return: all fields, and those of them that say something about framing (:data:`gateway.http1.framing.SPECIAL`)
    :raises MalformedRequest: a name can be taken for one that the gate owns
    """
    fields: list[Field] = []
    special: list[Field] = []
    for index in range(1, len(lines)):
        line = lines[index]
        field = _plain.get(line)
        if field is None:
            field = _special.get(line)
            if field is None:
                field = _cut(line)
                if field[0] in SPECIAL:
                    special.append(field)
            else:
                special.append(field)
        fields.append(field)
    return fields, special


def _cut(line: bytes) -> Field:
    spelled, _, value = line.partition(b":")
    value = value.strip(b" \t")
    known = _SPELLED.get(spelled)
    if known is not None:
        return known, value
    name = spelled.lower()
    if b"_" in name:
        check_field_name(name)
    field = (name, value)
    if name in _STEADY and len(line) <= _MEMO_LINE_BYTES:
        memo = _special if name in SPECIAL else _plain
        if len(memo) >= _MEMO_LINES:
            memo.clear()
        memo[line] = field
    return field
