"""The format of key ids and secrets: generation, checksum and validation without a lookup.

``gbk_`` (key id) or ``gbs_`` (secret), random base62 characters, and 6 base62 characters of CRC-32 (ISO-HDLC, as in
``zlib``) over everything before them, most significant digit first, padded with ``0``. The checksum is public
arithmetic: it stops typing errors, not attackers.
"""

import secrets
import zlib

from gateway.keys.secret import Secret

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
KEY_ID_PREFIX = "gbk_"
SECRET_PREFIX = "gbs_"  # noqa: S105  # the public prefix by which scanners recognise a leaked secret
KEY_ID_LENGTH = 32
SECRET_LENGTH = 53

_CHECKSUM_LENGTH = 6


def new_key_id() -> str:
    """A fresh key id: 22 random base62 characters, 131 bits."""
    return _with_checksum(KEY_ID_PREFIX + _random_text(KEY_ID_LENGTH - len(KEY_ID_PREFIX) - _CHECKSUM_LENGTH))


def new_secret() -> Secret:
    """A fresh secret: 43 random base62 characters, 256 bits. Its UTF-8 bytes are the HMAC key."""
    text = _with_checksum(SECRET_PREFIX + _random_text(SECRET_LENGTH - len(SECRET_PREFIX) - _CHECKSUM_LENGTH))
    return Secret(text.encode())


def is_key_id(text: str) -> bool:
    """Whether ``text`` could be a key id: length, prefix, alphabet, checksum. Says nothing about its existence."""
    return len(text) == KEY_ID_LENGTH and text.startswith(KEY_ID_PREFIX) and _checksum_holds(text)


def masked(key_id: str) -> str:
    """Part of a key id, enough for its owner to recognize it, for mails and pages that others may see."""
    return f"{key_id[:8]}…{key_id[-4:]}"


def looks_like_secret(text: str) -> bool:
    """Whether ``text`` has the form of a secret: to warn a client that sends one as a key id, and to redact."""
    return len(text) == SECRET_LENGTH and text.startswith(SECRET_PREFIX) and _checksum_holds(text)


def _random_text(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def _with_checksum(text: str) -> str:
    return text + _checksum(text)


def _checksum_holds(text: str) -> bool:
    # In ASCII, the letters and digits are exactly the alphabet.
    return text.isascii() and text[4:].isalnum() and text[-_CHECKSUM_LENGTH:] == _checksum(text[:-_CHECKSUM_LENGTH])


def _checksum(text: str) -> str:
    rest = zlib.crc32(text.encode())
    digits = ""
    for _ in range(_CHECKSUM_LENGTH):
        rest, digit = divmod(rest, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
