"""Readers of both directions against llhttp alone, under every split, with every head seen before and not.

A shortcut past a parser is a second parser. Here the first one gets the whole stream in one piece and decides; what the readers make of
the same bytes, however they are cut and whatever is remembered, must be the same or nothing.
"""

import gc
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise, product
from typing import Any, NamedTuple

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import HeadersTooLarge, MalformedRequest, Refusal
from gateway.http1.headers import HOP_BY_HOP
from gateway.http1.request_reader import RequestReader
from gateway.http1.response import Unframable
from gateway.http1.response_reader import MAX_RESPONSE_HEAD, ResponseReader
from tests.support.inside import MEMOS

LIMIT = 4_096
NOT_RELAYED = HOP_BY_HOP | {b"content-length"}


class Message(NamedTuple):
    """A whole message, as somebody read it."""

    first: tuple[bytes, ...]
    """Method and target, or the status."""
    fields: list[tuple[bytes, bytes]]
    content: bytes


class Read(NamedTuple):
    """What somebody made of a stream."""

    messages: list[Message]
    partial: bytes
    """Content of a message that has not ended; how much of a refused one comes first depends on the cuts."""
    end: str
    """``open``, ``closed`` after the last message, or ``refused``."""


class Llhttp:
    """llhttp alone, as httptools hands it over."""

    def __init__(self, parser: Any) -> None:
        self._parser = parser(self)
        self.messages: list[Message] = []
        self._requests = parser is httptools.HttpRequestParser

    def on_message_begin(self) -> None:
        self._url, self._fields, self.content, self._in_head = b"", [], b"", True

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else it is a trailer
            self._fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self._in_head = False

    def on_body(self, data: bytes) -> None:
        self.content += data

    def on_message_complete(self) -> None:
        if self._requests:
            self.messages.append(Message((self._parser.get_method(), self._url), self._fields, self.content))
        else:
            kept = [field for field in self._fields if field[0] not in NOT_RELAYED]
            self.messages.append(Message((b"%d" % self._parser.get_status_code(),), kept, self.content))
        self.content = b""

    def read(self, data: bytes) -> Read:
        self.content = b""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return Read(self.messages, b"", "closed")
        except httptools.HttpParserError:
            return Read(self.messages, self.content, "refused")
        return Read(self.messages, self.content, "open")


def requests_read(pieces: list[bytes]) -> Read:
    """As a client's connection feeds its reader."""
    reader, messages = RequestReader(), []
    content: bytes | None = None
    for piece in pieces:
        data = piece
        while data or content is not None:
            try:
                if content is None:
                    if not reader.read_head(data, LIMIT):
                        break
                    content = b""
                    line, fields, framing = reader.line, reader.fields, reader.framing
                else:
                    content += reader.read_content(data)
            except Refusal:
                return Read(messages, b"", "refused")
            data = reader.rest
            if not reader.ended:
                if not data:
                    break
                continue
            messages.append(Message((line.method, line.target), fields, content))
            content = None
            if not framing.keep_alive:
                return Read(messages, b"", "closed")
    return Read(messages, content or b"", "open")


def responses_read(pieces: list[bytes]) -> Read:
    """As an upstream connection feeds its reader when each response is awaited before the next request goes out.

    So a piece never reaches from one response into the next: there it is cut.
    """
    reader, messages, content = ResponseReader(), list[Message](), b""
    reader.begin(head_only=False, upgrade=False)
    for piece in pieces:
        data = piece
        while data:
            try:
                reader.feed(data)
            except Unframable:
                while messages and messages[-1].first[0].startswith(b"1"):
                    del messages[-1]  # whether it was passed on before depends on the cuts
                return Read(messages, b"", "refused")
            messages += [Message((b"%d" % head.status,), fields_of(head.lines), b"") for head in reader.interims]
            content += reader.content
            if not reader.ended:
                break
            head = reader.head
            assert head is not None
            messages.append(Message((b"%d" % head.status,), fields_of(head.lines), content))
            if not head.keep_alive:
                return Read(messages, b"", "closed")
            data, content = reader.rest, b""
            reader.begin(head_only=False, upgrade=False)
    return Read(messages, content, "open")


def fields_of(lines: Any) -> list[tuple[bytes, bytes]]:
    return [(name.lower(), value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)]


def forget() -> None:
    for memo in MEMOS:
        memo.clear()


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges) if begin < end]


def compare(read: Any, parser: Any, data: bytes, places: list[int]) -> None:
    """Unknown, known, and cut at every one of these places alone and at all of them together, unknown and known."""
    forget()
    first = read([data])
    assert read([data]) == first, "known"
    for some in (places, *([place] for place in places)):
        assert read(cut(data, some)) == first, some
        forget()
        assert read(cut(data, some)) == first, some
        assert read(cut(data, some)) == first, some
    alone = Llhttp(parser).read(data)
    for index, message in enumerate(first.messages):
        if index < len(alone.messages):
            assert message == alone.messages[index]
        else:  # chunk extensions are dropped here, and so not held to their grammar
            assert b";" in data
    if first.end == alone.end == "open" and len(first.messages) == len(alone.messages):
        assert first.partial == alone.partial


# -- streams to read


def a_head(first: bytes, *lines: bytes) -> bytes:
    return b"".join(line + b"\r\n" for line in (first, *lines)) + b"\r\n"


CHUNKED = b"Transfer-Encoding: chunked"
CHUNKS = [
    b"0\r\n\r\n", b"2\r\nok\r\n0\r\n\r\n", b"1;a=b\r\nx\r\n02\r\nyz\r\n0\r\nX-Trailer: v\r\nTransfer-Encoding: x\r\n\r\n",
    b"A\r\n0\r\n\r\nGET /\r\n0;x\r\n\r\n", b"2\r\nok\r\n", b"2\r\nok0\r\n\r\n", b"g\r\n", b"1\nx\n0\n\n",
]  # fmt: skip
REQUESTS = [
    a_head(b"GET /a HTTP/1.1", b"Host: a"),
    a_head(b"GET /a HTTP/1.1", b"Host: ab"),
    a_head(b"GET /a HTTP/1.1", b"Host: a", b"X-A: b"),
    a_head(b"GET /a?b HTTP/1.1", b"Host: a", b"Accept: x", b"accept: y"),
    a_head(b"GET /a HTTP/1.1", b"Host: a", b"Connection: keep-alive, x-a"),
    a_head(b"GET /a HTTP/1.1", b"Host: a", b"Connection: close"),
    a_head(b"GET /a HTTP/1.1", b"Host: a", b"Proxy-Connection: close"),
    a_head(b"GET /a HTTP/1.0", b"Connection: keep-alive"),
    a_head(b"GET /a HTTP/1.0"),
    a_head(b"OPTIONS * HTTP/1.1", b"Host: a"),
    a_head(b"DELETE /a HTTP/1.1", b"Host: a", b"Content-Length: 0"),
    a_head(b"POST /a HTTP/1.1", b"Host: a", b"Content-Length: 2") + b"ok",
    a_head(b"POST /a HTTP/1.1", b"Host: a", b"Content-Length: 2") + b"ok\r\n",
    a_head(b"POST /a HTTP/1.1", b"Host: a", b"Content-Length: 29") + b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n!!",
    a_head(b"POST /a HTTP/1.1", b"Host: a", b"Content-Length: 1", b"Content-Length: 1") + b"x",
    a_head(b"POST /a HTTP/1.1", b"Host: a", b"Content-Length: 1", CHUNKED) + b"0\r\n\r\n",
    *(a_head(b"POST /a HTTP/1.1", b"Host: a", CHUNKED) + chunks for chunks in CHUNKS),
    b"\r\n" + a_head(b"GET /a HTTP/1.1", b"Host: a"),
]
RESPONSES = [
    a_head(b"HTTP/1.1 200 OK", b"Content-Length: 2") + b"ok",
    a_head(b"HTTP/1.1 200 OK", b"Content-Length: 2", b"X-Echo: a") + b"ok",
    a_head(b"HTTP/1.1 200 OK", b"Content-Length: 2", b"X-Echo: ab") + b"ok",
    a_head(b"HTTP/1.1 200", b"content-length:0", b"Connection: keep-alive, x-echo", b"X-Echo: a"),
    a_head(b"HTTP/1.1 200 OK", b"Content-Length: 2", b"Connection: close") + b"ok",
    a_head(b"HTTP/1.1 200 OK", b"Content-Length: 2", b"Proxy-Connection: close") + b"ok",
    a_head(b"HTTP/1.0 200 OK", b"Content-Length: 2", b"Connection: keep-alive") + b"ok",
    a_head(b"HTTP/1.0 200 OK", b"Content-Length: 2") + b"ok",
    a_head(b"HTTP/1.1 200 OK", b"Content-Length: 2", b"Set-Cookie: a", b"Upgrade: h2c", b"Connection: upgrade") + b"ok",
    a_head(b"HTTP/1.1 200 OK", b"Content-Length: 2", b"Content-Length: 2") + b"ok",
    a_head(b"HTTP/1.1 200 OK", b"X-A: b") + b"to the end",
    a_head(b"HTTP/1.1 304 Not Modified", b"Content-Length: 2"),
    a_head(b"HTTP/1.1 304 Not Modified", CHUNKED),
    a_head(b"HTTP/1.1 204 No Content"),
    a_head(b"HTTP/1.1 204 No Content", b"Content-Length: 0"),
    a_head(b"HTTP/1.1 204 No Content", b"Content-Length: 2") + b"ok",
    a_head(b"HTTP/1.1 100 Continue"),
    a_head(b"HTTP/1.1 103 Early Hints", b"Link: a"),
    a_head(b"HTTP/1.1 150 X", b"Content-Length: 40") + a_head(b"HTTP/1.1 200 OK", b"Content-Length: 2") + b"ok",
    a_head(b"HTTP/1.1 103 X", CHUNKED) + b"0\r\n\r\n",
    *(a_head(b"HTTP/1.1 200 OK", CHUNKED) + chunks for chunks in CHUNKS),
]
EDITS = st.lists(
    st.tuples(
        st.integers(0, 500), st.integers(0, 3), st.sampled_from([b"", b"\r\n", b"\r", b"\n", b" ", b"\t", b":", b"0", b"a", b"\0", b","])
    ),
    max_size=2,
)
PLACES = st.lists(st.integers(0, 1_000), max_size=3)


def edited(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for place, length, new in edits:
        begin = place % (len(data) + 1)
        data = data[:begin] + new + data[begin + length :]
    return data


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=3), EDITS, PLACES)
def test_requests_are_what_llhttp_makes_of_them_or_nothing(requests, edits, places) -> None:
    compare(requests_read, httptools.HttpRequestParser, edited(b"".join(requests), edits), places)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(RESPONSES), min_size=1, max_size=3), EDITS, PLACES)
def test_responses_are_what_llhttp_makes_of_them_or_nothing(responses, edits, places) -> None:
    compare(responses_read, httptools.HttpResponseParser, edited(b"".join(responses), edits), places)


@pytest.mark.parametrize("first", REQUESTS)
def test_requests_may_be_cut_at_every_byte(first: bytes) -> None:
    data = first + REQUESTS[0]
    compare(requests_read, httptools.HttpRequestParser, data, list(range(len(data))))


@pytest.mark.parametrize("first", RESPONSES)
def test_responses_may_be_cut_at_every_byte(first: bytes) -> None:
    data = first + RESPONSES[1]
    compare(responses_read, httptools.HttpResponseParser, data, list(range(len(data))))


# -- heads that are the beginning of others


def family() -> Iterator[bytes]:
    """Responses whose heads begin alike, with all lengths around those at which one could pass for another."""
    for echo, off in product((b"a", b"ab", b"a\r\nX: y", b"abc"), range(-8, 9)):
        length = 65 + off
        head = a_head(b"HTTP/1.1 200 OK", b"Server: upstream", b"Content-Length: %d" % length, b"X-Echo: " + echo)
        yield head + a_head(b"HTTP/1.1 200 OK", b"Content-Length: 1").ljust(length)


def test_no_head_is_taken_for_the_beginning_of_another() -> None:
    members = list(family())
    forget()
    fresh = {}
    for member in members:
        fresh[member] = responses_read([member])
        assert len(fresh[member].messages) == 1
    for member in members:  # now all are known
        for place in range(len(member)):
            assert responses_read([member[:place], member[place:]]) == fresh[member]


def test_a_reader_is_in_step_after_each_response_wherever_it_was_cut() -> None:
    """One connection for all of them, in pairs."""
    for one, other in product(RESPONSES[:4], repeat=2):
        alone = Llhttp(httptools.HttpResponseParser).read(one + other).messages
        for place in range(len(one)):
            assert responses_read([one[:place], one[place:], other]).messages == alone


# -- what llhttp cannot know


@pytest.mark.parametrize("behind", [b"", b"ok", b"5\r\n", b"HTTP/1.1 200 OK\r\n"])
@pytest.mark.parametrize("line", [b"Content-Length: 2", CHUNKED, b"X-A: b"])
def test_a_response_to_head_ends_with_its_head(behind: bytes, line: bytes) -> None:
    reader = ResponseReader()
    for _ in range(2):
        reader.begin(head_only=True, upgrade=False)
        reader.feed(a_head(b"HTTP/1.1 200 OK", line) + behind)
        assert (reader.ended, reader.content, reader.rest) == (True, b"", behind)
    begun_response().feed(KNOWN)
    reader.begin(head_only=True, upgrade=False)
    reader.feed(KNOWN)
    assert (reader.ended, reader.content, reader.rest) == (True, b"", b"ok")


def test_a_switch_of_protocols_is_one_only_where_it_was_asked_for() -> None:
    switching = a_head(b"HTTP/1.1 101 Switching Protocols", b"Connection: Upgrade", b"Upgrade: WebSocket")
    for _ in range(2):
        reader = ResponseReader()
        reader.begin(head_only=False, upgrade=True)
        reader.feed(switching + b"\x81\x00")
        assert reader.head is not None
        assert (reader.head.status, reader.ended, reader.rest) == (101, True, b"\x81\x00")
        reader.begin(head_only=False, upgrade=False)
        with pytest.raises(Unframable):
            reader.feed(switching)


@pytest.mark.parametrize(
    "head",
    [
        a_head(b"HTTP/1.1 101 Switching Protocols", b"Connection: Upgrade", b"Upgrade: h2c"),
        a_head(b"HTTP/1.1 101 Switching Protocols", b"Connection: Upgrade", b"Upgrade: websocket, h2c"),
        a_head(b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade", b"Upgrade: websocket"),
        a_head(b"HTTP/1.1 101 Switching Protocols"),
    ],
)
def test_it_is_to_a_websocket_and_nothing_else(head: bytes) -> None:
    reader = ResponseReader()
    reader.begin(head_only=False, upgrade=True)
    with pytest.raises(Unframable):
        reader.feed(head)


@pytest.mark.parametrize("status", [100, 102, 103, 110, 150, 199])
@pytest.mark.parametrize("line", [b"Content-Length: 2", CHUNKED])
def test_a_1xx_response_that_announces_content_is_none(status: int, line: bytes) -> None:
    reader = ResponseReader()
    reader.begin(head_only=False, upgrade=False)
    with pytest.raises(Unframable):
        reader.feed(a_head(b"HTTP/1.1 %d X" % status, line))


def test_interim_responses_come_before_the_response_and_are_bounded() -> None:
    reader, interim = ResponseReader(), a_head(b"HTTP/1.1 103 Early Hints", b"Link: a")
    for _ in range(2):
        reader.begin(head_only=False, upgrade=False)
        reader.feed(interim * 2 + RESPONSES[0])
        assert [head.status for head in reader.interims] == [103, 103]
        assert (reader.ended, reader.content) == (True, b"ok")
    reader.begin(head_only=False, upgrade=False)
    with pytest.raises(Unframable):
        feed_all(reader, [interim * 300] * 10)


def test_white_space_around_a_coding_is_none_of_it() -> None:
    """llhttp reads ``chunked`` and a tab to the end of the connection."""
    reader = ResponseReader()
    reader.begin(head_only=False, upgrade=False)
    reader.feed(a_head(b"HTTP/1.1 200 OK", CHUNKED + b"\t ") + b"2\r\nok\r\n0\r\n\r\n")
    assert (reader.ended, reader.content) == (True, b"ok")


def test_content_to_the_end_of_the_connection_ends_there_and_no_other_does() -> None:
    for head, ends in ((RESPONSES[10], True), (RESPONSES[0][:-1], False), (RESPONSES[0], False), (RESPONSES[0][:30], False), (b"", False)):
        reader = ResponseReader()
        reader.begin(head_only=False, upgrade=False)
        if head:
            reader.feed(head)
        assert reader.end_of_input() is ends


# -- what is no request, and not the beginning of one either


def test_an_empty_line_behind_content_begins_nothing() -> None:
    reader = RequestReader()
    assert not reader.begun
    assert reader.read_head(REQUESTS[11], LIMIT)
    assert reader.read_content(reader.rest) == b"ok"
    for piece in (b"\r", b"\n"):
        assert not reader.read_head(piece, LIMIT)
        assert not reader.begun
    assert not reader.read_head(b"G", LIMIT)
    assert reader.begun
    assert reader.read_head(b"ET /a HTTP/1.1\r\nHost: a\r\n\r\n", LIMIT)


def test_a_head_has_a_limit_however_it_comes() -> None:
    for pieces in ([b"GET /" + b"a" * LIMIT], [b"GET /", b"a" * LIMIT], [b"GET /" + b"a" * LIMIT + b" HTTP/1.1\r\nHost: a\r\n\r\n"]):
        assert requests_read(pieces).end == "refused"
    reader = ResponseReader()
    reader.begin(head_only=False, upgrade=False)
    with pytest.raises(Unframable):
        feed_all(reader, [b"HTTP/1.1 200 OK\r\nX-A: ", *([b"a" * 1_000] * 70)])


def test_the_limit_of_a_head_is_exact_and_its_refusal_names_it_and_closes() -> None:
    head = REQUESTS[0]
    for pieces in ([head], [head[:-1], head[-1:]]):
        assert requests_read(pieces).end == "open"
        reader = RequestReader()
        assert [reader.read_head(piece, len(head)) for piece in pieces][-1]
    for piece in (head, head[:-1] + b"xx"):
        with pytest.raises(HeadersTooLarge) as refused:
            RequestReader().read_head(piece, len(head) - 1)
        assert refused.value.extras == {"limit": len(head) - 1}
        assert refused.value.close


def test_empty_lines_alone_are_no_message() -> None:
    with pytest.raises(MalformedRequest):
        RequestReader().read_head(b"\r\n\r\n", LIMIT)
    with pytest.raises(Unframable):
        feed_all(begun_response(), [b"\r\n\r\n"])
    reader = RequestReader()
    assert not reader.read_head(b"\r\n\r", LIMIT)
    with pytest.raises(MalformedRequest):
        reader.read_head(b"\n", LIMIT)
    behind_another = requests_read([REQUESTS[0], b"\r\n\r\n"])
    assert (len(behind_another.messages), behind_another.end) == (1, "refused")


def test_a_chunk_size_may_have_spaces_behind_it_in_a_response_alone() -> None:
    chunks = b"2  \r\nok\r\n0\r\n\r\n"
    reader = begun_response()
    reader.feed(a_head(b"HTTP/1.1 200 OK", CHUNKED) + chunks)
    assert (reader.ended, reader.content) == (True, b"ok")
    head = a_head(b"POST /a HTTP/1.1", b"Host: a", CHUNKED)
    assert requests_read([head + chunks]).end == "refused"
    seen_before = requests_read([head + b"2\r\nok\r\n0\r\n\r\n", head + chunks])
    assert (len(seen_before.messages), seen_before.end) == (1, "refused")


@pytest.mark.parametrize(
    ("sent", "cure"),
    [
        ("GET /v1/markets/\u5e01/summary HTTP/1.1\r\n", "percent-encode"),  # as Go, PHP's curl and tornado send what they are given
        ("GET /api/v3/openOrders?symbol=\u5e01 HTTP/1.1\r\n", "percent-encode"),
        ("GET /v1/orders?symbol=BTC IDR HTTP/1.1\r\n", "%20"),
        ("get /v1/wallets HTTP/1.1\r\n", "upper case"),
        ("symbol=BTCIDR&orderId=1", "Content-Length"),  # behind the head of a DELETE, as Node sends it by default
    ],
)
def test_what_a_client_can_do_about_a_malformed_head_is_said(sent: str, cure: str) -> None:
    with pytest.raises(MalformedRequest) as refused:
        RequestReader().read_head(sent.encode(), LIMIT)
    assert refused.value.detail.startswith("not HTTP/1.1: ")
    assert cure in refused.value.detail


@pytest.mark.parametrize(
    ("sent", "cure"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "this is TLS"),  # https:// to a port without it
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04", "set the client to HTTP/1.1"),  # RFC 9113 §3.4
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1024 80\r\nGET / HTTP/1.1\r\n", "a PROXY header is not expected"),
        (b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c", "a PROXY header is not expected"),
    ],
)
def test_what_speaks_another_protocol_is_told_so_and_not_what_its_bytes_would_lack_as_a_request(sent: bytes, cure: str) -> None:
    with pytest.raises(MalformedRequest, match=cure) as refused:
        RequestReader().read_head(sent, LIMIT)
    assert "upper case" not in refused.value.detail


def test_what_is_wrong_with_a_response_is_said() -> None:
    with pytest.raises(Unframable, match="a chunk's size must be hexadecimal"):
        begun_response().feed(a_head(b"HTTP/1.1 200 OK", CHUNKED) + b"x\r\n")


def test_trailers_have_the_limit_of_a_head_wherever_the_head_was_seen() -> None:
    head, trailer = a_head(b"POST /a HTTP/1.1", b"Host: a", CHUNKED), b"X-A: " + b"a" * LIMIT + b"\r\n\r\n"
    for before in ([], [head + b"0\r\n\r\n"]):
        read = requests_read([*before, head + b"0\r\n" + trailer])
        assert (len(read.messages), read.end) == (len(before), "refused")


def test_a_reader_has_read_nothing_yet() -> None:
    for reader in (RequestReader(), ResponseReader()):
        assert (reader.content, reader.ended, reader.rest) == (b"", False, b"")
    request = RequestReader()
    assert (request.line.method, request.line.target, request.line.http10) == (b"", b"", False)
    assert (request.fields, request.shape, request.framing.length) == ([], None, 0)


def begun_response() -> ResponseReader:
    reader = ResponseReader()
    reader.begin(head_only=False, upgrade=False)
    return reader


def feed_all(reader: ResponseReader, pieces: list[bytes]) -> None:
    for piece in pieces:
        reader.feed(piece)


def test_the_authority_of_the_target_stands_for_host() -> None:
    reader = RequestReader()
    assert reader.read_head(a_head(b"GET http://b.example/x HTTP/1.1", b"Host: a"), LIMIT)
    assert (reader.line.target, reader.fields, reader.framing.host) == (b"/x", [(b"host", b"b.example")], b"b.example")


def test_in_http_1_0_it_need_not_stand_for_anything() -> None:
    reader = RequestReader()
    assert reader.read_head(a_head(b"GET http://b.example/x HTTP/1.0"), LIMIT)
    assert (reader.fields, reader.framing.host) == ([(b"host", b"b.example")], b"b.example")


def test_the_version_decides_whether_the_connection_stays_whatever_the_fields_before() -> None:
    reader = RequestReader()
    for version, stays in ((b"1.1", True), (b"1.0", False), (b"1.0", False), (b"1.1", True)):
        assert reader.read_head(a_head(b"GET /%b HTTP/%b" % (version, version), b"Host: a"), LIMIT)
        assert (reader.framing.keep_alive, reader.framing.http10) == (stays, not stays)


@pytest.mark.parametrize(
    ("held", "line"),
    [
        (b"GET /a?b=/c?d HTTP/1.1\r\nHost: ", (b"GET", b"/a")),
        (b"\r\nPUT /x HTTP/1.1\r\n", (b"PUT", b"/x")),
        (b"GET http://a.example/x/y?z HTTP/1.1\r\n", (b"GET", b"/x/y")),
        (b"GET http://a.example HTTP/1.1\r\n", (b"GET", b"/")),
        (b"GET http://a.example/x://y/z HTTP/1.1\r\n", (b"GET", b"/x://y/z")),
        (b"OPTIONS * HTTP/1.1\r\n", (b"OPTIONS", b"/")),
        (b"GET /a b HTTP/1.1\r\n", (b"", b"")),
        (b"GET /a?" + b"b" * 9_000, (b"GET", b"/a")),
        (b"GET /a", (b"GET", b"/a")),
        (b"GET", (b"", b"")),
        (b"", (b"", b"")),
    ],
)
def test_the_line_of_a_head_that_was_refused_is_read_for_its_form_alone(held: bytes, line: tuple[bytes, bytes]) -> None:
    assert RequestReader().partial_line(held) == line
    reader = RequestReader()
    if held.startswith(b"GET /a?"):
        assert not reader.read_head(held[:7], LIMIT)
        assert reader.partial_line(held[7:]) == line


@pytest.mark.parametrize("field", [b"Host: b", b"X_Account_Id: a", b"Expect: x", b"Content-Length: x"])
def test_a_refused_head_is_told_whole_wherever_it_was_split(field: bytes) -> None:
    head = b"GET /a HTTP/1.1\r\nHost: a\r\n" + field + b"\r\n\r\n"
    for at in range(1, head.index(field) + 1):
        reader = RequestReader()
        assert not reader.read_head(head[:at], LIMIT)
        with pytest.raises(Refusal):
            reader.read_head(head[at:], LIMIT)
        assert reader.partial_head(head[at:]) == head
        assert reader.partial_line(head[at:]) == (b"GET", b"/a")


@pytest.mark.parametrize("before", [b"", b"\r\n"])
@pytest.mark.parametrize("behind", [b"\r\nOrigin: a\r\n", b"GET /b HTTP/1.1\r\nOrigin: b\r\n\r\n", b"\r\n\r\n"])
def test_what_follows_a_refused_head_is_not_told_as_part_of_it(before: bytes, behind: bytes) -> None:
    head = before + b"GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"
    for at in range(len(head)):
        reader = RequestReader()
        if at:
            assert not reader.read_head(head[:at], LIMIT)
        with pytest.raises(Refusal):
            reader.read_head(head[at:] + behind, LIMIT)
        assert reader.partial_head(head[at:] + behind) == head
        assert reader.partial_line(head[at:] + behind) == (b"GET", b"/a")


@pytest.mark.parametrize("rest", [b"", b"\r\n", b"\nmalformed"])
def test_a_reader_is_freed_without_the_garbage_collector(rest: bytes) -> None:
    gc.collect()
    gc.disable()
    try:
        with suppress(Refusal):
            RequestReader().read_head(b"GET /gone HTTP/1.1\r\nHost: a\r\n" + rest, LIMIT)
        with suppress(Unframable):
            begun_response().feed(b"HTTP/1.1 200 Gone\r\nContent-Length: 0\r\n" + rest)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_response_head_that_was_accepted_is_not_shown_to_llhttp_again() -> None:
    class Shown(ResponseReader):
        def _new_feed(self) -> Any:
            raise AssertionError

    head = a_head(b"HTTP/1.1 200 OK", b"X-Seen: before", b"Content-Length: 2")
    begun_response().feed(head + b"ok")
    for pieces in ((head + b"ok",), (head + b"o", b"k"), (head, b"ok")):
        reader = Shown()
        reader.begin(head_only=False, upgrade=False)
        feed_all(reader, list(pieces))
        assert (reader.ended, reader.content) == (True, pieces[-1].removeprefix(head))


KNOWN = a_head(b"HTTP/1.1 200 OK", b"X-Seen: before", b"Content-Length: 2") + b"ok"


def test_content_that_looks_like_a_known_response_is_content() -> None:
    known = KNOWN
    begun_response().feed(known)
    reader = begun_response()
    reader.feed(a_head(b"HTTP/1.1 200 OK", b"Content-Length: %d" % (2 * len(known))))
    for ended in (False, True):
        reader.feed(known)
        assert (reader.ended, reader.content) == (ended, known)


def test_the_rest_of_a_head_that_looks_like_a_known_response_is_the_rest_of_a_head() -> None:
    begun_response().feed(KNOWN)
    read = responses_read([b"HTTP/1.1 200 OK\r\nX-A: ", KNOWN])
    assert read.messages == [Message((b"200",), [(b"x-a", b"HTTP/1.1 200 OK"), (b"x-seen", b"before")], b"ok")]


def test_interim_responses_may_fill_the_room_of_a_head_and_no_more() -> None:
    last = a_head(b"HTTP/1.1 200 OK", b"Content-Length: 0")
    for more, ends in ((0, True), (1, False)):
        reader = begun_response()
        first = a_head(b"HTTP/1.1 103 Early Hints", b"Link: " + b"a" * 30_000)
        rest = MAX_RESPONSE_HEAD - len(first) - len(last) - len(a_head(b"HTTP/1.1 103 Early Hints", b"Link: ")) + more
        reader.feed(first + a_head(b"HTTP/1.1 103 Early Hints", b"Link: " + b"a" * rest))
        if ends:
            reader.feed(last)
            assert reader.ended
        else:
            with pytest.raises(Unframable):
                reader.feed(last)
