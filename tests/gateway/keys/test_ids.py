"""Key ids and secrets as text."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.keys.ids import ALPHABET, _with_checksum, is_key_id, looks_like_secret, masked, new_key_id, new_secret


def test_a_new_key_id_has_the_contracts_form():
    key_id = new_key_id()
    assert key_id.startswith("gbk_")
    assert len(key_id) == 4 + 22 + 6
    assert is_key_id(key_id)


def test_a_new_secret_has_the_contracts_form_and_does_not_print():
    secret = new_secret()
    text = secret.reveal().decode()
    assert text.startswith("gbs_")
    assert len(text) == 4 + 43 + 6
    assert looks_like_secret(text)
    assert text not in f"{secret!r} {secret}"


def test_two_of_each_differ():
    assert new_key_id() != new_key_id()
    assert new_secret() != new_secret()


def test_the_checksum_is_crc32_in_base62_most_significant_digit_first():
    # A published value: CRC-32 (ISO-HDLC) of "123456789" is cbf43926. The rest is the contract's own arithmetic.
    assert zlib.crc32(b"123456789") == 0xCBF43926
    body = "gbk_0000000000000000000000"
    rest, digits = zlib.crc32(body.encode()), []
    for place in range(5, -1, -1):
        digits.append(ALPHABET[rest // 62**place])
        rest %= 62**place
    assert is_key_id(body + "".join(digits))


@pytest.mark.parametrize("text", ["", "gbk_", "gbk_" + "0" * 28, "gbs_" + "0" * 28, "gbk_" + "é" * 28, "gbk_" + "0" * 21 + "\n" + "0" * 6])
def test_text_of_another_form_is_no_key_id(text):
    assert not is_key_id(text)


def test_a_secret_is_no_key_id_and_a_key_id_no_secret():
    assert not is_key_id(new_secret().reveal().decode())
    assert not looks_like_secret(new_key_id())


@given(position=st.integers(0, 31), character=st.characters())
def test_a_key_id_with_one_wrong_character_is_refused(position, character):
    key_id = new_key_id()
    changed = key_id[:position] + character + key_id[position + 1 :]
    assert is_key_id(changed) == (changed == key_id)


@given(position=st.integers(4, 52), character=st.sampled_from(ALPHABET))
def test_a_secret_with_one_wrong_character_is_told(position, character):
    secret = new_secret().reveal().decode()
    changed = secret[:position] + character + secret[position + 1 :]
    assert looks_like_secret(changed) == (changed == secret)


@given(st.text())
def test_no_text_raises(text):
    is_key_id(text)
    is_key_id("gbk_" + text)
    looks_like_secret("gbs_" + text)


@given(position=st.integers(0, 21), character=st.sampled_from("-_ \n~!é"))
def test_a_checksum_does_not_make_up_for_a_character_that_no_key_id_has(position, character):
    text = new_key_id()[4:26]
    assert is_key_id(_with_checksum("gbk_" + text))
    assert not is_key_id(_with_checksum("gbk_" + text[:position] + character + text[position + 1 :]))


def test_a_masked_key_id_shows_eight_characters_and_four_of_all():
    assert masked("gbk_0123456789abcdefghijklmnopqr") == "gbk_0123…opqr"
