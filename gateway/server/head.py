"""A request's head: judged by llhttp, then cut into its fields.

llhttp is fed heads alone, each exactly to its end: content never passes through it, so no trailer can pass for a header and no byte
behind a head for part of it. After a request with content it is left inside that content, and a new one is needed. It says whether a
head is one; the fields are cut out here, line by line, because most lines are the same in every request of a client.
"""

from typing import Any

import httptools

from gateway.server.framing import SPECIAL, Field, check_field_name

_CHANGING = (
    "authorization", "content-digest", "cookie", "proxy-authorization", "signature", "signature-input", "x-request-signature",
    "x-request-timestamp",
)  # fmt: skip
"""Fields that hold a secret or another value every time: their lines are never remembered."""
_SPELLED: dict[bytes, bytes] = {spelling.encode(): name.encode() for name in _CHANGING for spelling in (name, name.title(), name.upper())}
_MEMO_LINES, _MEMO_LINE_BYTES = 1_024, 80
_plain: dict[bytes, Field] = {}
_special: dict[bytes, Field] = {}
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
    :return: all fields, and those of them that say something about framing (:data:`gateway.server.framing.SPECIAL`)
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
    if len(line) <= _MEMO_LINE_BYTES and name not in _SPELLED:
        memo = _special if name in SPECIAL else _plain
        if len(memo) >= _MEMO_LINES:
            memo.clear()
        memo[line] = field
    return field
