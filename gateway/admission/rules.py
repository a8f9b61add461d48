"""The authorization rules: one function each for coverage, time, expiry, client address, scope and maintenance. Pure.

:meth:`gateway.admission.gate.Gate.admit` calls them in the contract's order; none of them knows another.
"""

from typing import Final

from gateway.admission.dialects import Credentials
from gateway.admission.principal import Principal
from gateway.admission.routes import Route
from gateway.config.settings import Auth
from gateway.errors import (
    AccountFrozen,
    IpNotAllowed,
    KeyExpired,
    Maintenance,
    MalformedRequest,
    RateLimited,
    ScopeNotGranted,
    TimestampOutOfWindow,
    UnsignedQuery,
)
from gateway.net.client_ip import Seen
from gateway.runtime.moments import rfc3339

AHEAD_MS: Final = 1_000
"""How far a client's clock may be ahead of the gate's."""
CLOCKS_MS: Final = 10_000
"""How far the gate's own clocks may be apart, of two machines or of one before and after it is set right, and no request passes twice."""


def check_coverage(credentials: Credentials, route: Route) -> None:
    """What a call that changes something must have signed.

    :raises UnsignedQuery: it has a query, and the dialect does not sign it
    :raises MalformedRequest: the dialect has a place for a nonce, and the request has none
    """
    if route.scope == "trade" and not credentials.covers_query:
        raise UnsignedQuery("this dialect does not sign the query, and this call changes something: send it without a query")
    if route.strict_replay and not credentials.unique:
        raise MalformedRequest('this call is admitted once per signature: add a "nonce" to Signature-Input')


def check_time(credentials: Credentials, now_ms: int, auth: Auth) -> int:
    """Whether the request is fresh.

    :return: the window that applies, in milliseconds
    :raises TimestampOutOfWindow: too old, ahead of time, or expired by its own word
    :raises MalformedRequest: it asks for a window that is not granted
    """
    window_ms = credentials.window_ms or auth.clock_window_ms
    if window_ms > auth.max_clock_window_ms:
        raise MalformedRequest(f"the request asks for a window of {window_ms} ms; at most {auth.max_clock_window_ms} ms")
    age_ms = now_ms - credentials.timestamp_ms
    if not -AHEAD_MS <= age_ms <= window_ms:
        if age_ms < 0:
            advice = f"your clock is {-age_ms} ms ahead; at most {AHEAD_MS} ms"
        else:
            advice = f"the request was signed {age_ms} ms ago; at most {window_ms} ms"
        raise TimestampOutOfWindow(
            f"{advice}. Set your clock by GET /gateway/v1/time, and sign right before sending",
            extras={"server_time_ms": now_ms, "skew_ms": -age_ms, "window_ms": window_ms},
        )
    if credentials.expires_ms and now_ms > credentials.expires_ms:
        raise TimestampOutOfWindow(
            f"the signature expired {now_ms - credentials.expires_ms} ms ago by its own word",
            extras={"server_time_ms": now_ms, "skew_ms": credentials.expires_ms - now_ms, "window_ms": window_ms},
        )
    return window_ms


def check_standing(principal: Principal, now_ms: int) -> None:
    """:raises KeyExpired, AccountFrozen: the key is its owner's, and may not be used"""
    if principal.expires_ms is not None and now_ms >= principal.expires_ms:
        raise KeyExpired("this key has expired: create a new one", extras={"expired_at": rfc3339(principal.expires_ms)})
    if principal.frozen:
        raise AccountFrozen("the account is frozen, or its identity is not verified any more: contact support")


def check_address(principal: Principal, seen: Seen) -> None:
    """:raises IpNotAllowed: the key lists addresses, and this is none of them or cannot be told"""
    allowed = principal.allowlist
    if allowed is None or seen.address in allowed:
        return
    if not seen.address:
        detail = f"your address cannot be told, and this key is whitelisted: {seen.problem}"
    else:
        detail = _address_advice(seen.address, allowed)
    raise IpNotAllowed(detail, extras={"client_ip": seen.address or None, "allowed_count": len(allowed)})


def check_scope(principal: Principal, route: Route) -> None:
    """:raises ScopeNotGranted: the route wants a permission that the key lacks"""
    if route.scope not in principal.scopes and route.scope != "any":
        granted = list(principal.identity.scopes)
        raise ScopeNotGranted(
            f"this call needs a key with the permission {route.scope}; this one has {', '.join(granted)}",
            extras={"required": route.scope, "granted": granted},
        )


def check_open(route: Route) -> None:
    """:raises Maintenance: the operator has closed the route; told to everybody, before any credentials are looked at"""
    if route.maintenance:
        seconds = -(-route.maintenance_retry_ms // 1000)
        refusal = Maintenance(
            route.maintenance,
            reason=f"{route.pattern} is closed by its maintenance setting",
            headers=((b"Retry-After", b"%d" % seconds),),
            extras={"retry_after_ms": route.maintenance_retry_ms},
        )
        refusal.route = route.pattern
        raise refusal


def rate_limited(why: str, retry_ms: float, resource: str = "") -> RateLimited:
    """The refusal of a limit.

    :param retry_ms: until the same request would pass; infinite for never
    :param resource: see :class:`gateway.errors.Refusal`
    """
    if retry_ms == float("inf"):
        return RateLimited(f"{why}: it can never pass", extras={"retry_after_ms": None}, resource=resource)
    milliseconds = max(1, round(retry_ms))
    seconds = -(-milliseconds // 1000)
    return RateLimited(
        f"{why}; try again in {milliseconds} ms",
        headers=((b"Retry-After", b"%d" % seconds),),
        extras={"retry_after_ms": milliseconds},
        resource=resource,
    )


def _address_advice(address: str, allowed: frozenset[str]) -> str:
    family = 6 if ":" in address else 4
    same = sum((":" in one) is (family == 6) for one in allowed)
    count = f"{len(allowed)} address{'es' if len(allowed) != 1 else ''}"
    if not same:
        count = f"{len(allowed)} IPv{10 - family} address{'es' if len(allowed) != 1 else ''} and none of IPv{family}"
    return f"you arrived over IPv{family} from {address}; this key lists {count}. Create a key that lists it, or come from a listed one"
