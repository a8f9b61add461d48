"""A gate, one key in its memory, and a request: who may pass is under test, with everything else in the open."""

import asyncio
import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from deploy.signing import SigningKey, sign
from gateway.admission.gate import Gate
from gateway.config.values import Rate
from gateway.errors import Refusal
from gateway.http1.message import Request
from gateway.keys.record import KeyRecord
from gateway.runtime.gcra import ShareNeeded, charge
from tests.support.keys import NOW_MS, a_record
from tests.support.signed import a_gate

HERE = "203.0.113.7"
ROUTES = [
    {"match": "GET /public", "scope": "public", "upstream": "spot"},
    {"match": "GET /read", "scope": "read", "upstream": "spot"},
    {"match": "GET /any", "scope": "any", "upstream": "spot"},
    {"match": "POST /trade", "scope": "trade", "upstream": "spot"},
    {"match": "POST /heavy", "scope": "read", "upstream": "spot", "weight": 40},
]
LIMIT = Rate(100, 60_000)


class Lookup:
    """What the gate knows of keys; counts what it is asked."""

    def __init__(self, gate: Gate) -> None:
        self._peek, self.asked, self.fetched = gate.services.lookup.peek, 0, []
        self.unknown: set[str] = set()

    def peek(self, key_id, now_ms):
        self.asked += 1
        return None if key_id in self.unknown else self._peek(key_id, now_ms)

    async def fetch(self, key_id):
        self.fetched.append(key_id)
        self.unknown.discard(key_id)


class Limiter:
    """GCRA for one key, in the open."""

    def __init__(self) -> None:
        self.tat, self.charged, self.settled_for, self.need = 0.0, [], [], False
        self.others: dict[str, float] = {}
        """Of ledgers that are not a key's, by name: their arrival times."""
        self.needed: set[str] = set()
        """Ledgers that have to be settled first."""

    def charge(self, name, weight, rate, now_ms):
        if weight and ((self.need and name.startswith("gbk_")) or name in self.needed):
            raise ShareNeeded
        if not name.startswith("gbk_"):
            done = charge(self.others.get(name, 0.0), weight, now_ms, rate)
            self.others[name] = done.tat_ms
            return done
        done = charge(self.tat, weight, now_ms, rate)
        self.tat = done.tat_ms
        if weight:
            self.charged.append(weight)
        return done

    def give_back(self, name, weight, rate):
        if name.startswith("gbk_"):
            self.tat -= weight * rate.period_ms / rate.units
            self.charged.append(-weight)
        elif name in self.others:
            self.others[name] -= weight * rate.period_ms / rate.units

    def used(self, name, rate, now_ms):
        tat = self.tat if name.startswith("gbk_") else self.others.get(name, 0.0)
        return round(max(0.0, tat - now_ms) / rate.period_ms * rate.units)

    async def settled(self, key_id, weight, rate):
        self.need = False
        self.needed.discard(key_id)
        self.settled_for.append((key_id, weight, rate))


class Guard:
    """Remembers claims; a test says what becomes of them."""

    def __init__(self) -> None:
        self.claims: list[Any] = []
        self.refusal: Exception | None = None

    def ask(self, key_id, signature, answered, *, ttl_ms, outage, shared=False):
        self.claims.append((key_id, signature, ttl_ms, outage))
        asyncio.get_running_loop().call_soon(answered, self.refusal)


class Usage:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.calls: list[str] = []

    def admitted(self, _key_id, _address, _now_ms):
        self.counts["admitted"] += 1

    def refused(self, _key_id, code, _address, _now_ms, call="", proven=True):
        assert proven is (code != "invalid_credentials")
        self.counts[code] += 1
        self.calls.append(call)


@dataclass
class Scene:
    """A gate, one key in its memory, and a request that may pass unless a test spoils something."""

    record: KeyRecord = field(default_factory=a_record)
    dialect: str = "binance"
    method: str = "GET"
    target: str = "/read"
    body: bytes = b""
    signed_ms: int = NOW_MS
    peer: str = HERE
    forge: bool = False
    unknown: bool = False
    extra: tuple[tuple[bytes, bytes], ...] = ()
    sections: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.limits = {"per_key": str(LIMIT), "per_ip_failures": "900000000/second"}
        self.limiter, self.guard, self.usage, self.now_ms = Limiter(), Guard(), Usage(), 1_000_000

    def build(self) -> "Scene":
        records = [] if self.unknown else [self.record]
        plain = a_gate(*records, **({"routes": ROUTES, "limits": self.limits} | self.sections))
        self.lookup = Lookup(plain)
        services = plain.services._replace(
            lookup=self.lookup, limiter=self.limiter, replay=self.guard, usage=self.usage, monotonic_ms=lambda: self.now_ms
        )
        self.gate = Gate(plain.settings, plain.routes, services)
        return self

    def request(self) -> Request:
        secret = "wrong" if self.forge else self.record.secret.reveal().decode()
        key = SigningKey(self.record.key_id, secret)
        sent = sign(self.dialect, key, self.method, self.target, self.body, now_ms=self.signed_ms, nonce="n-1")
        path, mark, query = sent.target.encode().partition(b"?")
        headers = tuple((name.lower().encode(), value.encode()) for name, value in sent.headers.items()) + self.extra
        return Request(
            self.method.encode(), sent.target.encode(), path, query if mark else None, headers, sent.body, self.peer, False, NOW_MS, "r-1"
        )

    def admit(self):
        if not hasattr(self, "gate"):
            self.build()
        request = self.request()
        return self.gate.admit(request, self.gate.route(request))

    async def claim(self, admitted, answered=None) -> None:
        """Until the guard has answered; fails with its refusal."""
        done = asyncio.get_running_loop().create_future()

        def told(refusal, still_valid):
            if answered is not None:
                answered(refusal, still_valid)
            done.set_result(refusal)

        self.gate.claim(admitted, told)
        refusal = await done
        if refusal is not None:
            raise refusal

    def refused(self) -> Refusal:
        with pytest.raises(Refusal) as refused:
            self.admit()
        return refused.value

    def become(self, **changes) -> None:
        self.record = dataclasses.replace(self.record, **changes)


def behind_a_proxy(value: bytes, **more) -> Scene:
    return Scene(peer="10.0.0.1", extra=((b"x-forwarded-for", value),), sections={"client_ip": {"trusted_proxies": ["10.0.0.0/8"]}}, **more)
