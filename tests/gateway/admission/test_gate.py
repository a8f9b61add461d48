"""The one function that decides: its order, each refusal with what it tells, and what is counted."""

import asyncio
import dataclasses
from ipaddress import ip_address
from itertools import combinations
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from deploy.signing import DIALECTS
from gateway.admission.driver import Pending
from gateway.admission.outcome import KeyNeeded
from gateway.admission.principal import Principal
from gateway.admission.rules import AHEAD_MS, CLOCKS_MS
from gateway.config.values import Rate
from gateway.errors import InternalError, InvalidCredentials, KeyStoreUnavailable, MalformedRequest, Refusal, ReplayedRequest
from gateway.http1.body import UNVERIFIED
from gateway.keys.cache import ABSENT
from gateway.keys.record import Scope
from gateway.net.addresses import is_site
from gateway.runtime.moments import rfc3339
from tests.support.keys import NOW_MS, a_record
from tests.support.scene import HERE, LIMIT, Scene, behind_a_proxy

# -- what passes


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(("method", "target", "body"), [("GET", "/read", b""), ("POST", "/trade", b"a=1&b=2")])
def test_a_signed_request_passes(dialect, method, target, body):
    scene = Scene(dialect=dialect, method=method, target=target, body=body)
    admitted = scene.admit()
    assert admitted.identity == (scene.record.account_id, scene.record.key_id, ("read", "trade"))
    assert admitted.route.pattern == f"{method} {target}"
    assert admitted.client_ip == HERE


def test_a_public_route_looks_at_no_credentials():
    for scene in (Scene(target="/public", forge=True), Scene(target="/public", extra=((b"x-mbx-apikey", b"again"),))):
        admitted = scene.admit()
        assert (admitted.identity, admitted.client_ip, admitted.answer_headers, admitted.replay) == (None, HERE, b"", None)
        assert scene.lookup.asked == 0
        assert scene.usage.counts == {}


def test_an_address_that_asks_too_much_of_public_routes_waits_and_its_signed_requests_pass():
    scene = Scene(target="/public", peer="2001:db8:1:2::7")
    scene.limits["per_address"] = "3/minute"
    for _ in range(3):
        scene.admit()
    scene.peer = "2001:db8:1:2:ffff::9"
    refusal = scene.refused()
    assert (refusal.code, refusal.extras, refusal.requester) == ("rate_limited", {"retry_after_ms": 20_000}, (None, None, scene.peer))
    scene.target = "/read"
    assert scene.admit()
    scene.target, scene.peer = "/public", "2001:db8:1:3::1"
    assert scene.admit()


@pytest.mark.parametrize("scope", [Scope.READ, Scope.TRADE])
def test_any_permission_opens_a_route_for_any(scope):
    assert Scene(target="/any", record=a_record(scopes=frozenset({scope}))).admit().identity.scopes == (scope.value,)


def test_a_request_is_charged_its_weight_once_and_told_what_is_left():
    scene = Scene(method="POST", target="/heavy")
    admitted = scene.admit()
    assert scene.limiter.charged == [40]
    assert admitted.answer_headers == (
        b'RateLimit-Policy: "key";q=100;w=60\r\nRateLimit-Limit: 100\r\nRateLimit: "key";r=60;t=1\r\n'
        b"RateLimit-Remaining: 60\r\nRateLimit-Reset: 24\r\nX-MBX-USED-WEIGHT-1M: 40\r\n"
    )
    assert scene.usage.counts == {}, "counted once its signature is claimed"


@pytest.mark.parametrize("address", ["203.0.113.7", "2001:db8::7"])
def test_a_listed_address_passes(address):
    record = a_record(ip_allowlist=(ip_address(address),))
    assert Scene(record=record, peer=address).admit().client_ip == address


def test_an_ipv4_address_passes_however_the_socket_writes_it():
    assert Scene(record=a_record(ip_allowlist=(ip_address(HERE),)), peer=f"::ffff:{HERE}").admit().client_ip == HERE


@pytest.mark.parametrize("expires_ms", [NOW_MS + 1, None])
def test_a_key_is_good_until_it_expires(expires_ms):
    assert Scene(record=a_record(expires_ms=expires_ms)).admit().expires_ms == expires_ms


@pytest.mark.parametrize("signed_ms", [NOW_MS - 5_000, NOW_MS + 1_000])
def test_the_clock_may_be_as_far_off_as_the_window_says(signed_ms):
    assert Scene(signed_ms=signed_ms).admit()


def test_a_request_may_ask_for_a_wider_window():
    assert Scene(target="/read?recvWindow=60000", signed_ms=NOW_MS - 60_000).admit()


# -- what is refused, and what is told


def spoil_credentials(scene: Scene) -> None:
    scene.extra = ((b"x-mbx-apikey", b"another"),)


def spoil_window(scene: Scene) -> None:
    scene.target += "?recvWindow=60001"


def spoil_time(scene: Scene) -> None:
    scene.signed_ms = NOW_MS - 70_000


def spoil_signature(scene: Scene) -> None:
    scene.forge = True


def spoil_expiry(scene: Scene) -> None:
    scene.become(expires_ms=NOW_MS)


def spoil_standing(scene: Scene) -> None:
    scene.become(frozen=True)


def spoil_address(scene: Scene) -> None:
    scene.become(ip_allowlist=(ip_address("8.8.8.8"), ip_address("8.8.4.4")))


def spoil_scope(scene: Scene) -> None:
    scene.become(scopes=frozenset({Scope.TRADE}))


def spoil_limit(scene: Scene) -> None:
    scene.limiter.tat = scene.now_ms + LIMIT.period_ms


ORDER = {
    spoil_credentials: (400, "ambiguous_credentials"),
    spoil_window: (400, "malformed_request"),
    spoil_time: (401, "timestamp_out_of_window"),
    spoil_signature: (401, "invalid_credentials"),
    spoil_expiry: (401, "key_expired"),
    spoil_standing: (403, "account_frozen"),
    spoil_address: (403, "ip_not_allowed"),
    spoil_scope: (403, "scope_not_granted"),
    spoil_limit: (429, "rate_limited"),
}
"""The contract's order, with what each step answers."""


def spoiled(*faults) -> Scene:
    scene = Scene()
    for fault in faults:
        fault(scene)
    return scene


@pytest.mark.parametrize("fault", ORDER)
def test_each_fault_has_its_refusal(fault):
    refusal = spoiled(fault).refused()
    assert (refusal.status, refusal.code) == ORDER[fault]


@pytest.mark.parametrize("fault", ORDER)
def test_who_was_refused_is_known_for_the_log_with_the_account_once_the_signature_holds(fault):
    scene = spoiled(fault)
    proven = fault is spoil_time or list(ORDER).index(fault) > list(ORDER).index(spoil_signature)
    assert scene.refused().requester == (scene.record.key_id, scene.record.account_id if proven else None, HERE)


def test_only_a_key_id_is_noted_as_the_claimed_one_and_a_proxys_client_is_who_is_noted():
    scene = behind_a_proxy(b"198.51.100.7")
    scene.unknown = True
    assert scene.refused().requester == (scene.record.key_id, None, "198.51.100.7")
    scene = Scene(unknown=True, record=a_record(key_id="gbs_pasted-into-the-wrong-field"))
    assert scene.refused().requester == (None, None, HERE)


@pytest.mark.parametrize(("first", "second"), [*combinations(ORDER, 2)])
def test_of_two_faults_the_one_that_comes_first_is_told(first, second):
    refusal = spoiled(first, second).refused()
    assert (refusal.status, refusal.code) == ORDER[first]


@pytest.mark.parametrize("fault", [fault for fault in ORDER if fault is not spoil_limit])
def test_nothing_is_charged_for_what_is_refused(fault):
    scene = spoiled(fault)
    scene.refused()
    assert scene.limiter.charged == []
    assert scene.guard.claims == []


@pytest.mark.parametrize("later", [spoil_expiry, spoil_standing, spoil_address, spoil_scope])
def test_who_has_not_proved_the_secret_learns_nothing_of_the_key(later):
    answers = []
    for scene in (spoiled(spoil_signature, later), spoiled(spoil_signature), spoiled(spoil_signature)):
        scene.unknown = len(answers) == 2
        scene.record = dataclasses.replace(scene.record, key_id="gbk_" + "0" * 28)
        scene.build()
        request = scene.request()
        answer = scene.gate.render(scene.refused(), request)
        answers.append((answer.status, answer.headers, answer.body))
    assert answers[0] == answers[1] == answers[2]


def test_missing_credentials_name_the_dialects():
    scene = Scene().build()
    request = scene.request().replace(headers=())
    with pytest.raises(Refusal) as refused:
        scene.gate.admit(request, scene.gate.route(request))
    assert (refused.value.status, refused.value.code) == (401, "missing_credentials")
    assert refused.value.extras == {"dialects": ["mobee", "binance", "rfc9421"]}


def test_a_signature_without_its_header_is_told_which_header():
    scene = Scene().build()
    request = scene.request().replace(headers=(), query=b"timestamp=1&signature=00")
    with pytest.raises(Refusal, match="without the header field X-MBX-APIKEY"):
        scene.gate.admit(request, scene.gate.route(request))


def test_a_dialect_that_is_not_configured_is_not_spoken():
    scene = Scene(sections={"auth": {"dialects": ["mobee"]}})
    assert scene.refused().extras == {"dialects": ["mobee"]}


@pytest.mark.parametrize(("dialect", "lost"), [
    ("mobee", b"x-api-key"), ("mobee", b"x-request-signature"), ("mobee", b"x-request-timestamp"), ("binance", b"query"),
    ("rfc9421", b"signature"), ("rfc9421", b"signature-input"),
])  # fmt: skip
def test_so_does_a_part_of_them_that_is_missing(dialect, lost):
    scene = Scene(dialect=dialect).build()
    whole = scene.request()
    left = tuple((name, value) for name, value in whole.headers if name != lost)
    part = whole.replace(headers=left, query=None if lost == b"query" else whole.query)
    for decide in (scene.gate.admit, scene.gate.begin):
        if (dialect, decide) != ("binance", scene.gate.begin):  # whose parameters may stand in the content
            with pytest.raises(Refusal) as refused:
                decide(part, scene.gate.route(part))
            assert refused.value.code == "missing_credentials"
            assert refused.value.extras["dialects"] == ["mobee", "binance", "rfc9421"]


def test_two_dialects_in_one_request_are_ambiguous():
    assert Scene(extra=((b"x-api-key", b"gbk_"),)).refused().code == "ambiguous_credentials"


@pytest.mark.parametrize(
    ("off_ms", "words"),
    [(-5_001, "signed 5001 ms ago"), (1_001, "1001 ms ahead"), (-3_600_000, "signed 3600000 ms ago"), (4_312, "4312 ms ahead")],
)
def test_a_wrong_clock_is_told_how_wrong(off_ms, words):
    refusal = Scene(signed_ms=NOW_MS + off_ms).refused()
    assert words in refusal.detail
    assert refusal.extras == {"server_time_ms": NOW_MS, "skew_ms": off_ms, "window_ms": 5_000}


def test_a_wrong_signature_is_shown_the_string_to_sign():
    refusal = Scene(target="/read?a=%20b", forge=True).refused()
    assert refusal.extras == {"string_to_sign": f"a=%20b&timestamp={NOW_MS}"}
    assert refusal.reason == "wrong signature"


def test_an_unsigned_query_may_read_and_not_trade():
    assert Scene(dialect="mobee", target="/read?symbol=BTC").admit()
    assert Scene(dialect="mobee", method="POST", target="/trade?symbol=BTC").refused().code == "unsigned_query"


def test_an_expired_key_says_since_when():
    assert Scene(record=a_record(expires_ms=NOW_MS - 1)).refused().extras == {"expired_at": "2026-09-21T14:13:19.999Z"}


@pytest.mark.parametrize(
    ("peer", "listed", "words"),
    [
        ("203.0.113.7", ["8.8.8.8"], "from 203.0.113.7 (IPv4), and this key's IP allowlist has 1 address:"),
        (
            "2001:db8::1",
            ["8.8.8.8", "8.8.4.4"],
            "from 2001:db8::1 (IPv6), and this key's IP allowlist has 2 IPv4 addresses and no IPv6 address",
        ),
        ("203.0.113.7", ["2001:4860::8"], "from 203.0.113.7 (IPv4), and this key's IP allowlist has 1 IPv6 address and no IPv4 address"),
        ("2001:db8::1", ["2001:4860::8", "8.8.8.8"], "from 2001:db8::1 (IPv6), and this key's IP allowlist has 2 addresses:"),
    ],
)
def test_a_wrong_address_is_told_with_what_the_key_lists(peer, listed, words):
    refusal = Scene(peer=peer, record=a_record(ip_allowlist=tuple(map(ip_address, listed)))).refused()
    assert words in refusal.detail
    assert refusal.extras == {"client_ip": peer, "allowed_count": len(listed)}


def test_an_address_that_cannot_be_read_is_refused_to_a_whitelisted_key_alone():
    listed = a_record(ip_allowlist=(ip_address("10.0.0.1"),))
    refusal = behind_a_proxy(b"unknown", record=listed).refused()
    assert refusal.extras == {"client_ip": None, "allowed_count": 1}
    assert "'unknown'" in refusal.detail
    assert behind_a_proxy(b"unknown").admit().client_ip == ""


DAY_MS = 86_400_000


@pytest.mark.parametrize(("left_ms", "told"), [(7 * DAY_MS, True), (1, True), (7 * DAY_MS + 1, False), (None, False)])
def test_in_a_keys_last_week_each_answer_says_when_it_ends(left_ms, told):
    record = a_record(expires_ms=None if left_ms is None else NOW_MS + left_ms)
    refusal = Scene(method="POST", target="/trade", record=dataclasses.replace(record, scopes=frozenset({Scope.READ}))).refused()
    headers = Scene(record=record).admit().answer_headers
    if told:
        assert headers.endswith(f"Gerbang-Key-Expires: {rfc3339(record.expires_ms)}\r\n".encode())
        assert dict(refusal.headers)[b"Gerbang-Key-Expires"].decode() == rfc3339(record.expires_ms)
    else:
        assert b"Gerbang-Key-Expires" not in headers
        assert b"Gerbang-Key-Expires" not in dict(refusal.headers)


def test_a_missing_permission_is_named():
    refusal = Scene(method="POST", target="/trade", record=a_record(scopes=frozenset({Scope.READ}))).refused()
    assert refusal.extras == {"required": "trade", "granted": ["read"]}


def test_trading_includes_no_reading():
    assert Scene(record=a_record(scopes=frozenset({Scope.TRADE}))).refused().extras == {"required": "read", "granted": ["trade"]}


def test_over_the_limit_the_answer_says_when_to_come_again():
    refusal = spoiled(spoil_limit).refused()
    assert refusal.extras == {"retry_after_ms": 600}
    assert dict(refusal.headers) == {
        b"Retry-After": b"1",
        b"RateLimit-Policy": b'"key";q=100;w=60',
        b"RateLimit": b'"key";r=0;t=1',
        b"RateLimit-Limit": b"100",
        b"RateLimit-Remaining": b"0",
        b"RateLimit-Reset": b"60",
        b"X-MBX-USED-WEIGHT-1M": b"100",
    }


def test_a_call_heavier_than_the_limit_is_told_that_it_can_never_pass():
    scene = Scene(method="POST", target="/heavy")
    scene.limits["per_key"] = "39/minute"
    refusal = scene.refused()
    assert refusal.extras == {"retry_after_ms": None}
    assert b"Retry-After" not in dict(refusal.headers)


@pytest.mark.parametrize("fault", [spoil_expiry, spoil_standing, spoil_address, spoil_scope])
def test_a_proven_owner_is_told_the_limits_with_every_refusal(fault):
    assert dict(spoiled(fault).refused().headers) == {
        b"RateLimit-Policy": b'"key";q=100;w=60',
        b"RateLimit": b'"key";r=100;t=0',
        b"RateLimit-Limit": b"100",
        b"RateLimit-Remaining": b"100",
        b"RateLimit-Reset": b"0",
        b"X-MBX-USED-WEIGHT-1M": b"0",
    }


@pytest.mark.parametrize("faults", [[spoil_signature], [spoil_signature, spoil_time], [spoil_credentials]])
def test_nobody_else_is_told_the_limits(faults):
    assert spoiled(*faults).refused().headers == ()


def test_a_fragment_in_the_target_is_ambiguous():
    scene = Scene().build()
    request = scene.request()
    with pytest.raises(Refusal) as refused:
        scene.gate.route(request.replace(query=b"a=1#b"))
    assert refused.value.code == "ambiguous_path"


# -- keys that are not in memory, and shares


async def test_a_key_that_is_not_in_memory_is_fetched_and_then_admitted():
    scene = Scene().build()
    scene.lookup.unknown.add(scene.record.key_id)
    with pytest.raises(KeyNeeded) as needed:
        scene.admit()
    assert scene.limiter.charged == []
    await scene.gate.resolve(needed.value)
    assert scene.lookup.fetched == [scene.record.key_id]
    assert scene.admit()
    assert scene.limiter.charged == [1]


def test_a_malformed_key_id_is_nobodys_without_a_fetch():
    scene = Scene().build()
    scene.record = dataclasses.replace(scene.record, key_id="gbk_tooshort")
    scene.lookup.unknown.add("gbk_tooshort")
    assert scene.refused().code == "invalid_credentials"


async def test_a_limit_that_must_be_settled_is_settled_and_then_charged():
    scene = Scene(method="POST", target="/heavy")
    scene.limiter.need = True
    with pytest.raises(KeyNeeded) as needed:
        scene.admit()
    await scene.gate.resolve(needed.value)
    assert scene.limiter.settled_for == [(scene.record.key_id, 40, LIMIT)]
    assert scene.lookup.fetched == []
    assert scene.admit()
    assert scene.limiter.charged == [40]


# -- the replay guard


async def test_a_trade_is_claimed_for_as_long_as_it_could_pass():
    scene = Scene(method="POST", target="/trade", body=b"recvWindow=20000", signed_ms=NOW_MS - 500)
    admitted = scene.admit()
    assert scene.usage.counts == {}
    await scene.claim(admitted)
    ((key_id, signature, ttl_ms, outage),) = scene.guard.claims
    assert (key_id, len(signature), outage) == (scene.record.key_id, 32, "deny")
    assert ttl_ms == 20_000 - 500 + AHEAD_MS + CLOCKS_MS
    await asyncio.sleep(0)
    assert scene.usage.counts == {"admitted": 1}


async def test_a_replay_is_refused_and_counted_for_its_key():
    scene = Scene(method="POST", target="/trade", sections={"auth": {"replay_outage": "allow"}})
    scene.guard.refusal = ReplayedRequest("before")
    admitted = scene.admit()
    with pytest.raises(ReplayedRequest):
        await scene.claim(admitted)
    await asyncio.sleep(0)
    assert scene.usage.counts == {"replayed_request": 1}
    assert scene.guard.claims[0][3] == "allow"


@pytest.mark.parametrize(("repeated", "failures"), [(False, 0), (True, 1)])
async def test_a_replay_that_is_sent_again_is_a_failure_of_the_address_that_sends_it(repeated, failures):
    scene = Scene(method="POST", target="/trade")
    refusal = ReplayedRequest("before")
    refusal.repeated = repeated
    scene.guard.refusal = refusal
    admitted = scene.admit()
    with pytest.raises(ReplayedRequest):
        await scene.claim(admitted)
    await asyncio.sleep(0)
    assert len(scene.gate.services.failures) == failures


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"frozen": True}, "account_frozen"), ({"expires_ms": NOW_MS}, "key_expired"), (None, "invalid_credentials"), ({"label": "x"}, "")],
)
async def test_a_key_that_changes_while_its_claim_is_under_way_is_decided_anew(changes, code):
    scene = Scene(method="POST", target="/trade")
    admitted = scene.admit()
    told = []
    if changes is None:
        scene.lookup.peek = lambda *_: ABSENT
    else:
        changed = Principal.of(dataclasses.replace(scene.record, **changes))
        scene.lookup.peek = lambda *_: changed
    await scene.claim(admitted, lambda error, still_valid: told.append((error, still_valid)))
    await asyncio.sleep(0)
    assert (told, scene.usage.counts) == ([(None, False)], {}), "counted once it is known"
    if code:
        with pytest.raises(Refusal) as refused:
            scene.gate.confirm(admitted)
        assert refused.value.code == code
        scene.gate.withdraw(admitted, refused.value)
    else:
        scene.gate.confirm(admitted)
    assert scene.usage.counts == {code or "admitted": 1}
    assert sum(scene.limiter.charged) == (0 if code else 1)


async def test_what_is_looked_at_again_behind_its_claim_is_counted_once_and_stands_by_what_was_found():
    scene = Scene(method="POST", target="/trade")
    admitted = scene.admit()
    await scene.claim(admitted)
    await asyncio.sleep(0)
    changed = Principal.of(dataclasses.replace(scene.record, label="x"))
    scene.lookup.peek = lambda *_: changed
    assert not scene.gate.still_valid(admitted)
    scene.gate.confirm(admitted, counted=True)
    assert scene.gate.still_valid(admitted)
    assert scene.usage.counts == {"admitted": 1}
    scene.lookup.peek = lambda *_: ABSENT
    with pytest.raises(InvalidCredentials) as refused:
        scene.gate.confirm(admitted, counted=True)
    scene.gate.withdraw(admitted, refused.value)
    assert scene.usage.counts == {"admitted": 1, "invalid_credentials": 1}


@pytest.mark.parametrize(
    ("dialect", "method", "target", "claimed"), [("binance", "POST", "/trade", True), ("mobee", "GET", "/read", False)]
)
async def test_what_cannot_be_looked_at_again_is_given_back_whatever_it_waited_for(dialect, method, target, claimed):
    """A claim, or in a session its turn behind others."""
    scene = Scene(dialect=dialect, method=method, target=target)
    admitted = scene.admit()
    assert (sum(scene.limiter.charged), admitted.replay is not None) == (1, claimed)
    told: asyncio.Future = asyncio.get_running_loop().create_future()
    scene.lookup.peek = lambda *_: None
    scene.lookup.fetch = AsyncMock(side_effect=KeyStoreUnavailable("neither store answers"))
    Pending(scene.gate, scene.request(), admitted.route, lambda *outcome: told.set_result(outcome)).confirm(admitted, counted=True)
    found, error = await told
    assert (found, error.code) == (admitted, "key_store_unavailable")
    assert sum(scene.limiter.charged) == 0
    assert scene.usage.counts["key_store_unavailable"] == 1


@pytest.mark.parametrize("refusal", [None, ReplayedRequest("before")])
async def test_a_defect_while_a_claim_is_counted_is_told_instead_of_leaving_the_request_without_an_answer(refusal, monkeypatch):
    scene = Scene(method="POST", target="/trade")
    admitted = scene.admit()
    scene.guard.refusal = refusal
    for counts in ("admitted", "refused"):
        monkeypatch.setattr(scene.usage, counts, Mock(side_effect=ValueError("a defect")))
    with pytest.raises(ValueError, match="a defect"):
        await asyncio.wait_for(scene.claim(admitted), 10)


async def test_a_key_that_expires_while_its_claim_is_under_way_does_not_stand():
    scene = Scene(method="POST", target="/trade", record=a_record(expires_ms=NOW_MS + 1))
    admitted = scene.admit()
    for now_ms, stood in ((NOW_MS, True), (NOW_MS + 1, False)):
        scene.gate.services = scene.gate.services._replace(now_ms=lambda now_ms=now_ms: now_ms)  # type: ignore[misc]
        told = []
        await scene.claim(admitted, lambda error, still_valid, told=told: told.append(still_valid))  # type: ignore[misc]
        await asyncio.sleep(0)
        assert told == [stood]


@pytest.mark.parametrize("dialect", ["mobee", "rfc9421"])
def test_a_read_is_not_claimed_whose_signature_fits_no_other_call(dialect):
    scene = Scene(dialect=dialect)
    admitted = scene.admit()
    assert admitted.replay is None
    with pytest.raises(InternalError):
        scene.gate.claim(admitted, lambda *_: None)


@pytest.mark.parametrize(("dialect", "shared"), [("mobee", False), ("rfc9421", False), ("binance", True)])
def test_a_strict_read_passes_once_unless_its_signature_may_be_that_of_another_read(dialect, shared):
    routes = [{"match": "GET /read", "scope": "read", "upstream": "spot", "replay": "strict"}]
    admitted = Scene(dialect=dialect, sections={"routes": routes}).admit()
    assert (admitted.replay.outage, admitted.replay.shared) == ("deny", shared)


@pytest.mark.parametrize("target", ["/read", "/gateway/v1/key"])
async def test_a_signature_that_would_pass_as_another_call_is_claimed_on_every_route(target):
    """Reads share it, and go on while the guard cannot be asked."""
    scene = Scene(dialect="binance", target=target)
    admitted = scene.admit()
    assert admitted.replay.shared
    await scene.claim(admitted)
    assert scene.guard.claims[0][3] == "allow"


def test_nothing_is_claimed_where_the_configuration_says_so():
    routes = [{"match": "GET /read", "scope": "read", "upstream": "spot", "replay": "off"}]
    assert Scene(dialect="binance", sections={"routes": routes}).admit().replay is None


def test_a_strict_route_asks_rfc9421_for_a_nonce():
    scene = Scene(dialect="rfc9421", method="POST", target="/trade").build()
    request = scene.request()
    headers = tuple((name, value.replace(b';nonce="n-1"', b"")) for name, value in request.headers)
    with pytest.raises(MalformedRequest, match="nonce"):
        scene.gate.admit(request.replace(headers=headers), scene.gate.route(request))


# -- refused credentials by address


@pytest.mark.parametrize("fault", [spoil_signature, spoil_credentials, spoil_window])
def test_refused_credentials_count_for_the_address_until_what_does_not_verify_must_wait(fault):
    scene = Scene()
    scene.limits["per_ip_failures"] = "3/minute"
    fault(scene)
    codes = [scene.refused().code for _ in range(3)]
    scene.extra, scene.forge, scene.target = (), True, "/read"
    counts = dict(scene.usage.counts)
    refusal = scene.refused()
    assert "rate_limited" not in codes
    assert (refusal.code, refusal.extras) == ("rate_limited", {"retry_after_ms": 20_000})
    assert refusal.requester == (scene.record.key_id, None, HERE)  # nothing is proven, and nothing told of the key's limits
    assert [name for name, _ in refusal.headers] == [b"Retry-After"]
    assert scene.usage.counts == counts
    scene.now_ms += 20_000
    assert scene.refused().code == "invalid_credentials"


def throttled(scene):
    """An address whose failures are used up."""
    scene.limits["per_ip_failures"] = "1/minute"
    scene.build()
    scene.gate.services.failures.failed(scene.peer, Rate(1, 60_000), scene.now_ms)
    return scene


@pytest.mark.parametrize("dialect", DIALECTS)
def test_whoever_verifies_passes_whatever_others_behind_the_same_address_send(dialect):
    scene = throttled(Scene(dialect=dialect, peer="2001:db8:1:2::7"))
    for _ in range(100):
        scene.forge = True
        assert scene.refused().code == "rate_limited"
        scene.forge = False
        assert scene.admit()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_whoever_verifies_passes_whatever_other_networks_of_its_site_send(dialect):
    scene = failing_site(Scene(dialect=dialect, peer="2001:db8:1:ffff::7"))
    assert scene.admit()
    scene.forge = True
    assert scene.refused().code == "invalid_credentials", "it has not failed too often itself"
    scene.forge = False
    assert scene.admit()


def outcome_of_look_up(scene) -> str:
    """What becomes of a request whose key is not in memory."""
    try:
        scene.admit()
    except KeyNeeded:
        return "looked up"
    except Refusal as refusal:
        return refusal.code
    return "admitted"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_keys_of_a_site_that_is_held_back_are_looked_up_at_its_own_rate(dialect):
    scene = failing_site(Scene(dialect=dialect, peer="2001:db8:1:ffff::7"))
    known = scene.lookup.peek
    scene.lookup.peek = lambda _key_id, _now_ms: None
    outcomes = []
    for network in range(200):
        scene.peer = f"2001:db8:1:{0xF000 + network:x}::1"
        outcomes.append(outcome_of_look_up(scene))
    assert outcomes == ["looked up"] * 50 + ["rate_limited"] * 150
    scene.peer = "2001:db8:2::1"
    with pytest.raises(KeyNeeded):
        scene.admit()
    scene.lookup.peek, scene.peer = known, "2001:db8:1:ffff::7"
    assert scene.admit()


def test_a_session_with_a_key_is_not_ended_for_what_others_of_its_site_have_had_refused(monkeypatch):
    monkeypatch.setattr("gateway.admission.gate.REFUSED_MESSAGES", Rate(3, 60_000))
    scene, refusal = Scene(), MalformedRequest("not a message")
    scene.build()

    def may_go_on(network: int, *, with_key: bool = False) -> bool:
        client = scene.request().replace(peer=f"2001:db8:1:{network:x}::1")
        return scene.gate.count_refused_message(refusal, client, with_key=with_key)

    assert [may_go_on(network) for network in range(31)] == [True] * 30 + [False]
    assert [may_go_on(100, with_key=True) for _ in range(4)] == [True] * 3 + [False]
    assert not may_go_on(101)


def failing_site(scene):
    """A site whose failures are used up, by networks that have some left."""
    scene.limits["per_ip_failures"] = "2/minute"
    scene.build()
    for network in range(20):
        scene.gate.services.failures.failed(f"2001:db8:1:{network:x}::1", Rate(2, 60_000), scene.now_ms)
    return scene


@pytest.mark.parametrize("dialect", DIALECTS)
def test_of_an_address_that_is_held_back_few_keys_are_looked_up_and_the_known_ones_still_pass(dialect):
    scene = throttled(Scene(dialect=dialect))
    known = scene.lookup.peek
    scene.lookup.peek = lambda _key_id, _now_ms: None
    outcomes = [outcome_of_look_up(scene) for _ in range(200)]
    assert 0 < outcomes.count("looked up") <= 50
    assert outcomes.count("rate_limited") >= 150
    scene.lookup.peek = known
    assert scene.admit()


@pytest.mark.parametrize("field", [b"signature-input", b"signature", b"content-digest"])
def test_costly_fields_are_refused_by_their_size_and_count_whatever_is_wrong_with_them(field):
    scene = Scene(dialect="rfc9421", method="POST", target="/trade", body=b"{}")
    scene.limits["per_ip_failures"] = "3/minute"
    scene.build()
    request = scene.request()
    for junk in (b";a=1" * 1_000, b'=("a");b="' + b"c" * 5_000 + b'"'):
        headers = tuple((name, value + junk if name == field else value) for name, value in request.headers)
        with pytest.raises(MalformedRequest, match="longer than 4096 bytes or has more than 192 parts"):
            scene.gate.admit(request.replace(headers=headers), scene.gate.route(request))
    scene.signed_ms = NOW_MS - 70_000
    assert scene.refused().code == "timestamp_out_of_window"
    scene.forge = True
    assert scene.refused().code == "timestamp_out_of_window"
    scene.signed_ms = NOW_MS
    assert scene.refused().code == "rate_limited", "the late one whose signature held did not count, the forged one did"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_late_request_is_counted_for_the_key_whose_signature_holds_and_for_no_other(dialect):
    scene = Scene(dialect=dialect, signed_ms=NOW_MS - 70_000)
    proven = scene.refused()
    assert (proven.code, proven.requester.account_id) == ("timestamp_out_of_window", scene.record.account_id)
    assert (scene.usage.counts, scene.usage.calls) == ({"timestamp_out_of_window": 1}, ["GET /read"])
    scene.forge = True
    forged = scene.refused()
    assert (forged.code, forged.requester.account_id) == ("timestamp_out_of_window", None)
    stranger = Scene(dialect=dialect, signed_ms=NOW_MS - 70_000, unknown=True).refused()
    assert (stranger.code, stranger.extras, stranger.headers) == (forged.code, forged.extras, forged.headers)
    assert scene.usage.counts == {"timestamp_out_of_window": 1}


def test_a_late_requests_key_is_looked_up_and_the_refusal_is_the_same_when_nobody_can_say():
    scene = Scene(signed_ms=NOW_MS - 70_000).build()
    scene.lookup.unknown.add(scene.record.key_id)
    with pytest.raises(KeyNeeded) as needed:
        scene.admit()

    async def down(_key_id):
        raise KeyStoreUnavailable("away")

    scene.lookup.fetch = down  # type: ignore[method-assign]
    with pytest.raises(Refusal) as refused:
        asyncio.run(scene.gate.resolve(needed.value))
    assert refused.value.code == "timestamp_out_of_window"
    scene.signed_ms = NOW_MS
    with pytest.raises(KeyNeeded) as needed:
        scene.admit()
    with pytest.raises(KeyStoreUnavailable):
        asyncio.run(scene.gate.resolve(needed.value))


def test_unknown_keys_count_too():
    scene = Scene(unknown=True)
    scene.limits["per_ip_failures"] = "1/minute"
    assert [scene.refused().code for _ in range(2)] == ["invalid_credentials", "rate_limited"]


@pytest.mark.parametrize("fault", [spoil_time, spoil_expiry, spoil_standing, spoil_address, spoil_scope, spoil_limit])
def test_what_is_not_a_guess_at_credentials_does_not_count_for_the_address(fault):
    scene = spoiled(fault)
    scene.limits["per_ip_failures"] = "1/minute"
    assert {scene.refused().code for _ in range(3)} == {ORDER[fault][1]}


def test_refusals_of_a_known_key_are_counted_for_it():
    scene = spoiled(spoil_scope)
    scene.refused()
    assert scene.usage.counts == {"scope_not_granted": 1}


# -- by the head alone


def begun(scene, *, drop=()):
    """What the gate says of the head of a request whose content is still to come."""
    scene.build()
    request = scene.request().replace(body=b"")
    request = request.replace(headers=tuple(field for field in request.headers if field[0] not in drop))
    return scene.gate.begin(request, scene.gate.route(request))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_head_says_whose_the_content_is(dialect):
    scene = Scene(dialect=dialect, method="POST", target="/trade", body=b"a=1&b=2")
    assert begun(scene) == (HERE, f"account {scene.record.account_id}")
    assert scene.limiter.charged == []
    assert begun(Scene(method="POST", target="/trade", body=b"x", peer="2001:db8:1:2::7"))[1] == "2001:db8:1:2::/64"


def test_content_of_a_site_is_that_of_its_customers_with_keys_or_of_all_others():
    def owners(**of: Any) -> tuple[str, ...]:
        return begun(Scene(peer="2001:db8:1:2::7", **{"method": "POST", "target": "/trade", "body": b"x", **of}))

    with_key, unknown, public = owners(), owners(unknown=True), owners(method="GET", target="/public")
    assert public == ("2001:db8:1::/48", "2001:db8:1:2::/64")
    assert unknown == (*public, UNVERIFIED)
    assert with_key[0] not in unknown
    assert is_site(with_key[0])


@pytest.mark.parametrize(
    ("dialect", "drop"),
    [
        ("mobee", {b"x-api-key", b"x-request-signature", b"x-request-timestamp"}),
        ("mobee", {b"x-request-signature"}),
        ("mobee", {b"x-request-timestamp"}),
        ("binance", {b"x-mbx-apikey"}),
        ("rfc9421", {b"signature"}),
        ("rfc9421", {b"signature", b"signature-input"}),
    ],
)
def test_incomplete_credentials_are_refused_by_the_head(dialect, drop):
    with pytest.raises(Refusal) as refused:
        begun(Scene(dialect=dialect, method="POST", target="/trade", body=b"a=1&b=2"), drop=drop)
    assert refused.value.code == "missing_credentials"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_content_of_an_unknown_key_is_received_and_shares_one_bound(dialect):
    scene = Scene(dialect=dialect, method="POST", target="/trade", body=b"a=1&b=2", unknown=True)
    assert begun(scene) == (HERE, UNVERIFIED)


@pytest.mark.parametrize("unknown", [False, True])
def test_neither_is_told_apart_by_the_head_from_an_address_that_is_held_back(unknown):
    scene = Scene(method="POST", target="/trade", body=b"a=1&b=2", unknown=unknown, forge=True)
    scene.limits["per_ip_failures"] = "1/hour"
    assert [scene.refused().code for _ in range(3)][-1] == "rate_limited"
    request = scene.request().replace(body=b"")
    assert scene.gate.begin(request, scene.gate.route(request))[0] == HERE


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_unknown_key_and_a_wrong_signature_get_the_same_answer_whatever_the_size(dialect):
    body = b"a=" + b"1" * 200_000
    refusals, record = [], a_record()
    for unknown in (False, True):
        scene = Scene(dialect=dialect, method="POST", target="/trade", body=body, unknown=unknown, forge=True, record=record)
        refusals.append(scene.refused())
    assert refusals[0].code == refusals[1].code == "invalid_credentials"
    assert refusals[0].detail == refusals[1].detail
    assert refusals[0].extras == refusals[1].extras
    assert refusals[0].extras["string_to_sign"]


def test_a_key_that_is_not_in_memory_is_asked_for_by_the_head():
    scene = Scene(method="POST", target="/trade", body=b"a=1&b=2")
    scene.build()
    scene.lookup.unknown.add(scene.record.key_id)
    request = scene.request().replace(body=b"")
    with pytest.raises(KeyNeeded):
        scene.gate.begin(request, scene.gate.route(request))
