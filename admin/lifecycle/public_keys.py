"""Parses a customer's public key from PEM to DER (SubjectPublicKeyInfo), without echoing its input in errors. Pure."""

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from admin.errors import FieldError
from gateway.keys.record import Algorithm

MAX_PEM_CHARACTERS = 2_048
"""An RSA key of 4096 bits has 800 characters."""

_FIELD = "public_key"
_RSA_BITS = range(2048, 4097)
_RSA_EXPONENT = 65537

# The y coordinates of the eight points of small order, and the spellings of them above the field's prime (RFC 8032 §5.1.3 does not
# reduce). Anyone can create valid signatures for such a "key".
_SMALL_ORDER = frozenset(
    bytes.fromhex(y)
    for y in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)


def parse_public_key(pem: str, algorithm: Algorithm) -> bytes | FieldError:
    """The key in DER, or the error.

    :param algorithm: ``ed25519`` or ``rsa-sha256``; the key must be of that kind
    """
    if (private := private_key_error(pem)) is not None:
        return private
    if len(pem) > MAX_PEM_CHARACTERS:
        return FieldError(_FIELD, "not_a_public_key", f"Longer than {MAX_PEM_CHARACTERS} characters: not a key that can be used here.")
    # The text must be exactly one key: a second block or surrounding text may be something the customer did not mean to send.
    lines = pem.strip()
    if (
        not lines.startswith("-----BEGIN PUBLIC KEY-----")
        or not lines.endswith("-----END PUBLIC KEY-----")
        or lines.count("-----BEGIN") != 1
    ):
        return FieldError(_FIELD, "not_a_public_key", _HOW_TO_EXPORT)
    try:
        key = load_pem_public_key(lines.encode())
    except (ValueError, UnsupportedAlgorithm):
        return FieldError(_FIELD, "not_a_public_key", _HOW_TO_EXPORT)
    if algorithm is Algorithm.ED25519 and isinstance(key, Ed25519PublicKey):
        return _checked_ed25519(key)
    if algorithm is Algorithm.RSA_SHA256 and isinstance(key, RSAPublicKey):
        return _checked_rsa(key)
    return FieldError(_FIELD, "wrong_key_type", f"Not a key for {algorithm}: send one of that kind, or choose another algorithm.")


def private_key_error(text: str) -> FieldError | None:
    """The error for a pasted private key, which precedes all others."""
    if "PRIVATE KEY" not in text:
        return None
    return FieldError(
        _FIELD,
        "private_key",
        "This is a private key. It was not stored, but it has left your machine: discard it, generate a new pair, and send only "
        "the public half (it begins with -----BEGIN PUBLIC KEY-----).",
    )


_HOW_TO_EXPORT = (
    "Not a public key in PEM. Send exactly what `openssl pkey -in private.pem -pubout` prints, "
    "from -----BEGIN PUBLIC KEY----- to -----END PUBLIC KEY-----."
)


def _checked_ed25519(key: Ed25519PublicKey) -> bytes | FieldError:
    point = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    if point[:31] + bytes([point[31] & 0x7F]) in _SMALL_ORDER:
        return FieldError(_FIELD, "weak_key", "This key gives no protection: anybody could sign for it. Generate a new pair.")
    return _der(key)


def _checked_rsa(key: RSAPublicKey) -> bytes | FieldError:
    if key.key_size not in _RSA_BITS:
        return FieldError(_FIELD, "weak_key", f"An RSA key must have 2048 to 4096 bits; this one has {key.key_size}.")
    if key.public_numbers().e != _RSA_EXPONENT:
        return FieldError(_FIELD, "weak_key", f"An RSA key must have the public exponent {_RSA_EXPONENT}.")
    return _der(key)


def _der(key: Ed25519PublicKey | RSAPublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
