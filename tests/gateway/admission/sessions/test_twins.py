"""Each refusal of a request has its twin for a message, with the same code and the same extras, in both session dialects."""

import asyncio
import hmac
import json
from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from deploy.signing import SigningKey, sign
from gateway.admission.driver import admit
from gateway.admission.gate import Gate
from gateway.admission.outcome import KeyNeeded
from gateway.admission.sessions import SESSIONS
from gateway.errors import KeyStoreUnavailable, Refusal, ReplayedRequest, ReplayGuardUnavailable, problem_of
from gateway.http1.message import Request
from gateway.keys.record import Scope
from gateway.runtime.gcra import Charge
from tests.support.keys import NOW_MS, a_record
from tests.support.session import METHODS, ROUTES, binance, log_in
from tests.support.signed import a_gate

TRADE = {"match": "POST /trade", "scope": "trade", "upstream": "spot"}
READER = a_record(scopes=frozenset({Scope.READ}))
ELSEWHERE = a_record(ip_allowlist=(ip_address("8.8.8.8"),))
EXPIRED = a_record(expires_ms=NOW_MS - 1)
FROZEN = a_record(frozen=True)
GOOD = a_record()
UNKNOWN = a_record()
RECORDS = (READER, ELSEWHERE, EXPIRED, FROZEN, GOOD)


def gate_of(**services):
    """A gate that knows these keys; what a case changes of its services."""
    gate = a_gate(*RECORDS, routes=[TRADE, *ROUTES], methods=METHODS)
    return Gate(gate.settings, gate.routes, gate.services._replace(**services))


def request(record, *, signed_ms=NOW_MS, secret=None, path="/trade", unsigned=False, timestamp=None):
    key = SigningKey(record.key_id, (secret or record.secret.reveal()).decode())
    made = sign("mobee", key, "POST", path, b"{}", now_ms=signed_ms, nonce="")
    headers = {} if unsigned else dict(made.headers)
    if timestamp is not None:
        headers["X-Request-Timestamp"] = timestamp
    fields = tuple((name.lower().encode(), value.encode()) for name, value in headers.items())
    return Request(b"POST", path.encode(), path.encode(), None, fields, b"{}", "192.0.2.1", False, NOW_MS, "r")


async def rest(gate, asked):
    return await admit(gate, asked, gate.route(asked))


async def session(gate, dialect, text, *, key_id=""):
    """What :class:`gateway.server.session.Session` does with one message."""
    path = {"mobee": b"/ws", "binance": b"/ws-api/v3"}[dialect]
    client = Request(b"GET", path, path, None, (), b"", "192.0.2.1", False, NOW_MS, "handshake")
    route = gate.route(client)
    message = SESSIONS[route.session].read(text, client, key_id, NOW_MS, "r")
    return await admit(gate, message, gate.method(message, route))


def unsigned(dialect, method="trade"):
    names = {"trade": {"mobee": "order", "binance": "order.place"}, "nothing": {"mobee": "nothing", "binance": "nothing"}}
    return json.dumps({"method": names[method][dialect]}).encode()


def signed(dialect, record, **how):
    """The dialect's signed message that a trade needs: the trade itself, or the log-in before it."""
    if dialect == "mobee":
        return log_in(record, dialect, now_ms=how.get("now_ms", NOW_MS), secret=how.get("secret"))
    return binance(record, "order.place", {"symbol": "X"}, now_ms=how.get("now_ms", NOW_MS), secret=how.get("secret"))


def refusing(error):
    def ask(_key_id, _signature, answered, **_more):
        asyncio.get_running_loop().call_soon(answered, error)

    return SimpleNamespace(ask=ask)


class AwayLookup:
    def peek(self, key_id, _now_ms):
        raise KeyNeeded(key_id)

    async def fetch(self, _key_id):
        raise KeyStoreUnavailable("away")


FULL = SimpleNamespace(charge=lambda *_: Charge(False, 0.0, 0, 1_500.0, 60_000.0))
OLD = NOW_MS - 60_001
CASES = {
    "missing_credentials": (lambda gate: rest(gate, request(GOOD, unsigned=True)), lambda gate, d: session(gate, d, unsigned(d)), {}),
    "invalid_credentials": (
        lambda gate: rest(gate, request(GOOD, secret=b"gbs_wrong")),
        lambda gate, d: session(gate, d, signed(d, GOOD, secret=b"gbs_wrong")),
        {},
    ),
    "invalid_credentials of an unknown key": (
        lambda gate: rest(gate, request(UNKNOWN)),
        lambda gate, d: session(gate, d, signed(d, UNKNOWN)),
        {},
    ),
    "timestamp_out_of_window": (
        lambda gate: rest(gate, request(GOOD, signed_ms=OLD)),
        lambda gate, d: session(gate, d, signed(d, GOOD, now_ms=OLD)),
        {},
    ),
    "malformed_request": (
        lambda gate: rest(gate, request(GOOD, timestamp="yesterday")),
        lambda gate, d: session(gate, d, signed(d, GOOD, now_ms=7_000_000_000_000_000_000)),
        {},
    ),
    "key_expired": (lambda gate: rest(gate, request(EXPIRED)), lambda gate, d: session(gate, d, signed(d, EXPIRED)), {}),
    "account_frozen": (lambda gate: rest(gate, request(FROZEN)), lambda gate, d: session(gate, d, signed(d, FROZEN)), {}),
    "ip_not_allowed": (lambda gate: rest(gate, request(ELSEWHERE)), lambda gate, d: session(gate, d, signed(d, ELSEWHERE)), {}),
    "scope_not_granted": (
        lambda gate: rest(gate, request(READER)),
        lambda gate, d: session(gate, d, unsigned(d), key_id=READER.key_id),
        {},
    ),
    "no_route": (
        lambda gate: rest(gate, request(GOOD, path="/nothing")),
        lambda gate, d: session(gate, d, unsigned(d, "nothing"), key_id=GOOD.key_id),
        {},
    ),
    "replayed_request": (
        lambda gate: rest(gate, request(GOOD)),
        lambda gate, d: session(gate, d, signed(d, GOOD)),
        {"replay": refusing(ReplayedRequest("again"))},
    ),
    "rate_limited": (
        lambda gate: rest(gate, request(GOOD)),
        lambda gate, d: session(gate, d, unsigned(d), key_id=GOOD.key_id),
        {"limiter": FULL},
    ),
    "key_store_unavailable": (
        lambda gate: rest(gate, request(GOOD)),
        lambda gate, d: session(gate, d, signed(d, GOOD)),
        {"lookup": AwayLookup()},
    ),
    "replay_guard_unavailable": (
        lambda gate: rest(gate, request(GOOD)),
        lambda gate, d: session(gate, d, signed(d, GOOD)),
        {"replay": refusing(ReplayGuardUnavailable("away"))},
    ),
}
OF_ITS_OWN = {"string_to_sign", "window_ms", "dialects"}
"""Extras that differ because what is signed, its window and where it may be signed do."""


async def refusal_of(asking):
    with pytest.raises(Refusal) as caught:
        await asking
    return caught.value


@pytest.mark.parametrize("dialect", sorted(SESSIONS))
@pytest.mark.parametrize("case", CASES)
async def test_a_refusal_has_its_twin(case, dialect):
    as_request, as_message, services = CASES[case]
    expected = await refusal_of(as_request(gate_of(**services)))
    gate = gate_of(**services)
    found = await refusal_of(as_message(gate, dialect))
    assert found.code == expected.code == case.split()[0]
    assert found.status == expected.status
    shared = expected.extras.keys() - OF_ITS_OWN
    assert {name: found.extras[name] for name in shared} == {name: expected.extras[name] for name in shared}
    assert found.extras.keys() - OF_ITS_OWN == shared
    told = json.loads(SESSIONS[dialect].refusal(problem_of(found, request_id="r"), None))
    assert told["gerbang"]["code"] == expected.code
    if dialect == "binance":
        assert told["status"] == expected.status
        assert isinstance(told["error"]["code"], int)
        text = told["error"]["msg"]
    else:
        assert told["status"] == "error"
        text = told["message"]
    named = [name for name in found.extras if "_" in name and name in text]
    assert all(f"gerbang.{name}" in text for name in named)
    assert named == (["string_to_sign"] if "string_to_sign" in found.detail else [])


async def test_a_wrong_signature_is_answered_with_what_was_signed_and_a_hint_when_one_is_proven():
    gate = gate_of()
    refusal = await refusal_of(session(gate, "mobee", signed("mobee", GOOD, secret=b"gbs_wrong")))
    assert json.loads(refusal.extras["string_to_sign"])["public_key"] == GOOD.key_id
    newline = GOOD.secret.reveal() + b"\n"
    assert "newline" in (await refusal_of(session(gate, "mobee", signed("mobee", GOOD, secret=newline)))).extras["hint"]
    signature = hmac.digest(GOOD.secret.reveal(), f"symbol=X&apiKey={GOOD.key_id}&timestamp={NOW_MS}".encode(), "sha256").hex()
    params = {"symbol": "X", "apiKey": GOOD.key_id, "timestamp": NOW_MS, "signature": signature}
    text = json.dumps({"method": "order.place", "params": params}).encode()
    assert "sort them by name" in (await refusal_of(session(gate, "binance", text))).extras["hint"]


async def test_one_signature_passes_once_as_a_request_and_as_a_message():
    used = set()

    def ask(key_id, signature, answered, **_more):
        asyncio.get_running_loop().call_soon(answered, ReplayedRequest("again") if (key_id, signature) in used else None)
        used.add((key_id, signature))

    gate = gate_of(replay=SimpleNamespace(ask=ask))
    message = binance(GOOD, "order.place", {"symbol": "X"}, now_ms=NOW_MS)
    params = json.loads(message)["params"]
    assert (await session(gate, "binance", message)).identity.key_id == GOOD.key_id
    assert (await refusal_of(session(gate, "binance", message))).code == "replayed_request"
    query = f"apiKey={GOOD.key_id}&symbol=X&timestamp={NOW_MS}&signature={params['signature']}".encode()
    path = b"/api/v3/order"
    fields = ((b"x-mbx-apikey", GOOD.key_id.encode()),)
    over_rest = Request(b"POST", path + b"?" + query, path, query, fields, b"", "192.0.2.1", False, NOW_MS, "r")
    assert (await refusal_of(rest(gate, over_rest))).code == "replayed_request"
    used.clear()
    assert (await rest(gate, over_rest)).identity.key_id == GOOD.key_id
