"""Refusals without an explanation: the same as those that are raised, told by values and by bytes rendered before."""

import json

import pytest

from gateway.admission.brief import EXPLAINED_LATER, THROTTLED, BriefAnswer, BriefRefusal
from gateway.admission.dialects import DIALECTS
from gateway.admission.outcome import Admitted
from gateway.errors import InvalidCredentials, RateLimited
from gateway.http1 import answer
from tests.support.scene import HERE, Scene

DATE = b"date: Thu, 26 Nov 2026 20:00:00 GMT\r\n"


def flooded(**options) -> Scene:
    """Nothing is explained any more."""
    scene = Scene(dialect="mobee", **options).build()
    scene.gate.explanations.in_all = 0
    return scene


def decided(scene: Scene) -> Admitted | BriefRefusal:
    request = scene.request()
    return scene.gate.decide(request, scene.gate.route(request))


@pytest.mark.parametrize("unknown", [False, True])
def test_credentials_that_do_not_hold_are_refused_by_a_value_while_nothing_is_explained(unknown):
    scene = flooded(forge=True, unknown=unknown)
    refused = decided(scene)
    assert (refused.kind, refused.wait_ms) == (InvalidCredentials, -1)
    told = refused.refusal()
    assert (told.detail, told.brief) == (EXPLAINED_LATER, True)
    assert told.extras["string_to_sign"].startswith("GET\n/read\n"), "as the contract promises"
    assert told.requester == (None if unknown else scene.record.key_id, None, HERE)
    assert scene.usage.counts == ({} if unknown else {"invalid_credentials": 1})
    assert scene.gate.services.failures.retry_after_ms(HERE, scene.gate.settings.limits.per_ip_failures, scene.now_ms) == 0
    assert len(scene.gate.services.failures) == 1, "counted for its address"


def test_what_is_explained_is_raised_and_what_holds_passes():
    scene = Scene(dialect="mobee", forge=True).build()
    with pytest.raises(InvalidCredentials) as raised:
        decided(scene)
    assert raised.value.brief is False
    scene.forge = False
    assert isinstance(decided(scene), Admitted)


def test_who_admits_instead_of_deciding_is_told_by_an_exception():
    scene = flooded(forge=True)
    refusal = scene.refused()
    assert (refusal.code, refusal.brief) == ("invalid_credentials", True)


@pytest.mark.parametrize("unknown", [False, True])
def test_an_address_that_is_held_back_is_told_how_long_and_counts_for_no_key(unknown):
    scene = Scene(dialect="mobee", forge=True, unknown=unknown)
    scene.limits["per_ip_failures"] = "1/minute"
    scene.build()
    scene.gate.explanations.in_all = 0
    failures, rate = scene.gate.services.failures, scene.gate.settings.limits.per_ip_failures
    failures.failed(HERE, rate, scene.now_ms)
    refused = decided(scene)
    assert (refused.kind, refused.wait_ms) == (RateLimited, 60_000)
    told = refused.refusal()
    assert (told.extras, told.resource, told.requester) == ({"retry_after_ms": 60_000}, THROTTLED, (None, None, HERE))
    assert scene.usage.counts == {}
    assert failures.retry_after_ms(HERE, rate, scene.now_ms) == 60_000, "not for longer than before"


@pytest.mark.parametrize("dialect", [None, *DIALECTS.values()])
@pytest.mark.parametrize(
    "refused",
    [BriefRefusal(None, HERE, 1_001.0, b""), BriefRefusal(None, HERE, 0.0, b'GET\n/"\xff'), BriefRefusal(None, HERE, 0.0, b"a" * 3_000)],
)
def test_the_whole_answer_says_what_the_generic_one_does(refused: BriefRefusal, dialect):
    brief = BriefAnswer(refused.kind, dialect, "https://docs.example")
    for request_id in ("r-1", "a-longer-one", "r-2"):
        given = brief.answer(refused.refusal(), request_id)
        generic = answer.own(given, date=DATE, more=b"", keep_alive=True, http10=False, head_only=False)
        heads, bodies = zip(*(sent.split(b"\r\n\r\n") for sent in (generic, brief.whole(refused, request_id, DATE))), strict=True)
        assert sorted(heads[0].split(b"\r\n")) == sorted(heads[1].split(b"\r\n"))
        assert heads[0].split(b"\r\n")[0] == heads[1].split(b"\r\n")[0]
        assert bodies[0] == bodies[1]
        told = json.loads(bodies[1])
        assert told.get("gerbang", told)["request_id"] == request_id
