"""A strict JSON reader (RFC 8259) that keeps byte ranges, so that forwarded values are byte for byte what was received. Pure.

Stricter than the standard where two readers could differ: a member named twice, at any depth, however its name is written; half of a
surrogate pair; anything behind the value. Numbers and strings are checked and left as they are.
"""

import json
import re
from typing import Final

from gateway.errors import MalformedRequest

MAX_DEPTH: Final = 32
MAX_VALUES: Final = 2_048
"""As many values as a message may hold, about: commas and opening brackets are counted, before anything is read."""

_SPACE = rb"[ \t\n\r]*+"
_ESCAPE = (
    rb'\\(?:["\\/bfnrt]|u(?:(?![dD][89a-fA-F])[0-9a-fA-F]{4}'  # a character of its own …
    rb"|[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}))"  # … or both halves of a pair
)
_STRING = rb'"[^"\\\x00-\x1f]*+(?:' + _ESCAPE + rb'[^"\\\x00-\x1f]*+)*+"'
_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?"
_SCALAR = rb"(?:" + _STRING + rb"|" + _NUMBER + rb"|true|false|null)"
_WHOLE = re.compile(_SPACE + rb"(?=\{)")
_MEMBER = re.compile(
    _SPACE + rb"(" + _STRING + rb")" + _SPACE + rb":" + _SPACE + rb"(?:(" + _SCALAR + rb")" + _SPACE + rb"([,}])|(?=[\[{]))"
)
_ITEM = re.compile(_SPACE + rb"(?:(" + _SCALAR + rb")" + _SPACE + rb"([,\]])|(?=[\[{]))")
_EMPTY_OBJECT = re.compile(rb"\{" + _SPACE + rb"\}")
_EMPTY_ARRAY = re.compile(rb"\[" + _SPACE + rb"\]")
_AFTER_MEMBER = re.compile(_SPACE + rb"([,}])")
_AFTER_ITEM = re.compile(_SPACE + rb"([,\]])")
_END = re.compile(_SPACE + rb"\Z")


class Value:
    """One value, by where it stands."""

    __slots__ = ("end", "items", "members", "name_start", "start")

    def __init__(self, name_start: int, start: int, end: int) -> None:
        self.name_start = name_start
        """Where its member begins, at the quote of its name; -1 when it is no member."""
        self.start = start
        self.end = end
        self.members: dict[bytes, Value] | None = None
        """Of an object, by their names with every escape resolved, in UTF-8."""
        self.items: list[Value] | None = None
        """Of an array."""


def scan(text: bytes) -> Value:
    """The one object that a text is.

    :param text: valid UTF-8
    :raises MalformedRequest: it is not exactly one JSON object, or is one that two readers could read differently
    """
    begin = _WHOLE.match(text)
    if begin is None:
        raise MalformedRequest("a message must be a single JSON object")
    if text.count(b",") + text.count(b"[") + text.count(b"{") > MAX_VALUES:
        raise MalformedRequest(f"a message holds at most {MAX_VALUES} values: commas and opening brackets are counted")
    value = _object(text, -1, begin.end(), 1)
    if _END.match(text, value.end) is None:
        raise MalformedRequest(f"unexpected data after the object, at byte {value.end}")
    return value


def _object(text: bytes, name_start: int, start: int, depth: int) -> Value:
    value = _begin(name_start, start, depth)
    members: dict[bytes, Value] = {}
    value.members = members
    empty = _EMPTY_OBJECT.match(text, start)
    if empty is not None:
        value.end = empty.end()
        return value
    position = start + 1
    while True:
        match = _MEMBER.match(text, position)
        if match is None:
            raise _broken(position)
        begin, behind = match.span(1)
        name = unescaped(text[begin:behind])
        if name in members:
            raise MalformedRequest(f"duplicate member, at byte {begin}")
        if b"\x00" in name:  # where a C string ends
            raise MalformedRequest(f"a member's name holds a NUL, at byte {begin}")
        first, last = match.span(2)
        if first >= 0:
            members[name] = Value(begin, first, last)
            position = match.end()
        else:
            child = _nested(text, begin, match.end(), depth + 1)
            members[name] = child
            position = _behind(_AFTER_MEMBER.match(text, child.end), child.end)
        if text[position - 1] == 0x7D:
            value.end = position
            return value


def _array(text: bytes, name_start: int, start: int, depth: int) -> Value:
    value = _begin(name_start, start, depth)
    items: list[Value] = []
    value.items = items
    empty = _EMPTY_ARRAY.match(text, start)
    if empty is not None:
        value.end = empty.end()
        return value
    position = start + 1
    while True:
        match = _ITEM.match(text, position)
        if match is None:
            raise _broken(position)
        first, last = match.span(1)
        if first >= 0:
            items.append(Value(-1, first, last))
            position = match.end()
        else:
            child = _nested(text, -1, match.end(), depth + 1)
            items.append(child)
            position = _behind(_AFTER_ITEM.match(text, child.end), child.end)
        if text[position - 1] == 0x5D:
            value.end = position
            return value


def _nested(text: bytes, name_start: int, start: int, depth: int) -> Value:
    return _object(text, name_start, start, depth) if text[start] == 0x7B else _array(text, name_start, start, depth)


def _begin(name_start: int, start: int, depth: int) -> Value:
    if depth > MAX_DEPTH:
        raise MalformedRequest(f"nested deeper than {MAX_DEPTH} levels, at byte {start}")
    return Value(name_start, start, start)


def _behind(match: "re.Match[bytes] | None", position: int) -> int:
    if match is None:
        raise _broken(position)
    return match.end()


def _broken(position: int) -> MalformedRequest:
    return MalformedRequest(f"invalid JSON at byte {position} (NaN, lone surrogates and unescaped control characters are not allowed)")


def unescaped(token: bytes) -> bytes:
    """What a string token of a scanned text says, in UTF-8.

    :param token: with its quotes
    """
    if b"\\" in token:
        said: str = json.loads(token)
        return said.encode()
    return token[1:-1]


def text_of(text: bytes, value: Value | None) -> bytes | None:
    """What a string says, in UTF-8; ``None`` for what is not there or no string."""
    if value is None or text[value.start] != 0x22:
        return None
    return unescaped(text[value.start : value.end])


def without(text: bytes, value: Value, names: frozenset[bytes]) -> bytes:
    """An object's members, joined by commas, but for those of these names; of the others every byte as it came."""
    return b",".join([text[member.name_start : member.end] for name, member in (value.members or {}).items() if name not in names])
