"""A key ready to be decided by: its verification, and the pretence of one."""

import hmac
from ipaddress import ip_address

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission.principal import Principal, pretend_to_verify
from gateway.keys.record import Algorithm, KeyRecord, Scope
from gateway.keys.secret import Secret
from tests.support.keys import a_record

ED25519 = Ed25519PrivateKey.generate()
RSA = {bits: generate_private_key(65537, bits) for bits in (2048, 3072)}
SECRETS = (b"gbs_" + b"s" * 49, b"s" * 64, b"s" * 65, b"longer than the hash's block " * 5)
MESSAGE = b"GET\n/v1/wallets\n1790000000"


def der(private) -> bytes:
    return private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def asymmetric(algorithm: Algorithm, private) -> Principal:
    return Principal.of(recorded(algorithm, private))


def recorded(algorithm: Algorithm, private) -> KeyRecord:
    return a_record(algorithm=algorithm, secret=None, public_key=der(private))


KEYS = [
    *((a_record(secret=Secret(secret)), lambda message, secret=secret: hmac.digest(secret, message, "sha256")) for secret in SECRETS),
    (recorded(Algorithm.ED25519, ED25519), ED25519.sign),
    *((recorded(Algorithm.RSA_SHA256, key), lambda message, key=key: key.sign(message, PKCS1v15(), SHA256())) for key in RSA.values()),
]


@pytest.mark.parametrize(("record", "sign"), KEYS)
@pytest.mark.parametrize("message", [MESSAGE, b"", bytes(100_000)])
def test_a_keys_own_signature_verifies(record, sign, message):
    assert Principal.of(record).verify(message, sign(message))


@pytest.mark.parametrize(("record", "sign"), KEYS)
def test_no_other_signature_verifies(record, sign):
    principal = Principal.of(record)
    right = sign(MESSAGE)
    assert not principal.verify(MESSAGE + b"\n", right)
    assert not principal.verify(MESSAGE, b"")
    assert not principal.verify(MESSAGE, right[:-1])
    assert not principal.verify(MESSAGE, right + b"\0")
    assert not principal.verify(MESSAGE, bytes(len(right)))
    for _, other in KEYS:
        if other is not sign:
            assert not principal.verify(MESSAGE, other(MESSAGE))


@given(st.sampled_from(KEYS), st.data())
def test_a_signature_with_any_bit_turned_does_not_verify(key, data):
    record, sign = key
    turned = bytearray(sign(MESSAGE))
    bit = data.draw(st.integers(0, len(turned) * 8 - 1))
    turned[bit // 8] ^= 1 << bit % 8
    assert not Principal.of(record).verify(MESSAGE, bytes(turned))


@given(st.sampled_from(KEYS), st.binary(max_size=600))
def test_no_bytes_make_verification_fail_with_an_error(key, signature):
    assert Principal.of(key[0]).verify(MESSAGE, signature) is (signature == key[1](MESSAGE))


@given(st.binary(max_size=600), st.binary(max_size=600))
def test_nobodys_signature_never_verifies(message, signature):
    assert pretend_to_verify(message, signature) is False


@pytest.mark.parametrize(("algorithm", "private"), [(Algorithm.ED25519, RSA[2048]), (Algorithm.RSA_SHA256, ED25519)])
def test_key_material_of_another_algorithm_is_refused(algorithm, private):
    with pytest.raises(ValueError, match="algorithm"):
        asymmetric(algorithm, private)


def test_a_curve_that_nobody_asked_for_is_refused():
    with pytest.raises(ValueError, match="algorithm"):
        asymmetric(Algorithm.ED25519, generate_ec(SECP256R1()))


def test_material_that_is_no_key_is_refused():
    with pytest.raises(ValueError):
        Principal.of(a_record(algorithm=Algorithm.ED25519, secret=None, public_key=b"not DER"))


def test_it_holds_what_is_decided_by():
    listed = (ip_address("8.8.8.8"), ip_address("2001:4860::8"))
    record = a_record(scopes=frozenset({Scope.TRADE, Scope.READ}), ip_allowlist=listed)
    principal = Principal.of(record)
    assert principal.identity == ("alice", record.key_id, ("read", "trade"))
    assert principal.scopes == {"read", "trade"}
    assert principal.allowlist == {"8.8.8.8", "2001:4860::8"}
    assert Principal.of(a_record()).allowlist is None


def test_it_holds_what_the_record_says_of_time_account_and_tier():
    record = a_record(expires_ms=1_790_000_000_000, frozen=True, tier="pro")
    principal = Principal.of(record)
    assert principal.record is record
    assert (principal.key_id, principal.algorithm) == (record.key_id, "hmac-sha256")
    assert (principal.expires_ms, principal.frozen, principal.tier) == (1_790_000_000_000, True, "pro")
    assert principal.account_ledger == "account:alice"


def test_an_rsa_key_alone_verifies_pss_with_a_salt_of_64_bytes_too():
    key = RSA[2048]
    verify = asymmetric(Algorithm.RSA_SHA256, key).verify_pss
    assert verify is not None
    right = key.sign(MESSAGE, PSS(MGF1(SHA512()), salt_length=64), SHA512())
    assert verify(MESSAGE, right)
    assert not verify(MESSAGE + b"\n", right)
    for padding, algorithm in ((PSS(MGF1(SHA512()), 32), SHA512()), (PSS(MGF1(SHA256()), 32), SHA256()), (PKCS1v15(), SHA512())):
        assert not verify(MESSAGE, key.sign(MESSAGE, padding, algorithm))
    assert asymmetric(Algorithm.ED25519, ED25519).verify_pss is None
    assert Principal.of(a_record()).verify_pss is None


@pytest.mark.parametrize(
    ("length", "work"),
    [
        *((length, ("hmac", 32)) for length in (0, 1, 31, 32, 63, 65, 255)),
        (64, ("ed25519", 64)),
        *((length, ("rsa 256", 256)) for length in (256, 257, 383)),
        *((length, ("rsa 384", 384)) for length in (384, 385, 511)),
        *((length, ("rsa 512", 512)) for length in (512, 513, 600)),
    ],
)
def test_nobodys_verification_is_of_the_kind_that_the_length_is_of(monkeypatch, length, work):
    done = []

    def of(kind):
        return lambda message, signature: done.append((kind, len(signature), message))

    monkeypatch.setattr("gateway.admission.principal._nobodys_hmac", of("hmac"))
    monkeypatch.setattr("gateway.admission.principal._nobodys_ed25519", of("ed25519"))
    monkeypatch.setattr("gateway.admission.principal._nobodys_rsa", {size: of(f"rsa {size}") for size in (256, 384, 512)})
    assert pretend_to_verify(MESSAGE, bytes(length)) is False
    assert done == [(*work, MESSAGE)]


@pytest.mark.parametrize(("record", "sign"), KEYS)
def test_a_signature_of_another_length_is_verified_as_nobodys(monkeypatch, record, sign):
    principal = Principal.of(record)
    pretended = []
    monkeypatch.setattr("gateway.admission.principal.pretend_to_verify", lambda *given: pretended.append(given) is not None)
    right = sign(MESSAGE)
    for other in (right[:-1], right + b"\0", b""):
        assert principal.verify(MESSAGE, other) is False
    assert pretended == [(MESSAGE, right[:-1]), (MESSAGE, right + b"\0"), (MESSAGE, b"")]
    assert principal.verify(MESSAGE, right)
    assert len(pretended) == 3
