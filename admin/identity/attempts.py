"""Logins in progress: what the callback needs, sealed in a cookie of the browser that started the login.

Nothing is stored here for a login that has only been started, because anyone can start one. Only the browser that holds the cookie
can finish it, and only for its own ``state``. Pure.
"""

import base64
from dataclasses import dataclass

from pydantic import TypeAdapter

from gateway.keys.vault import SealBroken, Vault

TTL_MS = 600_000
"""How long the customer may take at the identity provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginAttempt:
    """A login in progress. A cookie may be sent again until ``expires_ms``; its authorization code works once (RFC 6749 §4.1.2)."""

    nonce: str
    code_verifier: str
    return_to: str
    expires_ms: int


_RECORD = TypeAdapter(LoginAttempt)


def seal(attempt: LoginAttempt, vault: Vault, *, state: str) -> str:
    """The cookie's value: at most 450 characters."""
    sealed = vault.seal(_RECORD.dump_json(attempt), context=_context(state))
    return base64.urlsafe_b64encode(sealed).decode("ascii").rstrip("=")


def unseal(cookie: str, vault: Vault, now_ms: int, *, expected_state: str) -> LoginAttempt | None:
    """The attempt in a cookie; ``None``: there is none, it is of another state, or it has expired."""
    try:
        attempt = _RECORD.validate_json(vault.open(base64.urlsafe_b64decode(cookie + "=="), context=_context(expected_state)))
    except (SealBroken, ValueError):  # also text that cannot be encoded, and an attempt of a version with other fields
        return None
    return attempt if now_ms < attempt.expires_ms else None


def _context(state: str) -> str:
    return f"LoginAttempt:{state}"
