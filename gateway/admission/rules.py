"""The authorization rules: one function each for coverage, time, expiry, client address, scope and maintenance. Pure.

:meth:`gateway.admission.gate.Gate.decide` calls them in the contract's order; they are independent of each other.
"""

from ipaddress import IPv4Network, IPv6Network
from typing import Final

from gateway.admission.dialects import Credentials
from gateway.admission.principal import Principal
from gateway.admission.routes import Route
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
from gateway.net.addresses import NetworkList
from gateway.net.client_ip import ClientAddress
from gateway.runtime.moments import rfc3339

AHEAD_MS: Final = 1_000
"""How far a client's clock may be ahead of the gate's."""
CLOCKS_MS: Final = 10_000
"""Tolerated difference between the gate's own clocks, on two machines or across an adjustment, without a request passing twice."""

_NEVER_LISTED: Final = NetworkList(
    [
        *map(IPv4Network, ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")),
        *map(IPv6Network, ("::1/128", "fc00::/7", "fe80::/10")),
    ]
)
"""What a client beside the gate has, or a proxy that the gate does not know: no allowlist may contain it, so no new key would help."""
_NOT_PUBLIC: Final = (
    "From inside the exchange's network, use an unrestricted key; if you came over the internet, report this to the exchange"
)


def check_coverage(credentials: Credentials, route: Route) -> None:
    """Check that a call with side effects signs everything it must.

    :raises UnsignedQuery: it has a query, and the dialect does not sign it
    :raises MalformedRequest: the dialect has a place for a nonce, and the request has none
    """
    if route.scope == "trade" and not credentials.covers_query:
        raise UnsignedQuery(
            "this dialect does not sign the query string: put the parameters into the body, and end the target before the ?"
        )
    if route.strict_replay and not credentials.unique:
        raise MalformedRequest('each signature is accepted once on this route: add a "nonce" parameter to Signature-Input')


def check_time(credentials: Credentials, now_ms: int, clock_window_ms: int, max_clock_window_ms: int) -> int:
    """Check the request's timestamp.

    :param clock_window_ms: maximum age of a request that sets no window itself
    :param max_clock_window_ms: maximum window that a request may set
    :return: the window that applies, in milliseconds
    :raises TimestampOutOfWindow: too old, ahead of time, or expired per its ``expires`` parameter
    :raises MalformedRequest: the requested window exceeds the maximum
    """
    window_ms = credentials.window_ms or clock_window_ms
    if window_ms > max_clock_window_ms:
        raise MalformedRequest(f"the requested time window of {window_ms} ms exceeds the maximum of {max_clock_window_ms} ms")
    age_ms = now_ms - credentials.timestamp_ms
    if not -AHEAD_MS <= age_ms <= window_ms:
        if age_ms < 0:
            advice = f"your clock is {-age_ms} ms ahead of the server's; at most {AHEAD_MS} ms is accepted"
        else:
            advice = f"the request was signed {age_ms} ms ago; at most {window_ms} ms is accepted"
        raise TimestampOutOfWindow(
            f"{advice}. Synchronize your clock with GET /gateway/v1/time, and sign immediately before sending",
            extras={"server_time_ms": now_ms, "skew_ms": -age_ms, "window_ms": window_ms},
        )
    if credentials.expires_ms and now_ms > credentials.expires_ms:
        raise TimestampOutOfWindow(
            f"the signature expired {now_ms - credentials.expires_ms} ms ago, per its expires parameter",
            extras={"server_time_ms": now_ms, "skew_ms": credentials.expires_ms - now_ms, "window_ms": window_ms},
        )
    return window_ms


def check_standing(principal: Principal, now_ms: int) -> None:
    """:raises KeyExpired, AccountFrozen: the signature has verified, but the key may not be used"""
    if principal.expires_ms is not None and now_ms >= principal.expires_ms:
        raise KeyExpired("this key has expired: create a new one", extras={"expired_at": rfc3339(principal.expires_ms)})
    if principal.frozen:
        raise AccountFrozen("the account is frozen or its identity verification was revoked: contact support")


def check_address(principal: Principal, client: ClientAddress) -> None:
    """:raises IpNotAllowed: the key has an IP allowlist, and the client IP is not in it or could not be determined"""
    allowed = principal.allowlist
    if allowed is None or client.address in allowed:
        return
    if not client.address:
        detail = f"your IP address could not be determined, and this key has an IP allowlist: {client.problem}"
    else:
        detail = _address_advice(client.address, allowed)
    raise IpNotAllowed(detail, extras={"client_ip": client.address or None, "allowed_count": len(allowed)})


def check_scope(principal: Principal, route: Route) -> None:
    """:raises ScopeNotGranted: the route requires a permission that the key lacks"""
    if route.scope not in principal.scopes and route.scope != "any":
        granted = list(principal.identity.scopes)
        raise ScopeNotGranted(
            f"this call requires the permission {route.scope}; this key has {', '.join(granted)}: create a key with that permission",
            extras={"required": route.scope, "granted": granted},
        )


def check_open(route: Route) -> None:
    """:raises Maintenance: the operator has closed the route; refused for everyone, before credentials are checked"""
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


def over_limit(limit: str, weight: int, retry_ms: float, resource: str) -> RateLimited:
    """The refusal of a request by a limit in weight units.

    :param retry_ms: see :func:`rate_limited`; infinite if the weight alone exceeds the limit
    """
    if retry_ms == float("inf"):
        return rate_limited(f"weight {weight} exceeds the limit of {limit}", retry_ms, resource)
    return rate_limited(f"rate limit of {limit} exceeded; this request has weight {weight}", retry_ms, resource)


def rate_limited(why: str, retry_ms: float, resource: str = "") -> RateLimited:
    """The refusal of a request over a rate limit.

    :param retry_ms: milliseconds until the same request would pass; infinite: never
    :param resource: see :class:`gateway.errors.Refusal`
    """
    if retry_ms == float("inf"):
        return RateLimited(why, extras={"retry_after_ms": None}, resource=resource)
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
        count = f"{len(allowed)} IPv{10 - family} address{'es' if len(allowed) != 1 else ''} and no IPv{family} address"
    came = f"the request came from {address} (IPv{family}), and this key's IP allowlist has {count}"
    if _NEVER_LISTED.contains(address):
        return f"{came}: a list cannot have this address, which is not public. {_NOT_PUBLIC}"
    return f"{came}: create a key that allows this address"
