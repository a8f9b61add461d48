"""The authenticated principal: a key record prepared for verification, as the process cache holds it. Pure."""

from collections.abc import Callable
from hashlib import sha256
from hmac import compare_digest
from secrets import token_bytes

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, AsymmetricPadding, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA256, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from gateway.http1.message import Identity
from gateway.keys.record import Algorithm, KeyRecord
from gateway.net.addresses import canonical

Verify = Callable[[bytes, bytes], bool]
"""``(signed bytes, signature) -> whether the signature is this key's``."""


class Principal:
    """Immutable by convention; ``__slots__`` keeps 100 000 of them small. Fields that every request reads are copied from the record."""

    __slots__ = (
        "account_ledger", "algorithm", "allowlist", "expires_ms", "frozen", "identity", "key_id", "record", "scopes", "tier", "verify",
        "verify_pss",
    )  # fmt: skip

    def __init__(self, record: KeyRecord, verify: Verify, verify_pss: Verify | None = None) -> None:
        self.record = record
        self.verify = verify
        self.verify_pss = verify_pss
        """Verifies RSASSA-PSS with SHA-512; ``None`` unless it is an RSA key."""
        self.key_id = record.key_id
        self.algorithm = record.algorithm.value
        self.expires_ms = record.expires_ms
        self.frozen = record.frozen
        self.tier = record.tier
        self.account_ledger = f"account:{record.account_id}"
        """The name of the account's ledger in the limiter."""
        self.identity = Identity(record.account_id, record.key_id, tuple(sorted(scope.value for scope in record.scopes)))
        self.scopes: frozenset[str] = frozenset(self.identity.scopes)
        self.allowlist: frozenset[str] | None = None
        """Addresses in the text form that ``client_ip`` gives; ``None`` is unrestricted."""
        if record.ip_allowlist is not None:
            self.allowlist = frozenset(text for allowed in record.ip_allowlist if (text := canonical(str(allowed))) is not None)

    @classmethod
    def of(cls, record: KeyRecord) -> "Principal":
        """:raises ValueError: the record's key material does not match its algorithm; affects this key alone"""
        if record.algorithm is Algorithm.HMAC_SHA256 and record.secret is not None:
            return cls(record, _hmac(record.secret.reveal()))
        key = load_der_public_key(record.public_key or b"")
        if record.algorithm is Algorithm.ED25519 and isinstance(key, Ed25519PublicKey):
            return cls(record, _ed25519(key))
        if record.algorithm is Algorithm.RSA_SHA256 and isinstance(key, RSAPublicKey):
            pss = _rsa(key, PSS(MGF1(SHA512()), salt_length=64), SHA512())
            return cls(record, _rsa(key, PKCS1v15(), SHA256()), pss)
        raise ValueError("the public key is not of the key's algorithm")


def _hmac(secret: bytes) -> Verify:
    """HMAC (RFC 2104) from two hash states made once per key: less than half the time of ``hmac.digest``, which hashes the key again."""
    block = sha256(secret).digest() if len(secret) > 64 else secret
    inner = sha256(block.ljust(64, b"\0").translate(_INNER))
    outer = sha256(block.ljust(64, b"\0").translate(_OUTER))

    def verify(message: bytes, signature: bytes) -> bool:
        if len(signature) != 32:
            return pretend_to_verify(message, signature)
        inside, outside = inner.copy(), outer.copy()
        inside.update(message)
        outside.update(inside.digest())
        return compare_digest(outside.digest(), signature)

    return verify


def _ed25519(key: Ed25519PublicKey) -> Verify:
    def verify(message: bytes, signature: bytes) -> bool:
        if len(signature) != 64:
            return pretend_to_verify(message, signature)
        try:
            key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    return verify


def _rsa(key: RSAPublicKey, padding: AsymmetricPadding, algorithm: HashAlgorithm) -> Verify:
    size = (key.key_size + 7) // 8

    def verify(message: bytes, signature: bytes) -> bool:
        if len(signature) != size:
            return pretend_to_verify(message, signature)
        try:
            key.verify(signature, message, padding, algorithm)
        except InvalidSignature:
            return False
        return True

    return verify


def pretend_to_verify(message: bytes, signature: bytes) -> bool:
    """Always ``False``, after as much work as a signature of this length takes to verify.

    For a key that does not exist, and for a signature whose length does not match the key's algorithm: the time that a refusal takes
    reveals neither whether a key exists nor its algorithm.
    """
    size = len(signature)
    if size == 64:
        _nobodys_ed25519(message, signature)
    elif size >= 256:
        nearest = 512 if size >= 512 else 384 if size >= 384 else 256
        _nobodys_rsa[nearest](message, signature[:nearest])
    else:
        _nobodys_hmac(message, bytes(32))
    return False


_INNER, _OUTER = bytes(byte ^ 0x36 for byte in range(256)), bytes(byte ^ 0x5C for byte in range(256))
_nobodys_hmac = _hmac(token_bytes(47))
_nobodys_ed25519 = _ed25519(Ed25519PrivateKey.generate().public_key())
# Any odd number of this size takes as long to verify with; since nobody knows its factors, nobody can sign with it.
_nobodys_rsa = {
    size: _rsa(RSAPublicNumbers(65537, int.from_bytes(b"\xff" + token_bytes(size - 1)) | 1).public_key(), PKCS1v15(), SHA256())
    for size in (256, 384, 512)
}
