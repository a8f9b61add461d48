"""The ways a proof can fail, and the delays that follow. Pure."""

from enum import StrEnum

FREE_FAILURES = 5
"""Of one login."""
FREE_ACCOUNT_FAILURES = 20
"""Of all logins of an account together."""
_FIRST_DELAY_MS = 30_000
_LONGEST_DELAY_MS = 3_600_000
_CLOCK_MS = 300_000
"""By how much clocks may differ."""


class Wrong(StrEnum):
    """Why a proof was not accepted: shown to the account's holder as ``reason`` of ``step_up_failed``."""

    CHALLENGE_UNKNOWN = "challenge_unknown"
    CHALLENGE_USED = "challenge_used"
    CHALLENGE_EXPIRED = "challenge_expired"
    OTHER_INTENT = "other_intent"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    WRONG_CODE = "wrong_code"
    CODE_ALREADY_USED = "code_already_used"
    WRONG_PASSKEY = "wrong_passkey"

    @property
    def is_guess(self) -> bool:
        """Whether it may have been an attempt to guess, and counts towards lock-outs: a used code was right, a passkey is not guessed."""
        return self is Wrong.WRONG_CODE

    @property
    def detail(self) -> str:
        """What to do now."""
        return _DETAILS[self]


_DETAILS = {
    Wrong.CHALLENGE_UNKNOWN: "There is no such challenge for this account and session. Ask for one at /api/v1/step-up.",
    Wrong.CHALLENGE_USED: "This challenge was already used. Ask for another at /api/v1/step-up.",
    Wrong.CHALLENGE_EXPIRED: "This challenge has expired after two minutes. Ask for another at /api/v1/step-up.",
    Wrong.OTHER_INTENT: "This challenge was made for another request. Ask for one with exactly what you are sending now.",
    Wrong.METHOD_NOT_ALLOWED: "This kind of proof is not accepted here. Use one of the challenge's methods.",
    Wrong.WRONG_CODE: "The code is wrong. Check your device's clock and enter the code it shows now.",
    Wrong.CODE_ALREADY_USED: "This code was already used. Wait for the next one.",
    Wrong.WRONG_PASSKEY: "The passkey was not accepted.",
}


def lock_out_ms(failures: int, *, free: int = FREE_FAILURES) -> int:
    """How long to wait after so many wrong proofs in a row: nothing for the first ones, then growing, at most an hour."""
    if failures < free:
        return 0
    return min(_FIRST_DELAY_MS << min(failures - free, 16), _LONGEST_DELAY_MS)


def left_ms(locked_until_ms: int, now_ms: int) -> int:
    """How much of a delay is left; nothing if that would be more than the longest, because the clock has been set back since."""
    left = locked_until_ms - now_ms
    return left if 0 < left <= _LONGEST_DELAY_MS + _CLOCK_MS else 0
