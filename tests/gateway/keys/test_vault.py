"""The vault: ring, seals, and what its errors tell."""

import base64
import secrets
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConfigError
from gateway.keys.vault import SealBroken, Vault, _xaes, new_entry


def entry(key_id: str, size: int = 32) -> str:
    return f"{key_id}:{base64.b64encode(secrets.token_bytes(size)).decode()}"


@pytest.mark.parametrize(
    ("key", "aad", "ciphertext"),
    [
        # https://c2sp.org/XAES-256-GCM, "Test vectors"; one of each sign of the CMAC subkey's doubling.
        (b"\x01" * 32, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (b"\x03" * 32, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ],
)
def test_the_cipher_is_xaes_256_gcm(key, aad, ciphertext):
    nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX"
    assert _xaes(key, nonce).encrypt(nonce[12:], b"XAES-256-GCM", aad).hex() == ciphertext


def test_what_was_sealed_opens():
    vault = Vault.parse(entry("a"))
    assert vault.open(vault.seal(b"value", context="gbk_1"), context="gbk_1") == b"value"


def test_the_plaintext_does_not_show_and_no_two_seals_are_alike():
    vault = Vault.parse(entry("a"))
    first, second = (vault.seal(b"a long enough secret value", context="x") for _ in range(2))
    assert b"secret" not in first
    assert first != second


def test_a_seal_does_not_open_in_another_context():
    vault = Vault.parse(entry("a"))
    with pytest.raises(SealBroken):
        vault.open(vault.seal(b"value", context="gbk_1"), context="gbk_2")


def test_the_first_key_seals_and_every_key_opens():
    old, new = entry("old"), entry("new")
    sealed = Vault.parse(old).seal(b"value", context="x")
    rotated = Vault.parse(f"{new} {old}")
    assert rotated.open(sealed, context="x") == b"value"
    assert not rotated.is_current(sealed)
    assert rotated.is_current(rotated.seal(b"value", context="x"))


def test_a_seal_of_a_key_that_is_gone_says_which():
    sealed = Vault.parse(entry("old")).seal(b"value", context="x")
    with pytest.raises(SealBroken, match="'old', which is not in the ring"):
        Vault.parse(entry("new")).open(sealed, context="x")


def test_another_key_under_the_same_id_does_not_open():
    sealed = Vault.parse(entry("a")).seal(b"value", context="x")
    with pytest.raises(SealBroken):
        Vault.parse(entry("a")).open(sealed, context="x")


@given(st.data())
def test_a_seal_with_any_byte_changed_or_cut_off_does_not_open(data):
    vault = Vault.parse(entry("a"))
    sealed = vault.seal(b"value", context="x")
    position = data.draw(st.integers(0, len(sealed) - 1))
    flipped = sealed[:position] + bytes((sealed[position] ^ data.draw(st.integers(1, 255)),)) + sealed[position + 1 :]
    for damaged in (flipped, sealed[:position]):
        with pytest.raises(SealBroken):
            vault.open(damaged, context="x")


def test_what_was_cut_off_says_so():
    vault = Vault.parse(entry("a"))
    sealed = vault.seal(b"", context="x")
    assert vault.open(sealed, context="x") == b""
    for length in (2, len(sealed) - 1):
        with pytest.raises(SealBroken, match="truncated"):
            vault.open(sealed[:length], context="x")


@given(st.binary(max_size=200), st.text(max_size=20))
def test_no_bytes_but_a_seal_open(garbage, context):
    vault = Vault.parse(entry("a"))
    with pytest.raises(SealBroken):
        vault.open(garbage, context=context)
    assert not vault.is_current(b"\x02" + garbage)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no key"),
        (" \n ", "there is no key"),
        ("{a} {a}", "key 2 has the id of an earlier key"),
        ("{a} b:{a_key}", "key 2 is the same key"),
        ("{a} {short}", "key 2 has 16 bytes, not 32"),
        ("{a} nokey", 'key 2 is not written "id:base64"'),
        ("{a} :{a_key}", "key 2 is not written"),
        ("{a} b:", "key 2 is not written"),
        ("b:!!!! {a}", "key 1 is not standard Base64"),
        ("b:é {a}", "key 1 is not standard Base64"),
    ],
)
def test_a_malformed_ring_names_the_position_and_never_the_value(text, message):
    a, short = entry("a"), entry("s", 16)
    with pytest.raises(ConfigError, match=message) as refusal:
        Vault.parse(text.format(a=a, a_key=a[2:], short=short))
    assert a[2:] not in str(refusal.value)
    assert short[2:] not in str(refusal.value)


def test_every_malformed_key_of_a_ring_is_told_at_once():
    with pytest.raises(ConfigError) as refusal:
        Vault.parse(f"x {entry('a', 5)} {entry('b')}")
    assert [problem.message.split()[1] for problem in refusal.value.problems] == ["1", "2"]
    assert {problem.path for problem in refusal.value.problems} == {"vault.keys"}


@given(st.text())
def test_any_text_is_a_ring_or_a_config_error(text):
    with suppress(ConfigError):
        Vault.parse(text)


@given(st.text(alphabet="abc:=+/ 0", min_size=1, max_size=60))
def test_the_refusal_of_a_ring_never_shows_what_was_written(text):
    secret = "c0ffee" + "A" * 37
    with pytest.raises(ConfigError) as refusal:
        Vault.parse(f"{text} x:{secret}")
    assert secret not in str(refusal.value)


def test_neither_repr_nor_a_new_entry_of_a_bad_id_shows_a_key():
    made = new_entry("2026-a")
    assert made[7:] not in repr(Vault.parse(made))
    with pytest.raises(ValueError, match="1–32 letters"):
        new_entry("a b")
