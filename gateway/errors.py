"""The exception hierarchy: every refusal with its HTTP status and code, and how it becomes a problem (RFC 9457).

    GerbangError                    base of all exceptions of this package
    ├── ConfigError                 an unusable configuration, with all of its problems
    ├── StoreUnavailable            PostgreSQL or Redis did not answer (never reaches a client as such)
    └── Refusal                     an answer to the client: status, code, detail, extras
        ├── MalformedRequest 400 …  one class per code of the contract
        └── …

``detail`` and ``extras`` are public; ``reason`` is for the log only.
:func:`problem_of` turns a refusal into the members of a problem (RFC 9457); nothing else does.
"""

from collections.abc import Mapping
from typing import ClassVar, Final, NamedTuple


class GerbangError(Exception):
    """Base of all exceptions of this package."""


class ConfigProblem(NamedTuple):
    """One error in a configuration: where (``limits.per_key``, ``routes[3].match``) and what to do."""

    path: str
    message: str


class ConfigError(GerbangError):
    """An unusable configuration. Contains all of its problems, not just the first."""

    def __init__(self, problems: list[ConfigProblem], source: str = "") -> None:
        self.problems = problems
        self.source = source
        lines = [f"{problem.path}: {problem.message}" if problem.path else problem.message for problem in problems]
        super().__init__("\n".join(([source + ":"] if source else []) + lines))


class StoreUnavailable(GerbangError):
    """PostgreSQL or Redis did not answer in time, or refused. ``str()`` never contains a DSN."""


class Requester(NamedTuple):
    """Who was refused, for the log, as far as that was known at the time."""

    key_id: str | None
    """Authenticated when :attr:`account` is set too; otherwise only claimed, and well-formed."""
    account_id: str | None
    client_ip: str
    """``""`` when it could not be determined."""


class Refusal(GerbangError):
    """An answer that the gate gives instead of the upstream.

    :param detail: for the client: what to do next
    :param reason: for the log only; defaults to ``detail``
    :param headers: field lines to add to the answer, e.g. ``Retry-After``
    :param close: whether the connection is closed after the answer (framing can no longer be trusted)
    :param extras: further members of the problem (RFC 9457 §3.2)
    :param resource: the exhausted resource, as a metric's label; one of a fixed set of names
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        reason: str = "",
        headers: tuple[tuple[bytes, bytes], ...] = (),
        close: bool = False,
        extras: Mapping[str, object] | None = None,
        resource: str = "",
    ) -> None:
        super().__init__(detail)
        self.resource = resource
        self.detail = detail
        self.reason = reason or detail
        self.headers = headers
        self.close = close
        self.extras: Mapping[str, object] = extras or {}
        self.requester: Requester | None = None
        """Set where the credentials were checked; never public."""
        self.route = ""
        """The route's pattern, for the log, when the refusal keeps the request from getting its route."""
        self.brief: bool | None = None
        """Whether the answer omits the explanation and nothing is logged (``admission.explanations``); ``None``: not decided yet."""


PROBLEM_JSON: Final = "application/problem+json"


def problem(status: int, code: str, title: str, detail: str, *, docs_url: str = "") -> dict[str, object]:
    """The members of a problem (RFC 9457 §3.1).

    :param docs_url: URL of the customers' documentation, which has a section for each code; ``""``: the type is a URN
    """
    kind = f"{docs_url}#{code}" if docs_url else f"urn:gerbang:problem:{code}"
    return {"type": kind, "title": title, "status": status, "code": code, "detail": detail}


def problem_of(refusal: Refusal, *, request_id: str, docs_url: str = "") -> dict[str, object]:
    """A refusal as a problem, with its extension members (RFC 9457 §3.2)."""
    members = problem(refusal.status, refusal.code, refusal.title, refusal.detail, docs_url=docs_url)
    return {**members, "request_id": request_id, **refusal.extras}


class InternalError(Refusal):
    """A defect of the gate itself; logged with its traceback, answered without one."""


class MalformedRequest(Refusal):
    status, code, title = 400, "malformed_request", "Malformed request"


class AmbiguousPath(Refusal):
    status, code, title = 400, "ambiguous_path", "Ambiguous path"


class AmbiguousCredentials(Refusal):
    status, code, title = 400, "ambiguous_credentials", "Ambiguous credentials"


class UnsignedQuery(Refusal):
    status, code, title = 400, "unsigned_query", "Query is not covered by the signature"


class MissingCredentials(Refusal):
    status, code, title = 401, "missing_credentials", "Missing credentials"


class InvalidCredentials(Refusal):
    """Unknown key and wrong signature alike: same body, same work."""

    status, code, title = 401, "invalid_credentials", "Invalid credentials"


class TimestampOutOfWindow(Refusal):
    status, code, title = 401, "timestamp_out_of_window", "Timestamp out of window"


class KeyExpired(Refusal):
    status, code, title = 401, "key_expired", "Key expired"


class IpNotAllowed(Refusal):
    status, code, title = 403, "ip_not_allowed", "IP address not allowed"


class ScopeNotGranted(Refusal):
    status, code, title = 403, "scope_not_granted", "Scope not granted"


class AccountFrozen(Refusal):
    status, code, title = 403, "account_frozen", "Account frozen"


class NoRoute(Refusal):
    status, code, title = 404, "no_route", "No such route"


class MethodNotAllowed(Refusal):
    status, code, title = 405, "method_not_allowed", "Method not allowed"


class RequestTimeout(Refusal):
    status, code, title = 408, "request_timeout", "Request not received in time"


class ReplayedRequest(Refusal):
    status, code, title = 409, "replayed_request", "Replayed request"
    repeated: bool = False
    """Whether it had been refused as a replay before: then it counts against the sender's address."""


class BodyTooLarge(Refusal):
    status, code, title = 413, "body_too_large", "Body too large"


class ExpectationFailed(Refusal):
    status, code, title = 417, "expectation_failed", "Expectation failed"


class RateLimited(Refusal):
    status, code, title = 429, "rate_limited", "Rate limited"


class HeadersTooLarge(Refusal):
    status, code, title = 431, "headers_too_large", "Headers too large"


class UpstreamUnreachable(Refusal):
    """No connection could be established, or it failed before a complete response head was received."""

    status, code, title = 502, "upstream_unreachable", "Upstream unreachable"


class UpstreamUnavailable(Refusal):
    """Every server of the pool is known to be down; no attempt was made."""

    status, code, title = 503, "upstream_unavailable", "Upstream unavailable"


class Maintenance(Refusal):
    """The operator has closed this route temporarily; no attempt was made."""

    status, code, title = 503, "maintenance", "Under maintenance"


class KeyStoreUnavailable(Refusal):
    status, code, title = 503, "key_store_unavailable", "Key store unavailable"


class ReplayGuardUnavailable(Refusal):
    status, code, title = 503, "replay_guard_unavailable", "Replay guard unavailable"


class Overloaded(Refusal):
    """A bound on concurrent work was reached, or the gate is shutting down."""

    status, code, title = 503, "overloaded", "Overloaded"


class UpstreamTimeout(Refusal):
    status, code, title = 504, "upstream_timeout", "Upstream timeout"
