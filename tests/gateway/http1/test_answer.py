"""Answers to bytes."""

from typing import Any

import pytest

from gateway.http1.answer import DateLine, connection_end, interim, own, relayed, switching, without
from gateway.http1.message import Answer
from gateway.http1.response import ResponseHead


def head_of(status: int, *lines: bytes, **said: Any) -> ResponseHead:
    usual: dict[str, Any] = {"keep_alive": True, "dated": False, "limited": False, "upgrade": b"", "named": frozenset()}
    return ResponseHead(status, lines, 2, b"", **(usual | said))


def test_the_date_is_that_of_the_second() -> None:
    dates = DateLine()
    assert dates.at(784_111_777_999) == b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    assert dates.at(784_111_778_000) == b"date: Sun, 06 Nov 1994 08:49:38 GMT\r\n"
    assert dates.at(784_111_777_000) == b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"


@pytest.mark.parametrize(
    ("keep_alive", "http10", "end"),
    [(True, False, b"\r\n"), (True, True, b"connection: keep-alive\r\n\r\n"), (False, False, b"connection: close\r\n\r\n")],
)
def test_the_connection_field_says_only_what_is_not_the_default(keep_alive: bool, http10: bool, end: bytes) -> None:
    assert connection_end(keep_alive=keep_alive, http10=http10) == end


def test_an_own_answer_is_whole() -> None:
    answer = Answer(404, ((b"a", b"b"),), b"body")
    whole = own(answer, date=b"date: x\r\n", more=b"m: n\r\n", keep_alive=True, http10=False, head_only=False)
    assert whole == b"HTTP/1.1 404 Not Found\r\ndate: x\r\na: b\r\nm: n\r\ncontent-length: 4\r\n\r\nbody"
    assert own(answer, date=b"", more=b"", keep_alive=True, http10=False, head_only=True).endswith(b"content-length: 4\r\n\r\n")
    assert (
        own(Answer(204, (), b""), date=b"", more=b"", keep_alive=True, http10=False, head_only=False) == b"HTTP/1.1 204 No Content\r\n\r\n"
    )


def test_what_connection_names_and_limits_of_the_upstream_are_not_relayed() -> None:
    head = head_of(200, b"A: 1", b"X-Hop: 2", b"RateLimit-Limit: 3", named=frozenset({b"x-hop"}), limited=True, dated=True)
    assert relayed(head, b"date: x\r\n", b"l: 4\r\n", b"f: 5\r\n", b"\r\n") == b"HTTP/1.1 200 OK\r\nA: 1\r\nl: 4\r\nf: 5\r\n\r\n"
    assert relayed(head, b"", b"", b"", b"\r\n") == b"HTTP/1.1 200 OK\r\nA: 1\r\nRateLimit-Limit: 3\r\n\r\n"


def test_an_unregistered_status_has_no_reason() -> None:
    assert relayed(head_of(299), b"", b"", b"", b"\r\n") == b"HTTP/1.1 299 \r\n\r\n"


def test_lines_are_left_out_by_name_whatever_their_case() -> None:
    assert without([b"X-Hop: a:1", b"x-hop:2", b"X-Hopper: 3"], frozenset({b"x-hop"})) == [b"X-Hopper: 3"]


def test_to_a_page_the_gate_says_who_may_read_it_whatever_the_upstream_says() -> None:
    said = (b"A: 1", b"Access-Control-Allow-Origin: *", b"X-Hop: 2", b"RateLimit-Limit: 3")
    head = head_of(200, *said, named=frozenset({b"x-hop"}), limited=True)
    kept = b"HTTP/1.1 200 OK\r\nA: 1\r\n"
    assert relayed(head, b"d: 0\r\n", b"", b"f: 5\r\n", b"\r\n", b"c: 6\r\n") == (
        kept + b"RateLimit-Limit: 3\r\nc: 6\r\nd: 0\r\nf: 5\r\n\r\n"
    )
    assert relayed(head, b"d: 0\r\n", b"l: 4\r\n", b"", b"\r\n", b"c: 6\r\n") == kept + b"c: 6\r\nd: 0\r\nl: 4\r\n\r\n"
    dated = head_of(299, b"Date: x", dated=True)
    assert relayed(dated, b"d: 0\r\n", b"", b"", b"\r\n", b"c: 6\r\n") == b"HTTP/1.1 299 \r\nDate: x\r\nc: 6\r\n\r\n"


def test_an_upstream_without_a_date_gets_the_gates() -> None:
    assert relayed(head_of(200, b"A: 1"), b"d: 0\r\n", b"", b"", b"\r\n") == b"HTTP/1.1 200 OK\r\nA: 1\r\nd: 0\r\n\r\n"


def test_an_interim_answer_has_what_the_upstream_said_and_no_more() -> None:
    head = head_of(103, b"Link: </a>", b"X-Hop: 2", named=frozenset({b"x-hop"}))
    assert interim(head) == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


def test_a_switch_keeps_what_the_client_may_get() -> None:
    said = (b"Sec-WebSocket-Accept: x", b"Sec-WebSocket-Extensions: y", b"X-Hop: 2", b"RateLimit-Limit: 3")
    head = head_of(101, *said, named=frozenset({b"x-hop"}), limited=True)
    begin, end = b"HTTP/1.1 101 Switching Protocols\r\n", b"upgrade: websocket\r\nconnection: Upgrade\r\n\r\n"
    drop = frozenset({b"sec-websocket-extensions"})
    accept, extensions, limit = (line + b"\r\n" for line in (said[0], said[1], said[3]))
    assert switching(head, b"", frozenset()) == begin + accept + extensions + limit + end
    assert switching(head, b"l: 4\r\n", frozenset()) == begin + accept + extensions + b"l: 4\r\n" + end
    assert switching(head, b"", drop) == begin + accept + limit + end
    assert switching(head, b"l: 4\r\n", drop) == begin + accept + b"l: 4\r\n" + end
