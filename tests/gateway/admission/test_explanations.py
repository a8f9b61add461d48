"""Refusals are explained to who asks a few times a second, and of a flood to each address a few times."""

import json

import pytest

from gateway.admission.brief import EXPLAINED_LATER
from gateway.admission.explanations import IN_ALL, PER_ADDRESS, Explanations
from gateway.errors import InvalidCredentials, RateLimited
from tests.support.keys import NOW_MS, a_record
from tests.support.scene import Scene


def told(scene: Scene) -> dict[str, object]:
    refusal = scene.refused()
    return json.loads(scene.gate.render(refusal, scene.request()).body)


def test_an_address_has_so_many_explanations_in_each_second():
    explanations = Explanations()
    assert [explanations.take("192.0.2.1", 1_000) for _ in range(PER_ADDRESS + 1)] == [True] * PER_ADDRESS + [False]
    assert explanations.take("192.0.2.2", 1_999)
    assert not explanations.take("192.0.2.1", 1_999)
    assert explanations.take("192.0.2.1", 2_000)


def test_all_of_a_64_have_them_together():
    explanations = Explanations()
    assert sum(explanations.take(f"2001:db8::{number:x}", 1_000) for number in range(2 * PER_ADDRESS)) == PER_ADDRESS


def test_all_addresses_together_have_so_many():
    explanations = Explanations()
    assert sum(explanations.take(f"192.0.{number >> 8}.{number & 255}", 1_000) for number in range(2 * IN_ALL)) == IN_ALL


@pytest.mark.parametrize("unknown", [False, True])
def test_beyond_that_a_wrong_signature_is_told_its_code_and_what_belongs_to_it(unknown):
    scene = Scene(dialect="mobee", forge=True, unknown=unknown)
    explained = [told(scene) for _ in range(PER_ADDRESS)][-1]
    assert told(scene) == {**explained, "detail": EXPLAINED_LATER}
    assert explained["string_to_sign"]
    scene.peer = "203.0.113.8"
    assert told(scene)["detail"] != EXPLAINED_LATER, "another address"
    scene.peer, scene.now_ms = "203.0.113.7", scene.now_ms + 1_000
    assert told(scene)["detail"] != EXPLAINED_LATER, "a second later"


EXTRAS: list[dict[str, object]] = [
    {},
    {"dialects": ["mobee", "binance"]},
    {"string_to_sign": 'GET\n/v1/"quoted"\\ \x00\x1f\x7f \u2028 € \U0001f600 \\xff'},
    {"server_time_ms": 1, "skew_ms": -2, "window_ms": 3},
    {"client_ip": None, "allowed_count": 2},
    {"limit": True, "retry_after_ms": None},
]


@pytest.mark.parametrize("dialect", ["mobee", "binance"])
@pytest.mark.parametrize("extras", EXTRAS, ids=str)
def test_in_brief_a_refusal_has_every_member_but_its_explanation(dialect, extras):
    scene = Scene(dialect=dialect).build()
    bodies = []
    for brief in (False, True):
        refusal = InvalidCredentials("why", extras=extras)
        refusal.brief = brief
        bodies.append(json.loads(scene.gate.render(refusal, scene.request()).body))
    explained, brief_one = (body.get("gerbang", body) for body in bodies)
    assert brief_one == {**explained, "detail": EXPLAINED_LATER}


def test_in_brief_whoever_signs_nothing_is_told_the_dialects():
    scene = Scene(dialect="mobee").build()
    scene.request = lambda: Scene.request(scene).replace(headers=())  # type: ignore[method-assign]
    assert [told(scene)["dialects"] for _ in range(PER_ADDRESS + 1)] == [["mobee", "binance", "rfc9421"]] * (PER_ADDRESS + 1)


def test_in_brief_a_late_request_is_told_the_time():
    scene = Scene(dialect="mobee", forge=True, signed_ms=NOW_MS - 90_000)
    bodies = [told(scene) for _ in range(PER_ADDRESS + 1)]
    assert bodies[-1]["detail"] == EXPLAINED_LATER
    assert {(body["server_time_ms"], body["skew_ms"], body["window_ms"]) for body in bodies} == {(NOW_MS, -90_000, 5_000)}


def test_the_form_of_the_dialect_stays():
    scene = Scene(forge=True)
    for _ in range(PER_ADDRESS):
        told(scene)
    body = told(scene)
    assert (body["code"], body["gerbang"]["code"], body["gerbang"]["request_id"]) == (-1022, "invalid_credentials", "r-1")


def test_how_long_to_wait_is_always_told():
    scene = Scene(dialect="mobee").build()
    for _ in range(PER_ADDRESS + 1):
        refusal = RateLimited("wait", headers=((b"Retry-After", b"1"),), extras={"retry_after_ms": 12})
        answer = scene.gate.render(refusal, scene.request())
        assert json.loads(answer.body)["retry_after_ms"] == 12
        assert (b"Retry-After", b"1") in answer.headers
    assert json.loads(answer.body)["detail"] == EXPLAINED_LATER


def test_the_owner_of_a_key_is_always_told_everything():
    scene = Scene(dialect="mobee", record=a_record(frozen=True))
    for _ in range(PER_ADDRESS + 1):
        assert told(scene)["detail"] != EXPLAINED_LATER


def test_the_networks_of_a_site_have_a_quarter_of_all():
    explanations = Explanations()
    assert sum(explanations.take(f"2001:db8:1:{number:x}::1", 1_000) for number in range(2 * IN_ALL)) == IN_ALL // 4
    assert explanations.take("2001:db8:2::1", 1_000)
    assert explanations.take("2001:db8:1:ffff::1", 2_000)
