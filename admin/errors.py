"""The admin service's refusals, as a tree under ``gateway.errors.Refusal``.

    Refusal
    ├── InvalidJson 400 · NoEndpoint 404 · NotFound 404 · WrongMethod 405 · UnsupportedMediaType 415 · TooSlow 408
    ├── Unauthenticated 401
    ├── KycRequired · FactorRequired · StepUpRequired · StepUpFailed · LoginTooOld 403
    ├── CrossSite 403          a browser's request that was not sent by our own pages
    ├── ReportNotSigned 403    a report of leaked secrets without the reporter's valid signature
    ├── ImmutableKey 405
    ├── KeyLimitReached · LastFactor · FactorLimitReached · CountChanged 409
    ├── InvalidRequest 422     every field error at once
    └── ServiceUnavailable · IdentityProviderUnavailable 503

``detail`` and ``extras`` are sent to the caller and never contain a secret, a code or a pasted key.
"""

from typing import NamedTuple, Self

from gateway.errors import RateLimited, Refusal


class FieldError(NamedTuple):
    """One error in one member of a body: ``ip_allowlist[2]``, a code for translation, and a sentence in English."""

    field: str
    code: str
    message: str


class InvalidJson(Refusal):
    status, code, title = 400, "malformed_request", "Malformed request"


class Unauthenticated(Refusal):
    """No valid token or session; answered with a challenge (RFC 6750 §3)."""

    status, code, title = 401, "unauthenticated", "Log in first"

    @classmethod
    def because(cls, detail: str, *, token_given: bool, reason: str = "") -> Self:
        """:param detail: ASCII without quotes, since it is also sent in ``WWW-Authenticate``"""
        challenge = 'Bearer realm="gerbang"'
        if token_given:
            challenge += f', error="invalid_token", error_description="{detail}"'
        return cls(detail, reason=reason, headers=((b"WWW-Authenticate", challenge.encode("ascii")),))


class KycRequired(Refusal):
    status, code, title = 403, "kyc_required", "Verify your identity first"


class AccountIsFrozen(Refusal):
    status, code, title = 403, "account_frozen", "Account frozen"


class FactorRequired(Refusal):
    status, code, title = 403, "factor_required", "Enrol a second factor first"


class StepUpRequired(Refusal):
    status, code, title = 403, "step_up_required", "Confirm with 2FA first"


class StepUpFailed(Refusal):
    """Wrong, used, expired, or another intent; the extra ``reason`` says which, to the account's own holder."""

    status, code, title = 403, "step_up_failed", "The proof was not accepted"


class LoginTooOld(Refusal):
    """The first factor is enrolled with a login alone, so the login must be recent."""

    status, code, title = 403, "login_too_old", "Log in again first"


class CrossSite(Refusal):
    """An unsafe request with a session cookie, from another origin or without the page's token."""

    status, code, title = 403, "cross_site_request", "Cross-site request"


class ReportNotSigned(Refusal):
    """A report of leaked secrets without the reporter's valid signature."""

    status, code, title = 403, "report_not_signed", "Report not signed"


class NoEndpoint(Refusal):
    status, code, title = 404, "not_found", "No such endpoint"


class NotFound(Refusal):
    status, code, title = 404, "not_found", "Not found"


class WrongMethod(Refusal):
    status, code, title = 405, "method_not_allowed", "Method not allowed"


class ImmutableKey(Refusal):
    status, code, title = 405, "immutable_key", "A key cannot be changed"


class TooSlow(Refusal):
    status, code, title = 408, "request_timeout", "Request not received in time"


class KeyLimitReached(Refusal):
    status, code, title = 409, "key_limit_reached", "Key limit reached"


class LastFactor(Refusal):
    """An account with keys must keep at least one factor, so that a login alone never suffices to manage keys."""

    status, code, title = 409, "last_factor", "The last factor cannot be removed while there are keys"


class FactorLimitReached(Refusal):
    status, code, title = 409, "factor_limit_reached", "Factor limit reached"


class CountChanged(Refusal):
    """The number of matching keys differs from the expected one; nothing was changed."""

    status, code, title = 409, "count_changed", "The number of matching keys has changed"


class TooLarge(Refusal):
    status, code, title = 413, "body_too_large", "Body too large"


class UnsupportedMediaType(Refusal):
    status, code, title = 415, "unsupported_media_type", "Send application/json"


class InvalidRequest(Refusal):
    """A body that is JSON, but not valid for the endpoint."""

    status, code, title = 422, "invalid_request", "Invalid request"

    def __init__(self, errors: list[FieldError]) -> None:
        self.errors = errors
        fields = ", ".join(dict.fromkeys(error.field for error in errors if error.field))
        super().__init__(
            f"Correct these and send again: {fields}." if fields else "Correct the body and send it again.",
            reason=", ".join(f"{error.field}: {error.code}" for error in errors),
            extras={"errors": [error._asdict() for error in errors]},
        )


class ServiceUnavailable(Refusal):
    """PostgreSQL or Redis did not answer, or the service is stopping. Nothing was changed."""

    status, code, title = 503, "service_unavailable", "Service unavailable"


class IdentityProviderUnavailable(Refusal):
    status, code, title = 503, "identity_provider_unavailable", "Identity provider unavailable"


def rate_limited(detail: str, retry_after_ms: int) -> RateLimited:
    """429 with ``retry_after_ms`` and ``Retry-After``."""
    seconds = str(-(-retry_after_ms // 1000)).encode()
    return RateLimited(detail, headers=((b"Retry-After", seconds),), extras={"retry_after_ms": retry_after_ms})
