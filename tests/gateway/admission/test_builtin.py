"""What the gate answers itself, for bots."""

import json
from ipaddress import ip_address

import pytest

from gateway.admission.builtin import key
from gateway.config.values import Rate
from gateway.errors import MalformedRequest
from gateway.keys.record import Scope
from gateway.runtime.gcra import Charge
from tests.support.keys import NOW_MS, a_record
from tests.support.scene import HERE, Scene, behind_a_proxy


def own_answer(scene: Scene) -> dict:
    admitted = scene.admit()
    answer = scene.gate.answer(admitted, scene.request())
    assert answer.status == 200
    assert (b"Cache-Control", b"no-store") in answer.headers
    return json.loads(answer.body)


def test_the_gate_tells_its_time():
    assert own_answer(Scene(target="/gateway/v1/time")) == {"server_time_ms": NOW_MS, "server_time": "2026-09-21T14:13:20.000Z"}


@pytest.mark.parametrize(("peer", "family"), [("203.0.113.7", "ipv4"), ("2001:db8::7", "ipv6")])
def test_the_gate_tells_the_address_it_sees(peer, family):
    assert own_answer(Scene(target="/gateway/v1/ip", peer=peer)) == {"client_ip": peer, "family": family}


def test_an_address_that_cannot_be_read_is_a_bad_request():
    scene = behind_a_proxy(b"unknown", target="/gateway/v1/ip")
    admitted = scene.admit()
    with pytest.raises(MalformedRequest, match="unknown"):
        scene.gate.answer(admitted, scene.request())


def test_the_gate_tells_a_key_about_itself():
    record = a_record(label="bot", ip_allowlist=(ip_address(HERE),), expires_ms=NOW_MS + 1_000, scopes=frozenset({Scope.READ}))
    assert own_answer(Scene(target="/gateway/v1/key", record=record)) == {
        "key_id": record.key_id,
        "label": "bot",
        "scopes": ["read"],
        "algorithm": "hmac-sha256",
        "ip_access": "whitelisted",
        "ip_allowlist": [HERE],
        "created_at": "2026-09-21T14:13:20.000Z",
        "expires_at": "2026-09-21T14:13:21.000Z",
        "limits": {
            "tier": None,
            "per_key": "100/minute",
            "limit": 100,
            "period_ms": 60_000,
            "remaining": 99,
            "reset_ms": 600,
            "per_account": None,
            "account": None,
        },
    }


def test_an_unrestricted_key_lists_no_address():
    told = own_answer(Scene(target="/gateway/v1/key"))
    assert (told["ip_access"], told["ip_allowlist"], told["expires_at"]) == ("unrestricted", [], None)


@pytest.mark.parametrize("limited", [True, False])
def test_a_key_is_told_of_the_limit_of_its_account_where_there_is_one(limited):
    principal = Scene(target="/gateway/v1/key").build().admit().principal
    assert principal is not None
    charge, account = Charge(True, 0.0, 9, 1.4, 0.0), Charge(True, 0.0, 19, 2.6, 0.0)
    answer = key(principal, Rate(10, 1_000), Rate(20, 60_000) if limited else None, charge, account)
    told = json.loads(answer.body)["limits"]
    assert (told["limit"], told["period_ms"], told["remaining"], told["reset_ms"]) == (10, 1_000, 9, 1)
    assert told["per_account"] == ("20/minute" if limited else None)
    assert told["account"] == ({"limit": 20, "period_ms": 60_000, "remaining": 19, "reset_ms": 3} if limited else None)
    account.remaining = 7  # of 19 that GCRA has
    told = json.loads(key(principal, Rate(10, 1_000), Rate(20, 60_000), charge, account).body)["limits"]
    assert (told["account"]["remaining"], told["account"]["reset_ms"]) == (7, 60_000)
    answer = key(principal, Rate(10, 1_000), Rate(20, 60_000), charge, None)
    assert json.loads(answer.body)["limits"]["account"] is None
