"""The vault: encrypts secrets (AES-256-GCM) with a versioned ring of key-encryption keys. Pure: no I/O, no clock.

Every seal is XAES-256-GCM (C2SP, https://c2sp.org/XAES-256-GCM): AES-256-GCM under a key derived from the first half
of a random 192-bit nonce. Plain AES-256-GCM with random 96-bit nonces is safe for 2³² seals per key (NIST SP 800-38D
§8.3); records are re-sealed for Redis every few seconds, which would use that up within months.

A sealed value is ``0x01 · length of key id · key id · nonce (24) · ciphertext and tag (16)``. What comes before the
nonce and the caller's context are authenticated, so a value opens only in the context that it was sealed for.
"""

import base64
import binascii
import hmac
import re
import secrets
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB

from gateway.errors import ConfigError, ConfigProblem, GerbangError

_VERSION = 1
_KEY_BYTES = 32
_NONCE_BYTES = 24
_TAG_BYTES = 16
_DIGEST_LABEL = b"gerbang secret digest v1"
_ENTRY_ID = re.compile(r"[0-9A-Za-z_-]{1,32}")


class SealBroken(GerbangError):
    """A sealed value that does not open: damaged, sealed for another context, or with a key that is not in the ring."""


class Vault:
    """A key ring. The first key seals, every key opens. Neither ``repr`` nor any error shows key material."""

    __slots__ = ("_current", "_keys")

    def __init__(self, keys: dict[str, bytes]) -> None:
        self._keys = {key_id.encode(): key for key_id, key in keys.items()}
        self._current = next(iter(self._keys))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``"id:base64 id:base64"``: white space between entries, standard Base64 of exactly 32 bytes each.

        :raises ConfigError: every invalid entry, by its position; never its value
        """
        keys: dict[str, bytes] = {}
        problems: list[ConfigProblem] = []
        for position, entry in enumerate(text.split(), start=1):
            key_id, _, encoded = entry.partition(":")
            try:
                key = _entry_key(key_id, encoded)
                if key_id in keys:
                    raise ValueError("has the id of an earlier key: ids are unique, also of old keys")
                if key in keys.values():
                    raise ValueError("is the same key as an earlier one under another id")
                keys[key_id] = key
            except ValueError as error:
                problems.append(ConfigProblem("vault.keys", f"key {position} {error}"))
        if not keys and not problems:
            problems.append(ConfigProblem("vault.keys", "there is no key: create one with `gerbang vault new-key`"))
        if problems:
            raise ConfigError(problems)
        return cls(keys)

    def seal(self, plaintext: bytes, *, context: str) -> bytes:
        """Encrypt and authenticate ``plaintext`` for ``context``: the key id, or e.g. ``totp:<factor id>``."""
        header = bytes((_VERSION, len(self._current))) + self._current
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return header + nonce + _xaes(self._keys[self._current], nonce).encrypt(nonce[12:], plaintext, _associated(header, context))

    def open(self, sealed: bytes, *, context: str) -> bytes:
        """The plaintext of a value sealed for the same ``context`` by any key of the ring.

        :raises SealBroken: anything else; the message says which key is missing, when that is the cause
        """
        key_id, start = _header(sealed)
        key = self._keys.get(key_id)
        if key is None:
            raise SealBroken(f"sealed with the vault key {key_id.decode(errors='replace')!r}, which is not in the ring")
        nonce = sealed[start : start + _NONCE_BYTES]
        try:
            return _xaes(key, nonce).decrypt(nonce[12:], sealed[start + _NONCE_BYTES :], _associated(sealed[:start], context))
        except InvalidTag:
            raise SealBroken("the sealed value does not authenticate: it is damaged, or was sealed for another purpose") from None

    def digests(self, value: bytes) -> list[bytes]:
        """Digests that identify ``value`` without storing it: HMAC-SHA256 under a key derived from each key of the ring, in order.

        For high-entropy secrets: digests without a key of the ring reveal nothing.
        """
        derived = (hmac.digest(key, _DIGEST_LABEL, "sha256") for key in self._keys.values())
        return [hmac.digest(key, value, "sha256") for key in derived]

    def is_current(self, sealed: bytes) -> bool:
        """Whether the first key of the ring sealed this value. Looks at the header only, opens nothing."""
        try:
            return _header(sealed)[0] == self._current
        except SealBroken:
            return False

    def __repr__(self) -> str:
        return f"<Vault of {len(self._keys)} keys, sealing with {self._current.decode()!r}>"


def new_entry(key_id: str) -> str:
    """A fresh ring entry ``id:base64`` with 256 random bits, to be put first in ``vault.keys``.

    :raises ValueError: ``key_id`` is not 1–32 letters, digits, ``-`` or ``_``
    """
    encoded = base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()
    _entry_key(key_id, encoded)
    return f"{key_id}:{encoded}"


def _entry_key(key_id: str, encoded: str) -> bytes:
    if not encoded or not _ENTRY_ID.fullmatch(key_id):
        raise ValueError('is not written "id:base64" with an id of 1–32 letters, digits, "-" or "_"')
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not standard Base64 (RFC 4648 §4)") from None
    if len(key) != _KEY_BYTES:
        raise ValueError(f"has {len(key)} bytes, not {_KEY_BYTES}")
    return key


def _header(sealed: bytes) -> tuple[bytes, int]:
    """The id of the key that sealed a value, and where its nonce starts."""
    if len(sealed) < 2 or sealed[0] != _VERSION:
        raise SealBroken("not a sealed value of a known version")
    start = 2 + sealed[1]
    if len(sealed) < start + _NONCE_BYTES + _TAG_BYTES:
        raise SealBroken("a truncated sealed value")
    return sealed[2:start], start


def _associated(header: bytes, context: str) -> bytes:
    # The header's second byte says how long it is: no two pairs of header and context give the same bytes.
    return header + context.encode()


def _xaes(key: bytes, nonce: bytes) -> AESGCM:
    """AES-256-GCM under the key derived for ``nonce[:12]``; the caller continues with ``nonce[12:]`` (XAES-256-GCM §2).

    The derivation is CMAC (NIST SP 800-38B) of two one-block messages, which is one AES call each.
    """
    # ECB here is the bare block function on single blocks: the building block of CMAC, not a mode for data.
    block = Cipher(AES256(key), ECB()).encryptor()  # noqa: S305
    subkey = int.from_bytes(block.update(bytes(16)))
    subkey = (subkey << 1) & ((1 << 128) - 1) ^ (0x87 if subkey >> 127 else 0)
    counters = (b"\x00\x01X\x00" + nonce[:12], b"\x00\x02X\x00" + nonce[:12])
    return AESGCM(b"".join(block.update((int.from_bytes(counter) ^ subkey).to_bytes(16)) for counter in counters))
