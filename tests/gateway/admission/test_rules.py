"""Each authorization rule alone: what passes, at its edges, and what a refusal tells."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.lifecycle.addresses import why_not_public
from gateway.admission.dialects import Credentials
from gateway.admission.principal import Principal
from gateway.admission.routes import Route
from gateway.admission.rules import (
    AHEAD_MS,
    check_address,
    check_coverage,
    check_open,
    check_scope,
    check_standing,
    check_time,
    over_limit,
    rate_limited,
)
from gateway.errors import (
    AccountFrozen,
    IpNotAllowed,
    KeyExpired,
    Maintenance,
    MalformedRequest,
    Refusal,
    ScopeNotGranted,
    TimestampOutOfWindow,
    UnsignedQuery,
)
from gateway.keys.record import Scope
from gateway.net.client_ip import ClientAddress
from tests.support.keys import NOW_MS, a_record

INFINITE = float("inf")


def a_route(scope: str = "read", *, strict: bool = False) -> Route:
    return Route(0, "GET /a", scope, "spot", 1, strict_replay=strict, websocket=False, builtin="")


def signed(timestamp_ms: int = NOW_MS, **more: object) -> Credentials:
    return Credentials("gbk", b"s", b"m", timestamp_ms, **more)  # type: ignore[arg-type]


def principal(**changes: object) -> Principal:
    return Principal.of(a_record(**changes))


@pytest.mark.parametrize("scope", ["read", "trade", "any"])
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("covers_query", [False, True])
@pytest.mark.parametrize("unique", [False, True])
def test_a_trade_signs_its_query_and_a_strict_route_its_nonce(scope: str, strict: bool, covers_query: bool, unique: bool) -> None:
    credentials = signed(covers_query=covers_query, unique=unique)
    if scope == "trade" and not covers_query:
        with pytest.raises(UnsignedQuery, match="put the parameters into the body"):
            check_coverage(credentials, a_route(scope, strict=strict))
    elif strict and not unique:
        with pytest.raises(MalformedRequest, match='add a "nonce" parameter'):
            check_coverage(credentials, a_route(scope, strict=strict))
    else:
        check_coverage(credentials, a_route(scope, strict=strict))


@given(st.integers(-70_000, 70_000), st.integers(0, 70_000))
def test_a_request_is_as_old_as_its_window_allows_and_hardly_from_the_future(age_ms: int, window_ms: int) -> None:
    effective = window_ms or 5_000
    credentials = signed(NOW_MS - age_ms, window_ms=window_ms)
    if -AHEAD_MS <= age_ms <= effective <= 60_000:
        assert check_time(credentials, NOW_MS, 5_000, 60_000) == effective
        return
    with pytest.raises((MalformedRequest, TimestampOutOfWindow)) as refusal:
        check_time(credentials, NOW_MS, 5_000, 60_000)
    if window_ms > 60_000:
        assert isinstance(refusal.value, MalformedRequest)
    else:
        assert refusal.value.extras == {"server_time_ms": NOW_MS, "skew_ms": -age_ms, "window_ms": effective}


@pytest.mark.parametrize(
    ("age_ms", "window_ms", "told"),
    [
        (5_000, 0, None),
        (5_001, 0, "the request was signed 5001 ms ago; at most 5000 ms is accepted. Synchronize your clock with GET /gateway/v1/time"),
        (60_000, 60_000, None),
        (60_001, 60_000, "the request was signed 60001 ms ago; at most 60000 ms"),
        (2, 1, "the request was signed 2 ms ago; at most 1 ms"),
        (-1_000, 0, None),
        (-1_001, 0, "your clock is 1001 ms ahead of the server's; at most 1000 ms is accepted. Synchronize"),
        (0, 60_001, "the requested time window of 60001 ms exceeds the maximum of 60000 ms"),
    ],
)
def test_the_edges_of_the_window_and_what_is_told_beyond_them(age_ms: int, window_ms: int, told: str | None) -> None:
    credentials = signed(NOW_MS - age_ms, window_ms=window_ms)
    if told is None:
        assert check_time(credentials, NOW_MS, 5_000, 60_000) == (window_ms or 5_000)
        return
    with pytest.raises((TimestampOutOfWindow, MalformedRequest)) as refusal:
        check_time(credentials, NOW_MS, 5_000, 60_000)
    assert refusal.value.detail.startswith(told)


def test_a_signature_is_good_up_to_the_moment_it_expires() -> None:
    for expires_ms in (0, NOW_MS, NOW_MS + 1):
        assert check_time(signed(expires_ms=expires_ms), NOW_MS, 5_000, 60_000) == 5_000
    with pytest.raises(TimestampOutOfWindow, match="expired 1 ms ago, per its expires parameter") as refusal:
        check_time(signed(expires_ms=NOW_MS - 1), NOW_MS, 5_000, 60_000)
    assert refusal.value.extras == {"server_time_ms": NOW_MS, "skew_ms": -1, "window_ms": 5_000}


def test_a_key_stands_until_it_expires_and_while_its_account_does() -> None:
    for expires_ms in (None, NOW_MS + 1):
        check_standing(principal(expires_ms=expires_ms), NOW_MS)
    for now_ms in (NOW_MS, NOW_MS + 1):
        with pytest.raises(KeyExpired, match="this key has expired: create a new one") as expired:
            check_standing(principal(expires_ms=NOW_MS, frozen=True), now_ms)
        assert expired.value.extras == {"expired_at": "2026-09-21T14:13:20.000Z"}
    with pytest.raises(AccountFrozen, match="frozen or its identity verification was revoked: contact support"):
        check_standing(principal(frozen=True), NOW_MS)


def test_a_key_without_a_list_is_used_from_everywhere_even_from_nowhere() -> None:
    for client in (ClientAddress("192.0.2.1", ""), ClientAddress("", "why")):
        check_address(principal(), client)


FOUR, FOUR_MORE, SIX = (ip_address(text) for text in ("203.0.113.7", "203.0.113.8", "2001:db8::7"))


@pytest.mark.parametrize(
    ("allowed", "address", "told"),
    [
        ((FOUR,), "203.0.113.7", None),
        ((FOUR, SIX), "2001:db8::7", None),
        ((FOUR,), "203.0.113.8", "came from 203.0.113.8 (IPv4), and this key's IP allowlist has 1 address: create a key"),
        ((FOUR, FOUR_MORE), "203.0.113.9", "came from 203.0.113.9 (IPv4), and this key's IP allowlist has 2 addresses: create"),
        ((FOUR, SIX), "203.0.113.9", "came from 203.0.113.9 (IPv4), and this key's IP allowlist has 2 addresses: create"),
        ((FOUR, SIX), "2001:db8::8", "came from 2001:db8::8 (IPv6), and this key's IP allowlist has 2 addresses: create"),
        ((FOUR,), "2001:db8::8", "came from 2001:db8::8 (IPv6), and this key's IP allowlist has 1 IPv4 address and no IPv6 address: "),
        ((FOUR, FOUR_MORE), "2001:db8::8", "and this key's IP allowlist has 2 IPv4 addresses and no IPv6 address: create"),
        ((SIX,), "203.0.113.7", "came from 203.0.113.7 (IPv4), and this key's IP allowlist has 1 IPv6 address and no IPv4 address: "),
        ((FOUR,), "", "your IP address could not be determined, and this key has an IP allowlist: a hop is none"),
    ],
)
def test_a_listed_address_alone_passes_and_any_other_is_told(allowed: tuple[object, ...], address: str, told: str | None) -> None:
    client = ClientAddress(address, "" if address else "a hop is none")
    if told is None:
        check_address(principal(ip_allowlist=allowed), client)
        return
    with pytest.raises(IpNotAllowed) as refusal:
        check_address(principal(ip_allowlist=allowed), client)
    assert told in refusal.value.detail
    assert refusal.value.extras == {"client_ip": address or None, "allowed_count": len(allowed)}


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "172.16.0.1", "172.31.255.254", "192.168.1.1", "100.64.0.1", "169.254.1.1", "::1", "fd00::1", "fe80::1"],
)
def test_nobody_is_told_to_list_an_address_that_no_key_may_list(address: str) -> None:
    with pytest.raises(IpNotAllowed) as refusal:
        check_address(principal(ip_allowlist=(FOUR, SIX)), ClientAddress(address, ""))
    assert why_not_public(ip_address(address)) is not None
    assert f"came from {address} (" in refusal.value.detail
    assert "a list cannot have this address, which is not public" in refusal.value.detail
    assert "create a key that allows" not in refusal.value.detail


@pytest.mark.parametrize("granted", [{Scope.READ}, {Scope.TRADE}, {Scope.READ, Scope.TRADE}])
@pytest.mark.parametrize("required", ["read", "trade", "any"])
def test_a_permission_is_granted_by_its_own_name_alone(granted: set[Scope], required: str) -> None:
    names = sorted(scope.value for scope in granted)
    if required in (*names, "any"):
        check_scope(principal(scopes=frozenset(granted)), a_route(required))
        return
    with pytest.raises(ScopeNotGranted) as refusal:
        check_scope(principal(scopes=frozenset(granted)), a_route(required))
    assert (
        refusal.value.detail
        == f"this call requires the permission {required}; this key has {', '.join(names)}: create a key with that permission"
    )
    assert refusal.value.extras == {"required": required, "granted": names}


@pytest.mark.parametrize(("retry_ms", "seconds"), [(1, b"1"), (999, b"1"), (1_000, b"1"), (1_001, b"2"), (0, b"0")])
def test_a_closed_route_says_why_and_when_to_come_again(retry_ms: int, seconds: bytes) -> None:
    route = a_route()
    check_open(route)
    route.maintenance, route.maintenance_retry_ms = "until noon", retry_ms
    with pytest.raises(Maintenance, match=r"^until noon$") as refusal:
        check_open(route)
    told = refusal.value
    assert (told.headers, told.extras, told.route) == (((b"Retry-After", seconds),), {"retry_after_ms": retry_ms}, "GET /a")
    assert told.reason == "GET /a is closed by its maintenance setting"


def wait(refusal: Refusal) -> tuple[object, object]:
    return refusal.headers, refusal.extras


@pytest.mark.parametrize(
    ("retry_ms", "milliseconds", "seconds"), [(0.2, 1, b"1"), (1_000.4, 1_000, b"1"), (1_000.6, 1_001, b"2"), (59_999, 59_999, b"60")]
)
def test_a_limit_says_when_the_same_request_would_pass(retry_ms: float, milliseconds: int, seconds: bytes) -> None:
    for refusal in (rate_limited("too often", retry_ms, "key"), over_limit("5/minute", 3, retry_ms, "key")):
        assert wait(refusal) == (((b"Retry-After", seconds),), {"retry_after_ms": milliseconds})
        assert refusal.resource == "key"
        assert refusal.detail.endswith(f"; try again in {milliseconds} ms")
    assert rate_limited("too often", retry_ms).detail.startswith("too often; ")
    assert rate_limited("too often", retry_ms).resource == ""
    assert refusal.detail.startswith("rate limit of 5/minute exceeded; this request has weight 3; ")


def test_what_never_passes_is_not_told_to_come_again() -> None:
    for refusal in (rate_limited("too heavy", INFINITE, "key"), over_limit("5/minute", 6, INFINITE, "key")):
        assert wait(refusal) == ((), {"retry_after_ms": None})
        assert refusal.resource == "key"
    assert refusal.detail == "weight 6 exceeds the limit of 5/minute"
    assert (rate_limited("too heavy", INFINITE).detail, rate_limited("too heavy", INFINITE).resource) == ("too heavy", "")
