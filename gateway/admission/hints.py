"""Finds the likely cause of a signature mismatch by trying common mistakes. Pure.

A hint is given only when a variant verifies with the key's own secret or public key, which proves that the caller holds it. For a key that
does not exist the same variants are tried against a dummy key, so that neither the answer nor its timing distinguishes the two.
A search costs several verifications, so searches are limited per minute for each key id, and per second in total.
"""

import re
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import Iterable, Iterator
from hmac import compare_digest, digest
from itertools import chain, product
from typing import NamedTuple

from gateway.admission.dialects import Credentials, Mistake
from gateway.admission.principal import Principal, pretend_to_verify
from gateway.keys.ids import SECRET_LENGTH, is_key_id, looks_like_secret

PER_KEY = 5
"""Searches per minute for each key id."""
IN_ALL = 20
"""Searches per second, over all keys."""
MAX_BYTES = 16_384
"""Longer requests are not searched."""
_NOBODY = b"gbs_" + b"0" * (SECRET_LENGTH - 4)
_WITHIN = re.compile(r"gb[ks]_[0-9A-Za-z]+")
"""A key id or a secret surrounded by other characters: quotes, brackets, a comma, ``Bearer``, white space and invisible characters."""
_LONGEST = 256
"""Characters of a key id that are examined and remembered."""


class _Fault(NamedTuple):
    """Text beside the secret that does not belong to it."""

    text: bytes
    what: str = ""
    cure: str = ""


_LEADING = (
    _Fault(b""),
    _Fault(b"\xef\xbb\xbf", "a leading byte order mark", "read the file as utf-8-sig"),
    _Fault(b" ", "a leading space", "strip it"),
)
_QUOTES = (_Fault(b""), _Fault(b'"', "its quotes", "remove them"), _Fault(b"'", "its quotes", "remove them"))
_TRAILING = (
    _Fault(b""),
    _Fault(b"\n", "a trailing newline", "strip it after reading the file"),
    _Fault(b"\r\n", "a trailing newline (CRLF)", "strip it after reading the file"),
    _Fault(b"\r", "a trailing carriage return", "strip it after reading the file"),
    _Fault(b" ", "a trailing space", "strip it"),
    _Fault(b" \n", "a trailing space and newline", "strip both after reading the file"),
    _Fault(b"\t", "a trailing tab", "strip it"),
    _Fault(b"\xc2\xa0", "a trailing no-break space", "strip it"),
)


def _combined() -> Iterator[tuple[str, bytes, bytes]]:
    """What files and shells leave around a secret, one fault or several at once: advice, text before and after it."""
    for leading, quotes, trailing in product(_LEADING, _QUOTES, _TRAILING):
        if faults := [fault for fault in (leading, quotes, trailing) if fault.text]:
            what, cure = " and ".join(fault.what for fault in faults), " and ".join(fault.cure for fault in faults)
            yield f"the secret was used with {what}: {cure}", leading.text + quotes.text, quotes.text + trailing.text


_AROUND = tuple(_combined())


class Hints:
    """The search and its rate limits: fixed windows, in bounded process memory."""

    def __init__(self) -> None:
        self._minute = self._second = self._in_all = 0
        self._by_key: Counter[str] = Counter()
        """Searches in this minute, of which there are at most 60 times :data:`IN_ALL`."""

    def find(
        self,
        mistakes: Iterable[Mistake],
        *,
        credentials: Credentials,
        principal: Principal | None,
        now_ms: int,
    ) -> str:
        """What the client should change, or ``""``.

        :param mistakes: the dialect's common mistakes, each with the bytes that would have been signed and sent
        :param principal: ``None`` if the key does not exist
        :param now_ms: monotonic milliseconds
        """
        alone = credentials.key_id
        found = None if is_key_id(alone) else _WITHIN.search(alone, 0, _LONGEST)
        within = alone if found is None else found[0]
        if looks_like_secret(within):
            return "the secret was sent as the key id (gbk_…): swap them, and delete this key, because its secret was exposed"
        if within != alone and is_key_id(within):
            return "the key id is quoted or surrounded by other characters, such as white space: send it alone (gbk_…)"
        if len(credentials.signed) > MAX_BYTES or not self._may_search(alone[:_LONGEST], now_ms):
            return ""
        return _verified(chain(_common(credentials), mistakes), principal) or _with_other_secrets(credentials, principal)

    def _may_search(self, key_id: str, now_ms: int) -> bool:
        second, minute = now_ms // 1_000, now_ms // 60_000
        if second != self._second:
            self._second, self._in_all = second, 0
        if minute != self._minute:
            self._minute = minute
            self._by_key.clear()
        if self._by_key[key_id] >= PER_KEY or self._in_all >= IN_ALL:
            return False
        self._by_key[key_id] += 1
        self._in_all += 1
        return True


def _common(credentials: Credentials) -> Iterator[Mistake]:
    """Mistakes that are common to all dialects."""
    signed, signature = credentials.signed, credentials.signature
    yield Mistake("a trailing newline was signed: remove it", signed + b"\n", signature)
    yield Mistake("the lines were signed with CRLF line endings: use LF", signed.replace(b"\n", b"\r\n"), signature)
    yield Mistake("the string was converted to lower case before signing: sign the bytes that are sent", signed.lower(), signature)


def _verified(mistakes: Iterable[Mistake], principal: Principal | None) -> str:
    """The advice for the mistake that verifies, or ``""``. Always tries all, so that timing reveals nothing."""
    verify = principal.verify if principal is not None else pretend_to_verify
    verify_pss = (principal.verify_pss if principal is not None else None) or pretend_to_verify
    found = ""
    for mistake in mistakes:
        verify_one = verify_pss if mistake.pss else verify
        if mistake.signature and verify_one(mistake.signed, mistake.signature) and not found:
            found = mistake.advice
    return found


def _with_other_secrets(credentials: Credentials, principal: Principal | None) -> str:
    secret = principal.record.secret if principal is not None else None
    given = secret.reveal() if secret is not None else _NOBODY
    decoded = urlsafe_b64decode(
        given[: len(given) // 4 * 4]
    )  # as lenient decoders do, such as Node.js: the last character is no whole byte
    found = ""
    for advice, key in (
        *((advice, before + given + after) for advice, before, after in _AROUND),
        ("the secret was used without its prefix gbs_: the HMAC key is the entire secret, as shown", given.removeprefix(b"gbs_")),
        ("the secret was Base64-decoded: the HMAC key is the secret's text, as shown", decoded),
    ):
        if _is_hmac(key, credentials) and secret is not None:
            found = advice
    # A key id is not secret: signing with it proves nothing, so the hint is given whether or not the key exists.
    swapped = _is_hmac(credentials.key_id.encode(), credentials)
    return found or ("the key id was used as the HMAC key: use the secret (gbs_…)" if swapped else "")


def _is_hmac(key: bytes, credentials: Credentials) -> bool:
    return compare_digest(digest(key, credentials.signed, "sha256"), credentials.signature)
