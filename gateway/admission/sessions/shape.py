"""Recognizes messages whose text equals an earlier message's except for values, and reads them without parsing. Pure.

A bot's orders differ in price, time and signature, not in their members. A text with neither escapes nor control characters is split at its
quotes. Each piece must equal the earlier message's, except that a string may differ where a string was, and a number where a number
was. Such a text is JSON with the same members in the same order, so it need not be scanned, sorted or split again.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Final

from gateway.admission.sessions.json_text import Value, is_number, is_simple

LONGEST: Final = 1_024
"""Maximum size of a message that is read by its shape."""
MOST: Final = 4
"""Shapes that a session remembers: bots place, cancel and query orders over and over."""
_MOST_VALUES: Final = 48
_QUOTE: Final = 0x22

Part = tuple[int, int] | bytes
"""A range of the message, or the bytes that replace it."""


class Template:
    """A text assembled from a message's values, in any order.

    :param text: the message that it is made from
    :param parts: its ranges and literal bytes
    :param variables: the ranges of the variable values, in ascending order
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
    """One shape of messages.

    :param text: the message that it is made from
    :param variables: the ranges of the values that may differ, in ascending order; strings without their quotes
    :param names: the methods that such a message calls
    :param tag: the value that its refusal repeats
    :param rest: the members that are forwarded
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
        """For each value, the index of the piece that contains it."""
        self._numbers: list[tuple[int, bytes, bytes]] = []
        """For each number: its index among the values, and the text before and after it in its piece."""
        for start, end in variables:
            place = text.count(b'"', 0, start)
            if text[start - 1] != _QUOTE or text[end : end + 1] != b'"':
                begin = text.rfind(b'"', 0, start) + 1
                self._numbers.append((len(self._places), text[begin:start], text[end : begin + len(pieces[place])]))
            self._places.append(place)
        changing = set(self._places)
        literal = [index for index in range(len(pieces)) if index not in changing]
        self._picked: Callable[[list[bytes]], object] = itemgetter(*literal)
        """Selects all other pieces: at least the one before the first name, and that name."""
        self._literals: object = self._picked(pieces)

    def values_in(self, pieces: list[bytes]) -> list[bytes] | None:
        """The values of a message; ``None`` when it is of another shape.

        :param pieces: its text, split at quotes
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
    """The ranges of the values that may differ: strings and numbers among these members, in ascending order.

    :return: ``None`` if there are too many, or the text cannot be split at its quotes
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
