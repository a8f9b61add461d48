"""Signing keys of the assertion: generated on first start, rotated by age, in a directory that several gateways can share.

A key's file is ``<created, Unix ms>-<kid>.pem`` (PKCS #8, mode 0600). A new key is published in the JWKS before it signs, and an old one
stays published after it last signed, so that no verifier's cached JWKS lacks a key in use. :func:`plan` decides what is due.
"""

import json
import os
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from gateway.errors import GerbangError

PUBLISHED_AHEAD_MS = 60_000
"""How long a key is in the JWKS before it signs; longer than :data:`JWKS_MAX_AGE_S`."""
PUBLISHED_AFTER_MS = 600_000
"""How long it stays there after its successor signs: an assertion's lifetime (at most 60 s) plus a margin for clocks and caches."""
JWKS_MAX_AGE_S = 30
"""``Cache-Control`` of the JWKS."""

_FILE = re.compile(r"([0-9]{1,15})-([0-9A-Za-z_-]{43})\.pem")


class SigningKeysUnusable(GerbangError):
    """The folder of signing keys cannot be created, read or written; the message names the path and the reason."""


class SigningKey(NamedTuple):
    """One Ed25519 key. ``repr`` does not show it: cryptography's key objects print no bytes."""

    created_ms: int
    kid: str
    """RFC 7638 thumbprint of the public key."""
    private: Ed25519PrivateKey

    @classmethod
    def new(cls, now_ms: int) -> "SigningKey":
        """A fresh key."""
        return cls.of(Ed25519PrivateKey.generate(), now_ms)

    @classmethod
    def of(cls, private: Ed25519PrivateKey, created_ms: int) -> "SigningKey":
        """Wrap a private key and compute its kid."""
        # RFC 7638 §3: the required members, in order, without white space.
        required = json.dumps(_public(private), separators=(",", ":"), sort_keys=True)
        return cls(created_ms, base64url(sha256(required.encode()).digest()).decode(), private)

    def pem(self) -> str:
        """PKCS #8, not encrypted, for its file and for a worker."""
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    @classmethod
    def from_pem(cls, pem: str, created_ms: int) -> "SigningKey":
        """Parse the output of :meth:`pem`.

        :raises ValueError: not a PEM private key, or not an Ed25519 one
        """
        try:
            private = load_pem_private_key(pem.encode(), password=None)
        except (ValueError, TypeError):
            raise ValueError("not a PEM private key") from None
        if not isinstance(private, Ed25519PrivateKey):
            raise ValueError("not an Ed25519 key")  # noqa: TRY004 - it is the file's content that is wrong
        return cls.of(private, created_ms)

    def public_jwk(self) -> dict[str, Any]:
        """The public half as a JWK (RFC 8037 §2)."""
        return {**_public(self.private), "kid": self.kid, "alg": "EdDSA", "use": "sig"}


def _public(private: Ed25519PrivateKey) -> dict[str, str]:
    """The required members of the public key's JWK."""
    return {"crv": "Ed25519", "kty": "OKP", "x": base64url(private.public_key().public_bytes_raw()).decode()}


def base64url(value: bytes) -> bytes:
    """Base64url without padding, as in JOSE (RFC 7515 §2)."""
    return urlsafe_b64encode(value).rstrip(b"=")


class Plan(NamedTuple):
    """What is due for keys of these ages: which one signs (``None``: none), whether to create one, which to delete."""

    signing: int | None
    make: bool
    drop: tuple[int, ...]


def plan(created: Sequence[int], now_ms: int, rotate_after_ms: int) -> Plan:
    """Decide by age. ``created`` is sorted, oldest first; the results are indices into it.

    The newest key that has been published long enough signs; if there is none, the oldest does: on the first start there is no verifier
    yet, and after the clock has been set back the key known longest is the safest.
    """
    usable = [position for position, at_ms in enumerate(created) if at_ms + PUBLISHED_AHEAD_MS <= now_ms]
    signing = usable[-1] if usable else 0 if created else None
    make = not created or created[-1] + rotate_after_ms <= now_ms
    drop = tuple(position for position in range(signing or 0) if created[position + 1] + PUBLISHED_AHEAD_MS + PUBLISHED_AFTER_MS <= now_ms)
    return Plan(signing, make, drop)


class KeyRing:
    """The keys of one gate, in a folder or in memory only.

    :param folder: created with mode 0700 if missing; ``None``: the keys last as long as this process
    :param earlier: the ring that this one replaces. Keys of another folder stay published for :data:`PUBLISHED_AFTER_MS`; of the same one,
        those that are still in it
    """

    def __init__(self, folder: Path | None, *, rotate_after_ms: int, earlier: "KeyRing | None" = None) -> None:
        self._folder = folder
        self._rotate_after_ms = rotate_after_ms
        self._keys: list[SigningKey] = []
        self._replaced: list[tuple[int | None, dict[str, Any]]] = []
        """Public keys of earlier rings, and when they were replaced (``None``: now)."""
        if earlier is not None:
            self._keys, self._replaced = earlier.handed_on(folder)

    def handed_on(self, folder: Path | None) -> tuple[list[SigningKey], list[tuple[int | None, dict[str, Any]]]]:
        """What a ring of this folder takes over: keys of the same folder, and public keys of others."""
        if folder == self._folder:
            return self._keys, self._replaced
        return [], [*self._replaced, *((None, key.public_jwk()) for key in self._keys)]

    def refresh(self, now_ms: int) -> SigningKey:
        """Read the folder, create and delete keys as due, and return the key that signs now.

        :raises SigningKeysUnusable: nothing was changed in memory
        """
        keys = self._keys if self._folder is None else _read(self._folder)
        due = plan([key.created_ms for key in keys], now_ms, self._rotate_after_ms)
        if due.make:
            fresh = SigningKey.new(now_ms)
            if self._folder is not None:
                _write(self._folder, fresh)
            keys = [*keys, fresh]
        if self._folder is not None:
            for position in due.drop:
                with suppress(OSError):  # in a folder that has become read-only; it is published no more, nevertheless
                    _path(self._folder, keys[position]).unlink()
        self._keys = [key for position, key in enumerate(keys) if position not in due.drop]
        replaced = [(now_ms if at_ms is None else min(at_ms, now_ms), key) for at_ms, key in self._replaced]
        self._replaced = [(at_ms, key) for at_ms, key in replaced if now_ms - at_ms < PUBLISHED_AFTER_MS]
        return keys[due.signing or 0]

    def jwks(self) -> dict[str, Any]:
        """The public keys as of the last refresh (RFC 7517 §5)."""
        published = [key.public_jwk() for key in self._keys] + [key for _, key in self._replaced]
        return {"keys": list({key["kid"]: key for key in published}.values())}


def _path(folder: Path, key: SigningKey) -> Path:
    return folder / f"{key.created_ms}-{key.kid}.pem"


def _read(folder: Path) -> list[SigningKey]:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = [(path, match) for path in folder.iterdir() if (match := _FILE.fullmatch(path.name))]
    except OSError as error:
        raise SigningKeysUnusable(f"{folder}: {error.strerror}") from None
    keys = []
    for path, match in found:
        try:
            keys.append(SigningKey.from_pem(path.read_text(), int(match[1])))
        except FileNotFoundError:
            continue  # another gate that shares the folder has just deleted it
        except (OSError, ValueError) as error:
            raise SigningKeysUnusable(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    return sorted(keys, key=lambda key: key.created_ms)


def _write(folder: Path, key: SigningKey) -> None:
    """Write a file atomically: to a temporary name first, then rename."""
    draft = folder / f".{secrets.token_hex(8)}"
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(key.pem())
            file.flush()
            os.fsync(file.fileno())
        draft.rename(_path(folder, key))
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise SigningKeysUnusable(f"{folder}: {error.strerror}") from None
