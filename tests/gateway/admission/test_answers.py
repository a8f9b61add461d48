"""How a refusal is written."""

import json

import pytest

from gateway.admission.answers import document
from gateway.errors import InternalError, MalformedRequest, NoRoute, RateLimited, UpstreamUnavailable
from tests.support.scene import Scene
from tests.support.signed import a_gate, request_of, vector


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


@pytest.mark.parametrize("dialect", ["mobee", "binance", "rfc9421"])
def test_the_text_names_the_string_to_sign_where_it_stands_in_the_answer(dialect):
    scene = Scene(dialect=dialect, forge=True).build()
    body = json.loads(scene.gate.render(scene.refused(), scene.request()).body)
    text, place = (body["msg"], "gerbang.string_to_sign") if dialect == "binance" else (body["detail"], "string_to_sign")
    assert f"compare {place} with" in text
    problem = body["gerbang"] if dialect == "binance" else body
    assert problem["string_to_sign"]
    assert "compare string_to_sign with" in problem["detail"]


def test_a_request_that_could_not_be_framed_is_answered_with_its_id():
    problem = json.loads(Scene().build().gate.render(MalformedRequest("no"), None, "r-9").body)
    assert (problem["code"], problem["request_id"]) == ("malformed_request", "r-9")


def test_a_string_to_sign_that_is_no_text_is_written_with_escapes():
    scene = Scene(dialect="mobee", method="POST", target="/trade", body=b"\xff\x00", forge=True).build()
    answer = scene.gate.render(scene.refused(), scene.request())
    assert json.loads(answer.body)["string_to_sign"].endswith("\n\\xff\x00")


PLACES = {
    "by the shape of Binance's paths": ({}, "/api/v3/ticker", {}, True),
    "of a wallet call": ({}, "/sapi/v1/capital/config/getall", {}, True),
    "not of a path that only looks so": ({}, "/api/v3x/ticker", {}, False),
    "not where binance is not spoken": ({"auth": {"dialects": ["mobee"]}}, "/api/v3/ticker", {}, False),
    "by the route, against the shape": ({}, "/api/v3/ping", {"dialect": "mobee"}, False),
    "by the route": ({}, "/ticker", {"dialect": "binance"}, True),
    "by the longest prefix": ({"auth": {"path_dialects": {"/b": "mobee", "/b/c": "binance"}}}, "/b/c/d", {}, True),
    "by a shorter prefix": ({"auth": {"path_dialects": {"/b": "mobee", "/b/c": "binance"}}}, "/b/d", {}, False),
}


@pytest.mark.parametrize(("sections", "path", "route", "binances"), PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("carried", [b"x-mbx-apikey", b"x-api-key", b"accept"])
def test_the_form_follows_the_route_whatever_the_request_carries(sections, path, route, binances, carried):
    routes = [{"match": f"GET {path}", "scope": "public", "upstream": "spot", **route}] if route else []
    gate = a_gate(routes=routes, **sections)
    if not (route or sections or path.startswith(("/api/v3/", "/sapi/"))) and carried == b"x-mbx-apikey":
        return  # where nothing names a form, the request's own dialect does
    request = request_of(vector("binance", "account, hmac"), path=path.encode(), target=path.encode(), headers=((carried, b"x"),))
    if "dialects" in sections.get("auth", {}) and carried == b"x-mbx-apikey":
        request = request.replace(headers=())
    for refusal in (NoRoute("nothing here"), UpstreamUnavailable("down"), RateLimited("slow"), InternalError("oh")):
        body = json.loads(gate.render(refusal, request).body)
        assert isinstance(body["code"], int) is binances


def test_a_refusal_points_into_the_documentation():
    gate = a_gate(gateway={"docs_url": "https://docs.example/refusals"})
    request = request_of(vector("mobee", "read, hmac"))
    assert json.loads(gate.render(NoRoute("no"), request).body)["type"] == "https://docs.example/refusals#no_route"
    assert json.loads(gate.render(NoRoute("no"), None, "r").body)["type"] == "https://docs.example/refusals#no_route"
    assert json.loads(a_gate().render(NoRoute("no"), request).body)["type"] == "urn:gerbang:problem:no_route"


@pytest.mark.parametrize(
    ("path", "meant"), [("/v1/wallets/", "/v1/wallets"), ("/v1/ends", "/v1/ends/"), ("/v1/orders/7/", "/v1/orders/7"), ("/x/", "")]
)
def test_a_trailing_slash_is_asked_about(path, meant):
    routes = [{"match": f"GET {one}", "scope": "public", "upstream": "spot"} for one in ("/v1/wallets", "/v1/ends/", "/v1/orders/{id}")]
    with pytest.raises(NoRoute) as refused:
        a_gate(routes=routes).routes.match(b"GET", path.encode())
    assert (f"did you mean {meant}?" in refused.value.detail) is bool(meant)


def test_a_document_is_compact_json_that_nobody_keeps():
    answer = document({"a": "€", "b": [1, 2]})
    assert answer.status == 200
    assert answer.headers == ((b"Content-Type", b"application/json"), (b"Cache-Control", b"no-store"))
    assert answer.body == '{"a":"€","b":[1,2]}'.encode()


def test_what_is_no_unicode_is_written_with_escapes():
    assert document({"a": "\ud800"}).body == b'{"a":"\\ud800"}'
