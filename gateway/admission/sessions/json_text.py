"""A strict JSON parser (RFC 8259) that records byte ranges, so that forwarded values are byte for byte what was received. Pure.

It refuses everything that parsers could read differently: duplicate member names, at any depth and in any spelling; lone surrogates;
anything after the value. Numbers and strings are checked and left as they are.
"""

import json
import re
from collections.abc import Container
from typing import Final

from gateway.errors import MalformedRequest

MAX_DEPTH: Final = 32
MAX_VALUES: Final = 2_048
"""Approximate maximum number of values in a message: commas and brackets are counted before it is parsed."""

_SPACE = rb"[ \t\n\r]*+"
_ESCAPE = (
    rb'\\(?:["\\/bfnrt]|u(?:(?![dD][89a-fA-F])[0-9a-fA-F]{4}'  # a character of its own …
    rb"|[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}))"  # … or both halves of a pair
)
_STRING = rb'"[^"\\\x00-\x1f]*+(?:' + _ESCAPE + rb'[^"\\\x00-\x1f]*+)*+"'
_SIMPLE_STRING = rb'"[^"]*+"'
"""A string in a text without backslashes and control characters."""
_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?"


def _rows(string: bytes) -> re.Pattern[bytes]:
    """Matches a value, or its opening bracket, with its name and everything up to the next value: commas, closing brackets and space.

    If there is none, matches the rest of the text: the rows cover all of it, without overlap.
    """
    return re.compile(
        rb"(?:(" + string + rb")(" + _SPACE + rb":" + _SPACE + rb"))?+"
        rb"((?:" + string + rb"|" + _NUMBER + rb"|true|false|null)(?=" + _SPACE + rb"[,}\]])|[{\[])"
        rb"([ \t\n\r,}\]]*+)"
        rb"|([\x00-\xff]++)"
    )


_ONE_NUMBER = re.compile(_NUMBER)
_ROW = _rows(_STRING)
_SIMPLE_ROW = _rows(_SIMPLE_STRING)
_NOT_SIMPLE = bytes(range(0x20)) + b"\\"
_BEGIN = re.compile(_SPACE + rb"(?=\{)")
_COMMA: Final = 0x2C
_OBJECT: Final = 0x7B
_OBJECT_END: Final = 0x7D
_ARRAY: Final = 0x5B
_ARRAY_END: Final = 0x5D
_BACKSLASH: Final = 0x5C


class Value:
    """One value, by its position in the text."""

    __slots__ = ("end", "items", "members", "name_start", "start")

    def __init__(self, name_start: int, start: int, end: int) -> None:
        self.name_start = name_start
        """Start of its member, at the quote of its name; -1 if it is not a member."""
        self.start = start
        self.end = end
        self.members: dict[bytes, Value] | None = None
        """The members of an object, by name, with escapes resolved, in UTF-8."""
        self.items: list[Value] | None = None
        """The items of an array."""


def scan(text: bytes) -> Value:
    """Parse a text that must be a single object.

    :param text: valid UTF-8
    :raises MalformedRequest: it is not exactly one JSON object, or one that parsers could read differently
    """
    begin = _BEGIN.match(text)
    if begin is None:
        raise MalformedRequest("a message must be a single JSON object")
    if len(text) > MAX_VALUES and (_count(text, b",[{") > MAX_VALUES or _count(text, b"]}") > MAX_VALUES):
        raise MalformedRequest(f"a message holds at most {MAX_VALUES} values: commas and brackets are counted")
    return _Scan(text, begin.end()).read()


def _count(text: bytes, marks: bytes) -> int:
    return sum([text.count(mark) for mark in marks])


class _Scan:
    """One scan of a text, row by row."""

    __slots__ = ("_begin", "_holder", "_outer", "_root", "_simple", "_text")

    def __init__(self, text: bytes, begin: int) -> None:
        self._text = text
        self._begin = begin
        self._root = Value(-1, begin, begin)
        self._holder: Value | None = None
        """The innermost open object or array."""
        self._outer: list[Value] = []
        """The objects and arrays around it."""
        self._simple = is_simple(text)

    def read(self) -> Value:
        """See :func:`scan`."""
        rows: list[tuple[bytes, bytes, bytes, bytes, bytes]] = (_SIMPLE_ROW if self._simple else _ROW).findall(self._text, self._begin)
        position = self._begin
        for name, colon, token, tail, rest in rows:
            if rest:
                raise self._broken(position)
            start = position + len(name) + len(colon)
            end = start + len(token)
            first = token[0]
            opens = first in (_OBJECT, _ARRAY)
            if position == self._begin:
                value = self._root
            else:
                value = Value(position if name else -1, start, end)
                self._keep(value, name, position)
            if opens:
                self._open(value, first == _OBJECT, start)
            if opens or tail != b",":
                self._after(tail, end, opened=opens)
            position = end + len(tail)
        if self._holder is not None:
            raise self._broken(position)
        return self._root

    def _keep(self, value: Value, name: bytes, position: int) -> None:
        """Add a value to the open object or array."""
        holder = self._holder
        if holder is None:
            raise self._broken(position)
        members = holder.members
        if members is None:
            if name or holder.items is None:
                raise self._broken(position)
            holder.items.append(value)
            return
        if not name:
            raise self._broken(position)
        decoded = name[1:-1] if self._simple else unescaped(name)
        if decoded in members:
            raise MalformedRequest(f"duplicate member, at byte {position}")
        if not self._simple and 0 in decoded:  # ends a C string
            raise MalformedRequest(f"a member's name holds a NUL, at byte {position}")
        members[decoded] = value

    def _open(self, value: Value, is_object: bool, start: int) -> None:
        if self._holder is not None:
            self._outer.append(self._holder)
        if len(self._outer) >= MAX_DEPTH:
            raise MalformedRequest(f"nested deeper than {MAX_DEPTH} levels, at byte {start}")
        if is_object:
            value.members = {}
        else:
            value.items = []
        self._holder = value

    def _after(self, tail: bytes, position: int, *, opened: bool) -> None:
        """Check what follows a value: closing brackets, then a comma if and only if another value of the same container follows."""
        more = opened
        for mark in tail:
            holder = self._holder
            if mark == _COMMA:
                if more or holder is None:
                    raise self._broken(position)
                more = True
            elif mark in (_OBJECT_END, _ARRAY_END):
                if holder is None or (more and not opened) or (holder.members is not None) is not (mark == _OBJECT_END):
                    raise self._broken(position)
                holder.end = position + 1
                self._holder = self._outer.pop() if self._outer else None
                more = opened = False
            position += 1
        if not more and self._holder is not None:
            raise self._broken(position)

    def _broken(self, position: int) -> MalformedRequest:
        if self._root.end > self._begin:
            return MalformedRequest(f"unexpected data after the object, at byte {self._root.end}")
        return MalformedRequest(f"invalid JSON at byte {position} (NaN, lone surrogates and unescaped control characters are not allowed)")


def is_simple(text: bytes) -> bool:
    """Whether a text contains neither escapes nor control characters, so that every quote delimits a string."""
    return len(text.translate(None, _NOT_SIMPLE)) == len(text)


def is_number(token: bytes) -> bool:
    """Whether this is a JSON number."""
    return _ONE_NUMBER.fullmatch(token) is not None


def unescaped(token: bytes) -> bytes:
    """The value of a string token of a scanned text, in UTF-8.

    :param token: with its quotes
    """
    if _BACKSLASH in token:  # as an integer: searching for bytes is a hundred times slower
        decoded: str = json.loads(token)
        return decoded.encode()
    return token[1:-1]


def text_of(text: bytes, value: Value | None) -> bytes | None:
    """The value of a string, in UTF-8; ``None`` if it is absent or not a string."""
    if value is None or text[value.start] != 0x22:
        return None
    return unescaped(text[value.start : value.end])


def ranges_without(value: Value, names: Container[bytes]) -> list[tuple[int, int]]:
    """The byte ranges of an object's members except the named ones; adjacent members form one range."""
    pieces: list[tuple[int, int]] = []
    begin = end = -1
    for name, member in (value.members or {}).items():
        if name in names:
            continue
        if member.name_start != end + 1:
            if begin >= 0:
                pieces.append((begin, end))
            begin = member.name_start
        end = member.end
    if begin >= 0:
        pieces.append((begin, end))
    return pieces


def without(text: bytes, value: Value, names: Container[bytes]) -> bytes:
    """An object's members except the named ones, joined by commas, each byte for byte as received."""
    return b",".join([text[begin:end] for begin, end in ranges_without(value, names)])
