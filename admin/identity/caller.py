"""The authenticated caller, from a bearer token or a session alike."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from aiohttp import web


class Kyc(StrEnum):
    """Whether the customer's identity is verified. Only the back office sets ``REVOKED``."""

    VERIFIED = "verified"
    UNVERIFIED = "unverified"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An authenticated account holder. Frozen: made once per request (or once per login, for a session)."""

    account_id: str
    """The provider's ``sub``."""
    email: str | None
    kyc: Kyc
    """The provider's claim: ``VERIFIED`` or ``UNVERIFIED``. The account's state may be stricter."""
    authenticated_ms: int
    """When the customer last authenticated at the provider (``auth_time``); 0: unknown, which never counts as recent."""
    issued_ms: int
    """When the claims were issued: older claims never replace newer ones."""
    session_id: str | None = None
    """The session that a step-up challenge is bound to; ``None`` for a bearer token."""
    renewed_ms: int = 0
    """When the holder ended all other logins, for the one that was kept."""
    token_id: str = ""
    """Identifies the bearer token, or the provider's session (``sid``); empty for our own sessions."""

    @property
    def login(self) -> str:
        """The key by which wrong proofs are counted."""
        return self.session_id or self.token_id

    @property
    def stands_since_ms(self) -> int:
        """The time compared with the end of the account's logins: an older login is over."""
        return max(self.issued_ms, self.renewed_ms)


Authenticator = Callable[[web.Request, int], Awaitable[Caller | None]]
"""Takes the request and the time (Unix ms). ``None``: no credentials of this kind; raises ``Unauthenticated`` for wrong ones."""
