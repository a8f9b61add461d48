"""TOTP: RFC 6238's own vectors, drift, and no code twice."""

import hashlib
from base64 import b32decode

import pyotp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.stepup import totp
from admin.stepup.proof import Wrong
from gateway.keys.secret import Secret

RFC_SECRET = Secret(b"12345678901234567890")
STEP = totp.STEP_MS
NOW = 1_111_111_111_000 // STEP * STEP


def code_at(step: int) -> str:
    return pyotp.TOTP(totp.base32(RFC_SECRET)).generate_otp(step)


@pytest.mark.parametrize(
    ("seconds", "eight_digits"),
    [
        (59, "94287082"),
        (1111111109, "07081804"),
        (1111111111, "14050471"),
        (1234567890, "89005924"),
        (2000000000, "69279037"),
        (20000000000, "65353130"),
    ],
)
def test_the_vectors_of_rfc_6238_are_accepted(seconds: int, eight_digits: str) -> None:
    """Appendix B; six digits are the last six of eight, by the truncation of RFC 4226 §5.3."""
    assert totp.accepted_step(RFC_SECRET, eight_digits[2:], now_ms=seconds * 1000, last_step=-1) == seconds // 30


@pytest.mark.parametrize("drift", [-1, 0, 1])
def test_one_step_of_drift_is_accepted(drift: int) -> None:
    assert totp.accepted_step(RFC_SECRET, code_at(NOW // STEP + drift), now_ms=NOW, last_step=-1) == NOW // STEP + drift


@pytest.mark.parametrize("drift", [-3, -2, 2, 3])
def test_two_steps_of_drift_are_refused(drift: int) -> None:
    assert totp.accepted_step(RFC_SECRET, code_at(NOW // STEP + drift), now_ms=NOW, last_step=-1) is Wrong.WRONG_CODE


def test_a_code_is_refused_the_second_time() -> None:
    step = totp.accepted_step(RFC_SECRET, code_at(NOW // STEP), now_ms=NOW, last_step=-1)
    assert isinstance(step, int)
    assert totp.accepted_step(RFC_SECRET, code_at(NOW // STEP), now_ms=NOW, last_step=step) is Wrong.CODE_ALREADY_USED


def test_an_older_step_is_refused_after_a_newer_one() -> None:
    assert totp.accepted_step(RFC_SECRET, code_at(NOW // STEP), now_ms=NOW, last_step=NOW // STEP + 1) is Wrong.CODE_ALREADY_USED


def test_the_next_step_is_accepted_after_this_one() -> None:
    assert totp.accepted_step(RFC_SECRET, code_at(NOW // STEP + 1), now_ms=NOW, last_step=NOW // STEP) == NOW // STEP + 1


def test_a_code_may_be_typed_in_groups() -> None:
    code = code_at(NOW // STEP)
    assert isinstance(totp.accepted_step(RFC_SECRET, f" {code[:3]} {code[3:]}\n", now_ms=NOW, last_step=-1), int)


@pytest.mark.parametrize("code", ["", "12345", "1234567", "abcdef", "١٢٣٤٥٦", "²²²²²²", "-12345", "1" * 10_000])
def test_what_is_not_six_digits_is_refused(code: str) -> None:
    assert totp.accepted_step(RFC_SECRET, code, now_ms=NOW, last_step=-1) is Wrong.WRONG_CODE


@given(st.text(max_size=12))
def test_any_text_is_refused_unless_it_is_one_of_three_codes(code: str) -> None:
    right = {code_at(NOW // STEP + drift) for drift in (-1, 0, 1)}
    accepted = totp.accepted_step(RFC_SECRET, code, now_ms=NOW, last_step=-1)
    assert isinstance(accepted, Wrong) == ("".join(code.split()) not in right)


def test_secrets_are_new_and_do_not_print() -> None:
    first, second = totp.new_secret(), totp.new_secret()
    assert first != second
    assert len(first.reveal()) == hashlib.sha1().digest_size
    assert b32decode(totp.base32(first)) == first.reveal()
    assert totp.base32(first) not in repr(first)


def test_the_uri_is_what_an_app_reads() -> None:
    uri = totp.otpauth_uri(RFC_SECRET, account_name="a:b@example.com", issuer_name="Gerbang Demo")
    parsed = pyotp.parse_uri(uri)
    assert (parsed.name, parsed.issuer, parsed.secret) == ("a_b@example.com", "Gerbang Demo", totp.base32(RFC_SECRET))
