"""How a refusal is written."""

import json

from gateway.errors import MalformedRequest
from tests.support.scene import Scene


def test_a_refusal_is_a_problem():
    scene = Scene(dialect="mobee", forge=True).build()
    answer = scene.gate.render(scene.refused(), scene.request())
    assert answer.status == 401
    assert dict(answer.headers)[b"Content-Type"] == b"application/problem+json"
    problem = json.loads(answer.body)
    assert set(problem) == {"type", "title", "status", "code", "detail", "request_id", "string_to_sign"}
    assert (problem["status"], problem["code"], problem["request_id"]) == (401, "invalid_credentials", "r-1")


def test_binance_is_answered_in_its_own_words_with_the_problem_inside():
    scene = Scene(forge=True).build()
    answer = scene.gate.render(scene.refused(), scene.request())
    body = json.loads(answer.body)
    assert (answer.status, body["code"], body["gerbang"]["code"]) == (401, -1022, "invalid_credentials")


def test_a_request_that_could_not_be_framed_is_answered_with_its_id():
    problem = json.loads(Scene().build().gate.render(MalformedRequest("no"), None, "r-9").body)
    assert (problem["code"], problem["request_id"]) == ("malformed_request", "r-9")


def test_a_string_to_sign_that_is_no_text_is_written_with_escapes():
    scene = Scene(dialect="mobee", method="POST", target="/trade", body=b"\xff\x00", forge=True).build()
    answer = scene.gate.render(scene.refused(), scene.request())
    assert json.loads(answer.body)["string_to_sign"].endswith("\n\\xff\x00")
