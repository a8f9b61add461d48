"""Time-based one-time passwords (RFC 6238): SHA-1, six digits, 30 s steps, one step of drift. Pure."""

import hmac
import secrets
from base64 import b32encode

import pyotp

from admin.stepup.proof import Wrong
from gateway.keys.secret import Secret

STEP_MS = 30_000
DIGITS = 6
_DRIFT = 1
_SECRET_BYTES = 20  # RFC 4226 §4 R6 recommends 160 bits


def new_secret() -> Secret:
    """160 random bits."""
    return Secret(secrets.token_bytes(_SECRET_BYTES))


def base32(secret: Secret) -> str:
    """The secret in Base32, as authenticator apps expect it; shown once, at enrolment."""
    return b32encode(secret.reveal()).decode()


def otpauth_uri(secret: Secret, *, account_name: str, issuer_name: str) -> str:
    """The ``otpauth:`` URI that an authenticator app scans."""
    # Apps split the label at the first colon.
    return pyotp.TOTP(base32(secret)).provisioning_uri(name=account_name.replace(":", "_"), issuer_name=issuer_name)


def accepted_step(secret: Secret, code: str, *, now_ms: int, last_step: int) -> int | Wrong:
    """The code's time step, which must be stored, or why the code is refused.

    :param code: six digits; white space is ignored, as apps show it in groups
    :param last_step: the last accepted step (−1: none); codes of that step and of earlier ones are refused (RFC 6238 §5.2)
    """
    digits = "".join(code.split())
    if len(digits) != DIGITS or not digits.isascii() or not digits.isdigit():
        return Wrong.WRONG_CODE
    totp = pyotp.TOTP(base32(secret), digits=DIGITS)
    current = now_ms // STEP_MS
    steps = [step for step in range(current - _DRIFT, current + _DRIFT + 1) if hmac.compare_digest(totp.generate_otp(step), digits)]
    if not steps:
        return Wrong.WRONG_CODE
    newer = [step for step in steps if step > last_step]
    return newer[0] if newer else Wrong.CODE_ALREADY_USED
