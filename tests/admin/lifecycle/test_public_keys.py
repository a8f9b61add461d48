"""Public keys as customers paste them."""

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)
from hypothesis import given
from hypothesis import strategies as st

from admin.errors import FieldError
from admin.lifecycle.public_keys import _SMALL_ORDER, parse_public_key
from gateway.keys.record import Algorithm

ED25519 = ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)
PRIME = 2**255 - 19


def pem(key) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def private_pem(key, form: PrivateFormat) -> str:
    return key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()


def code(text: str, algorithm: Algorithm = Algorithm.ED25519) -> str:
    error = parse_public_key(text, algorithm)
    assert isinstance(error, FieldError)
    return error.code


def rsa_of(bits: int, exponent: int = 65537) -> str:
    # OpenSSL needs no product of two primes to hold a public key; odd is enough, and makes this test quick.
    return pem(rsa.RSAPublicNumbers(exponent, (1 << (bits - 1)) | 1).public_key())


@pytest.mark.parametrize(("key", "algorithm"), [(ED25519, Algorithm.ED25519), (RSA, Algorithm.RSA_SHA256)])
def test_a_good_key_comes_back_as_der(key, algorithm: Algorithm) -> None:
    der = parse_public_key("\n" + pem(key.public_key()).replace("\n", "\r\n") + "\n", algorithm)
    assert isinstance(der, bytes)
    assert load_der_public_key(der) == key.public_key()


@pytest.mark.parametrize(
    ("text", "algorithm"),
    [
        (pem(RSA.public_key()), Algorithm.ED25519),
        (pem(ED25519.public_key()), Algorithm.RSA_SHA256),
        (pem(ec.generate_private_key(ec.SECP256R1()).public_key()), Algorithm.ED25519),
        (pem(ed448.Ed448PrivateKey.generate().public_key()), Algorithm.ED25519),
        (pem(dsa.generate_private_key(1024).public_key()), Algorithm.RSA_SHA256),
    ],
)
def test_a_key_of_another_kind_is_refused(text: str, algorithm: Algorithm) -> None:
    assert code(text, algorithm) == "wrong_key_type"


@pytest.mark.parametrize("text", [rsa_of(2047), rsa_of(1024), rsa_of(4097), rsa_of(2048, 3), rsa_of(2048, 2**32 + 1)])
def test_a_weak_rsa_key_is_refused(text: str) -> None:
    assert code(text, Algorithm.RSA_SHA256) == "weak_key"


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_rsa_from_2048_to_4096_bits_is_accepted(bits: int) -> None:
    assert isinstance(parse_public_key(rsa_of(bits), Algorithm.RSA_SHA256), bytes)


@pytest.mark.parametrize("point", sorted(_SMALL_ORDER))
@pytest.mark.parametrize("sign", [0x00, 0x80])
def test_an_ed25519_point_of_small_order_is_refused(point: bytes, sign: int) -> None:
    key = ed25519.Ed25519PublicKey.from_public_bytes(point[:31] + bytes([point[31] | sign]))
    assert code(pem(key)) == "weak_key"


@pytest.mark.parametrize("point", sorted(_SMALL_ORDER))
def test_the_table_of_small_orders_holds_nothing_else(point: bytes) -> None:
    """Doubling three times on the curve, by y alone: y(2P) is a function of y(P)² (RFC 8032 §5.1), and the neutral point has y = 1."""
    d = -121665 * pow(121666, -1, PRIME) % PRIME
    y = int.from_bytes(point, "little") % PRIME
    for _ in range(3):
        yy = y * y % PRIME
        xx = (yy - 1) * pow(d * yy + 1, -1, PRIME) % PRIME
        y = (yy + xx) * pow(2 + xx - yy, -1, PRIME) % PRIME
    assert y == 1


@pytest.mark.parametrize(
    "text",
    [
        private_pem(ED25519, PrivateFormat.PKCS8),
        private_pem(RSA, PrivateFormat.PKCS8),
        private_pem(RSA, PrivateFormat.TraditionalOpenSSL),
        private_pem(ED25519, PrivateFormat.OpenSSH),
        pem(ED25519.public_key()) + private_pem(ED25519, PrivateFormat.PKCS8),
    ],
)
def test_a_private_key_is_refused_without_repeating_any_of_it(text: str) -> None:
    error = parse_public_key(text, Algorithm.ED25519)
    assert isinstance(error, FieldError)
    assert error.code == "private_key"
    secrets = [line for line in text.splitlines() if line and not line.startswith("-----")]
    assert not any(line in repr(error) for line in secrets)


@pytest.mark.parametrize(
    "text",
    [
        "", "hello", "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----", pem(ED25519.public_key())[:-10],
        pem(ED25519.public_key()).replace("MCow", "!!!!"), "x" * 5000, pem(ED25519.public_key()) * 2,
        ED25519.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(),
    ],
    ids=["empty", "text", "no content", "cut", "not base64", "long", "two", "openssh"],
)  # fmt: skip
def test_what_is_not_a_public_key_is_refused_with_the_command_that_makes_one(text: str) -> None:
    assert code(text) == "not_a_public_key"


@given(
    st.one_of(
        st.text(max_size=200),
        st.binary(max_size=200).map(lambda data: f"-----BEGIN PUBLIC KEY-----\n{data.hex()}\n-----END PUBLIC KEY-----"),
    )
)
def test_no_text_raises(text: str) -> None:
    for algorithm in (Algorithm.ED25519, Algorithm.RSA_SHA256):
        parsed = parse_public_key(text, algorithm)
        assert isinstance(parsed, FieldError) or load_pem_public_key(text.strip().encode())
