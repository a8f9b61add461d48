"""Validation of labels that customers give to keys and factors. Pure."""

import re
import unicodedata
from itertools import pairwise

from admin.errors import FieldError

MAX_LABEL = 64

_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Letters and symbols by category, but invisible: Hangul fillers, the blank Braille pattern.
_INVISIBLE = frozenset("\u115f\u1160\u3164\uffa0\u2800")
_JOINER = "\u200d"
_EMOJI_MODIFIERS = frozenset({"\ufe0f", *map(chr, range(0x1F3FB, 0x1F400))})


def clean_label(text: str) -> str:
    """The text as it is stored: composed (NFC), without surrounding white space, and with one space for each run of spaces of any kind.

    A page shows such a run as one space: who types the label again, to delete the key, could not know how many there are, or which.
    """
    composed = unicodedata.normalize("NFC", text)
    return re.sub(" {2,}", " ", "".join(" " if unicodedata.category(character) == "Zs" else character for character in composed)).strip()


def label_error(text: str, *, field: str = "label") -> FieldError | None:
    """The error in a cleaned label or factor name, if any."""
    if any(unicodedata.category(character) in _UNPRINTABLE for character in _without_joiners(text)):
        return FieldError(field, "not_printable", "Letters, digits, spaces and symbols only: no control or invisible characters.")
    if not any(unicodedata.category(character)[0] in "LNPS" and character not in _INVISIBLE for character in text):
        return FieldError(field, "required", "Enter a name that you will recognise later.")
    if len(text) > MAX_LABEL:
        return FieldError(field, "too_long", f"At most {MAX_LABEL} characters; this has {len(text)}.")
    return None


def _without_joiners(text: str) -> str:
    """The text without the joiners that combine emoji (UTS 51 §2.3), each between two symbols."""
    kept, before = "", ""
    for character, following in pairwise(text + " "):
        if character == _JOINER and _is_symbol(before) and _is_symbol(following):
            before = ""
            continue
        kept += character
        before = before if character in _EMOJI_MODIFIERS else character
    return kept


def _is_symbol(character: str) -> bool:
    return bool(character) and unicodedata.category(character) == "So"
