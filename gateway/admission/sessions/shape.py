"""Messages of a shape that was read before: the same text around values that change from one to the next. Pure.

A bot's orders differ in price, time and signature, not in their members. A text with neither escapes nor control characters is cut at its
quotes: what then stands at the same place as in the earlier message must be the same bytes, or a string where a string was, or a number
where a number was. Such a text is JSON of the same members in the same order, so nothing of it is scanned, sorted or cut out again.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Final

from gateway.admission.sessions.json_text import Value, is_number, is_simple

LONGEST: Final = 1_024
"""Bytes of a message that is read by its shape."""
MOST: Final = 4
"""Shapes that a session remembers: bots place orders, cancel them and ask, over and over."""
_MOST_VALUES: Final = 48
_QUOTE: Final = 0x22

Part = tuple[int, int] | bytes
"""A piece of the message, from where to where, or what stands in its place."""


class Template:
    """A text made of a message's values, in an order of its own.

    :param text: of the message that it was learnt from
    :param parts: what it consists of
    :param variables: where each value stood, in ascending order
    """

    __slots__ = ("_form", "_order")

    def __init__(self, text: bytes, parts: Sequence[Part], variables: Sequence[tuple[int, int]]) -> None:
        form: list[bytes] = []
        self._order: list[int] = []
        for part in parts:
            if isinstance(part, bytes):
                form.append(_escaped(part))
                continue
            at, end = part
            index = bisect_left(variables, (at, at))
            while index < len(variables) and variables[index][1] <= end:
                start, stop = variables[index]
                form += [_escaped(text[at:start]), b"%b"]
                self._order.append(index)
                at = stop
                index += 1
            form.append(_escaped(text[at:end]))
        self._form = b"".join(form)

    def fill(self, values: list[bytes]) -> bytes:
        """The text with these values."""
        return self._form % tuple([values[index] for index in self._order])


def _escaped(text: bytes) -> bytes:
    return text.replace(b"%", b"%%")


class Shape:
    """One shape.

    :param text: of the message that it was learnt from
    :param variables: its values that change, in ascending order: those of strings within their quotes
    :param names: what such a message asks
    :param tag: what its refusal repeats
    :param rest: what is forwarded of it
    """

    __slots__ = ("_count", "_literals", "_numbers", "_picked", "_places", "names", "rest", "tag")

    def __init__(
        self, text: bytes, variables: Sequence[tuple[int, int]], *, names: list[str], tag: Sequence[Part], rest: Sequence[Part]
    ) -> None:
        self.names = names
        self.tag = Template(text, tag, variables)
        self.rest = Template(text, rest, variables)
        pieces = text.split(b'"')
        self._count = len(pieces)
        self._places: list[int] = []
        """For each value, the piece that it is or stands in."""
        self._numbers: list[tuple[int, bytes, bytes]] = []
        """For each value that is a number: which one it is, and what stands around it."""
        for start, end in variables:
            place = text.count(b'"', 0, start)
            if text[start - 1] != _QUOTE or text[end : end + 1] != b'"':
                begin = text.rfind(b'"', 0, start) + 1
                self._numbers.append((len(self._places), text[begin:start], text[end : begin + len(pieces[place])]))
            self._places.append(place)
        changing = set(self._places)
        literal = [index for index in range(len(pieces)) if index not in changing]
        self._picked: Callable[[list[bytes]], object] = itemgetter(*literal)
        """Everything else: at least what stands before the first name, and that name."""
        self._literals: object = self._picked(pieces)

    def values_in(self, pieces: list[bytes]) -> list[bytes] | None:
        """The values of a message; ``None`` when it is of another shape.

        :param pieces: its text, cut at quotes
        """
        if len(pieces) != self._count or self._picked(pieces) != self._literals:
            return None
        values = [pieces[place] for place in self._places]
        for index, before, behind in self._numbers:
            piece = values[index]
            end = len(piece) - len(behind)
            if end < len(before) or piece[: len(before)] != before or piece[end:] != behind:
                return None
            number = piece[len(before) : end]
            if not (number.isdigit() and (number[0] != 0x30 or len(number) == 1)) and not is_number(number):
                return None
            values[index] = number
        return values


def variables_of(text: bytes, members: Sequence[Value]) -> list[tuple[int, int]] | None:
    """Where the values stand that may change: strings and numbers among these members, in ascending order.

    :return: ``None`` when there are too many, or the text cannot be cut at its quotes
    """
    if len(text) > LONGEST or len(members) > _MOST_VALUES or not is_simple(text):
        return None
    found: list[tuple[int, int]] = []
    for member in members:
        first = text[member.start]
        if first == _QUOTE:
            found.append((member.start + 1, member.end - 1))
        elif is_number(text[member.start : member.end]):
            found.append((member.start, member.end))
    return sorted(found)
