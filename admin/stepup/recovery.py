"""Recovery codes: shown once, stored as hashes. Pure."""

import hashlib
import secrets

COUNT = 10

# Crockford's Base32: no letter that could be mistaken for a digit or another letter.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_MISREAD = str.maketrans("OIL", "011", " -\t\n")
_GROUPS, _GROUP = 4, 4  # 80 bits: too many for a brute-force search of the hashes
_DOMAIN = b"gerbang recovery code 1\x00"


def new_codes() -> tuple[str, ...]:
    """Ten codes, ``XXXX-XXXX-XXXX-XXXX``."""
    return tuple("-".join("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP)) for _ in range(_GROUPS)) for _ in range(COUNT))


def digest(account_id: str, code: str) -> bytes:
    """The stored hash of a code. Case, separators and look-alike characters do not matter."""
    typed = code.upper().translate(_MISREAD)
    return hashlib.sha256(_DOMAIN + account_id.encode() + b"\x00" + typed.encode(errors="replace")).digest()
