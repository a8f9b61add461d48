"""Cross-origin resource sharing: which preflights are answered, and what a page may read."""

from typing import Any

import pytest

from gateway.http1.cors import Cors
from gateway.http1.message import Request

APP = b"https://app.example"
CORS = Cors(["https://app.example", "http://localhost:3000"])


def request(method: bytes = b"OPTIONS", *headers: tuple[bytes, bytes]) -> Request:
    return Request(method, b"/v1/orders", b"/v1/orders", None, headers, b"", "192.0.2.1", True, 0, "r")


def preflight(*more: tuple[bytes, bytes], origin: bytes = APP, asked: bytes = b"DELETE") -> dict[bytes, bytes] | None:
    answer = CORS.preflight(request(b"OPTIONS", (b"origin", origin), (b"access-control-request-method", asked), *more))
    if answer is None:
        return None
    assert (answer.status, answer.body) == (204, b"")
    return dict(answer.headers)


def test_a_preflight_is_allowed_the_method_and_fields_that_it_asks_for() -> None:
    fields = preflight((b"access-control-request-headers", b"content-type,x-api-key"))
    assert fields is not None
    assert fields[b"Access-Control-Allow-Methods"] == b"DELETE"
    assert fields[b"Access-Control-Allow-Headers"] == b"content-type,x-api-key"
    assert fields[b"Access-Control-Max-Age"] == b"7200"


@pytest.mark.parametrize("origin", [b"https://app.example", b"http://localhost:3000"])
def test_each_listed_origin_may_read_what_a_refusal_says(origin: bytes) -> None:
    lines = CORS.lines(request(b"GET", (b"origin", origin)))
    assert b"access-control-allow-origin: " + origin + b"\r\n" in lines
    for name in (b"RateLimit-Remaining", b"RateLimit-Reset", b"RateLimit-Limit", b"Retry-After"):
        assert name in lines
    assert b"credentials" not in lines


@pytest.mark.parametrize(
    "origin", [b"https://evil.example", b"null", b"*", b"https://app.example.evil", b"http://app.example", b"https://APP.example", b""]
)
def test_no_other_origin_is_allowed_anything(origin: bytes) -> None:
    assert preflight(origin=origin) is None
    assert CORS.lines(request(b"GET", (b"origin", origin))) == b"vary: Origin\r\n"


def test_two_origins_are_none() -> None:
    both = ((b"origin", APP), (b"origin", APP))
    assert CORS.lines(request(b"GET", *both)) == b"vary: Origin\r\n"
    assert CORS.preflight(request(b"OPTIONS", *both, (b"access-control-request-method", b"GET"))) is None


@pytest.mark.parametrize(
    ("received", "allowed"),
    [
        (b"GET / HTTP/1.1\r\nOrigin: https://app.example\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nX_Account_Id: a\r\norigin:\thttps://app.example \r\nX: aaaa", True),
        (b"GET / HTTP/1.1\r\nOrigin: https://app.example", False),  # it may go on
        (b"GET / HTTP/1.1\r\nOrigin: https://app.example\r\nOrigin: https://app.example\r\n", False),
        (b"GET / HTTP/1.1\r\nOrigin: https://evil.example\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nX-Origin: https://app.example\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nX: Origin: https://app.example\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\n", False),
        (b"", False),
    ],
)
def test_of_a_head_that_cannot_be_read_the_origin_is_that_of_its_only_line(received: bytes, allowed: bool) -> None:
    expected = CORS.lines(request(b"GET", (b"origin", APP))) if allowed else b"vary: Origin\r\n"
    assert CORS.lines_for_head(received) == expected


@pytest.mark.parametrize("asked", [b"", b"G T", b"GET\x01", b"x" * 65])
def test_what_asks_for_no_method_is_no_preflight(asked: bytes) -> None:
    assert preflight(asked=asked) is None


@pytest.mark.parametrize(
    "headers",
    [[(b"origin", APP)], [(b"origin", APP), (b"access-control-request-method", b"GET"), (b"access-control-request-method", b"PUT")]],
)
def test_an_options_request_without_one_method_to_ask_for_is_decided_as_usual(headers: Any) -> None:
    assert CORS.preflight(request(b"OPTIONS", *headers)) is None


def test_only_options_is_a_preflight() -> None:
    assert CORS.preflight(request(b"GET", (b"origin", APP), (b"access-control-request-method", b"GET"))) is None


@pytest.mark.parametrize("names", [b"x-api-key\x00", b"a" * 2049, b'"'])
def test_names_that_are_none_are_not_repeated(names: bytes) -> None:
    fields = preflight((b"access-control-request-headers", names))
    assert fields is not None
    assert b"Access-Control-Allow-Headers" not in fields


def test_who_keeps_an_answer_learns_what_it_depends_on() -> None:
    fields = preflight()
    assert fields is not None
    assert fields[b"Vary"] == b"Access-Control-Request-Method, Access-Control-Request-Headers"
    lines = Cors([APP.decode()]).lines(request(b"GET", (b"origin", APP)))
    assert lines.startswith(b"access-control-allow-origin: https://app.example\r\naccess-control-expose-headers: RateLimit, ")
    assert lines.endswith(b"X-MBX-ORDER-COUNT-1M\r\nvary: Origin\r\n")
