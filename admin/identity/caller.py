"""The authenticated caller, from a bearer token or a session alike."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from aiohttp import web


class Kyc(StrEnum):
    """Whether the customer's identity is verified. ``REVOKED`` is said by the back office alone."""

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
    """What the provider's claim says: ``VERIFIED`` or ``UNVERIFIED``. The account may be stricter."""
    authenticated_ms: int
    """When the customer last gave proof to the provider (``auth_time``); 0 when it does not say, which is never fresh."""
    issued_ms: int
    """When the claims were made: older claims never undo newer ones."""
    session_id: str | None = None
    """What a step-up challenge is bound to besides the account; ``None`` for a bearer token."""
    renewed_ms: int = 0
    """When its holder ended every other login, for the one that they kept."""
    token_id: str = ""
    """Names the bearer token, or the provider's session (``sid``) that it is of; empty for a session of ours."""

    @property
    def login(self) -> str:
        """What wrong proofs are counted by."""
        return self.session_id or self.token_id

    @property
    def stands_since_ms(self) -> int:
        """What an end of the account's logins is compared with: a login that is older is over."""
        return max(self.issued_ms, self.renewed_ms)


Authenticator = Callable[[web.Request, int], Awaitable[Caller | None]]
"""Takes the request and the time (Unix ms). ``None``: no credentials of this kind; raises ``Unauthenticated`` for wrong ones."""
