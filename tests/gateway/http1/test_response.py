"""Heads of responses: cut, framed, refused."""

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import MalformedRequest
from gateway.http1 import response
from gateway.http1.framing import CHUNKED, UNTIL_CLOSE
from gateway.http1.response import RATE_LIMIT, Unframable, known_head, read_head
from tests.support.inside import RESPONSE_FIELDS, RESPONSE_HEADS

OK = b"HTTP/1.1 200 OK\r\n"


def head(*lines: bytes, version: bytes = b"HTTP/1.1", status: int = 200) -> bytes:
    return version + b" %d OK\r\n" % status + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


@pytest.mark.parametrize(
    ("raw", "head_only", "length", "framing"),
    [
        (head(b"Content-Length: 7"), False, 7, b"content-length: 7"),
        (head(b"Content-Length:7  "), False, 7, b"content-length: 7"),
        (head(b"Content-Length: 7"), True, 0, b"content-length: 7"),
        (head(b"Transfer-Encoding: chunked"), True, 0, b""),
        (head(b"Content-Length: 7", status=304), False, 0, b"content-length: 7"),
        (head(b"Content-Length: 7", status=204), False, 0, b""),
        (head(status=103), False, 0, b""),
        (head(b"Transfer-Encoding: chunked"), False, CHUNKED, b"transfer-encoding: chunked"),
        (head(b"transfer-encoding: Chunked"), False, CHUNKED, b"transfer-encoding: chunked"),
        (head(), False, UNTIL_CLOSE, b"transfer-encoding: chunked"),
        (head(version=b"HTTP/1.0"), False, UNTIL_CLOSE, b"transfer-encoding: chunked"),
    ],
)
def test_where_the_content_ends_and_how_the_client_is_told(raw: bytes, head_only: bool, length: int, framing: bytes) -> None:
    for _ in range(2):  # also when it has been seen before
        read = read_head(raw, head_only=head_only)
        assert (read.length, read.framing.removesuffix(b"\r\n")) == (length, framing)


@pytest.mark.parametrize(
    ("raw", "keep_alive"),
    [
        (head(b"Content-Length: 0"), True),
        (head(b"Content-Length: 0", b"Connection: close"), False),
        (head(b"Content-Length: 0", b"Connection: X-A, Close"), False),
        (head(b"Content-Length: 0", version=b"HTTP/1.0"), False),
        (head(b"Content-Length: 0", b"Connection: keep-alive", version=b"HTTP/1.0"), True),
        (head(), False),
        (head(b"Content-Length: 0", b"Proxy-Connection: close"), False),
        (head(b"Content-Length: 0", b"Proxy-Connection: keep-alive", version=b"HTTP/1.0"), False),
        (head(status=304), True),
        (head(b"Content-Length: 7", status=304), True),
        (head(status=204), True),
        (head(b"Content-Length: 0", status=204), True),
        (head(b"Content-Length: 7", status=204), False),  # some would read content there
        (head(b"Transfer-Encoding: chunked", status=204), False),
        (head(b"Transfer-Encoding: chunked"), True),
        (head(b"Content-Length: 7", status=205), True),
    ],
)
def test_whether_the_connection_goes_on(raw: bytes, keep_alive: bool) -> None:
    assert read_head(raw, head_only=False).keep_alive is keep_alive


@pytest.mark.parametrize("status", [0, 99, 600, 999])
def test_a_status_that_is_none_is_refused(status: int) -> None:
    with pytest.raises(Unframable):
        read_head(head(b"Content-Length: 0", status=status), head_only=False)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"HTTP/1.2 200 OK\r\n\r\n", "the protocol is not"),
        (b"ICY 200 OK\r\n\r\n", "the protocol is not"),
        (b"HTTP/1.1  200 OK\r\n\r\n", "the status code is invalid"),
        (b"HTTP/1.1 x00 OK\r\n\r\n", "the status code is invalid"),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", "the status code is invalid"),
        (b"HTTP/1.1 20 OK\r\n\r\n", "the status code is invalid"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "the status code is invalid"),
        (b"HTTP/1.1 200\tOK\r\n\r\n", "the status code is invalid"),
        (b"HTTP/1.1 +99 OK\r\n\r\n", "the status code is invalid"),
        (head(b"Content-Length: 1", b"Content-Length: 1"), "the Content-Length field is repeated"),
        (head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), "the Transfer-Encoding field is repeated"),
        (head(b"Transfer-Encoding: chunked", b"Content-Length: 1"), "both Content-Length and Transfer-Encoding"),
        (head(b"Transfer-Encoding: chunked", version=b"HTTP/1.0"), "does not exist in"),
        (head(b"Transfer-Encoding: gzip, chunked"), "must be exactly chunked"),
        (head(b"Content-Length: 1, 1"), "must be given in digits"),
        (head(b"Content-Length: \x0b1"), "must be given in digits"),
        *[(head(b"Content-Length: 1", status=status), "a 1xx response with content") for status in (100, 101, 103, 150, 199)],
        *[(head(b"Transfer-Encoding: chunked", status=status), "a 1xx response with content") for status in (100, 101, 103, 199)],
    ],
)
def test_what_cannot_be_framed_beyond_doubt_is_refused_with_its_reason(raw: bytes, why: str) -> None:
    for head_only in (False, True):
        with pytest.raises((Unframable, MalformedRequest), match=why):
            read_head(raw, head_only=head_only)


@pytest.mark.parametrize(
    ("lines", "attributes"),
    [
        ((), {"dated": False, "limited": False, "upgrade": b"", "named": frozenset(), "rendered": OK, "status": 200}),
        ((b"Date: Thu, 01 Jan 1970 00:00:00 GMT",), {"dated": True, "rendered": OK + b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"}),
        ((b"Date: x", b"Connection: Date"), {"dated": False, "named": frozenset({b"date"})}),
        ((b"Connection: close", b"X-A: 1", b"X-B:2"), {"named": frozenset(), "rendered": OK + b"X-A: 1\r\nX-B:2\r\n"}),
        ((b"Connection: X-A", b"Connection: X-B"), {"named": frozenset({b"x-a", b"x-b"})}),
        ((b"Content-Length:\t7 ", b"Connection: X-A"), {"keep_alive": True, "framing": b"content-length: 7\r\n"}),
        ((b"Upgrade: WebSocket",), {"upgrade": b"websocket", "rendered": OK}),
        ((b"Upgrade: websocket", b"Upgrade: websocket"), {"upgrade": b"repeated"}),
        *[((name.title() + b": 1",), {"limited": True, "rendered": OK + name.title() + b": 1\r\n"}) for name in sorted(RATE_LIMIT)],
    ],
)
def test_what_else_a_head_says(lines: tuple[bytes, ...], attributes: dict[str, object]) -> None:
    for _ in range(2):  # the second time from memory
        read = read_head(head(*lines), head_only=True)
        assert {name: getattr(read, name) for name in attributes} == attributes


@pytest.mark.parametrize(
    ("raw", "status"), [(b"HTTP/1.1 200\r\n\r\n", 200), (b"HTTP/1.1 599 \r\n\r\n", 599), (b"HTTP/1.0 100 Go on\r\n\r\n", 100)]
)
def test_a_status_may_have_a_reason_or_none(raw: bytes, status: int) -> None:
    assert read_head(raw, head_only=True).status == status


def test_hop_by_hop_lines_are_left_out_and_others_kept_as_they_came() -> None:
    lines = (b"X-A:  1 ", b"Keep-Alive: x", b"TE: x", b"Set-Cookie: a", b"set-cookie: b", b"Proxy-Authenticate: x", b"Trailer: x")
    assert read_head(head(*lines), head_only=False).lines == [b"X-A:  1 ", b"Set-Cookie: a", b"set-cookie: b"]


def test_a_head_that_answers_head_is_not_taken_for_one_that_does_not() -> None:
    raw = head(b"Content-Length: 70")
    assert [read_head(raw, head_only=head_only).length for head_only in (True, False, True)] == [0, 70, 0]


def test_a_head_is_known_with_its_end_and_not_otherwise() -> None:
    raw = head(b"Content-Length: 3", b"X-Whole: 1")
    assert known_head(raw) is None
    read_head(raw, head_only=True)
    assert known_head(raw) is None, "what answers a HEAD has another length"
    read = read_head(raw, head_only=False)
    assert known_head(raw) is read
    for cut in range(len(raw)):
        assert known_head(raw[:cut]) is None
    assert known_head(raw + b"a") is None


def test_what_is_remembered_is_bounded_and_nobodys() -> None:
    for number in range(3_000):
        read_head(head(b"Content-Length: 1", b"X-Number: %d" % number), head_only=False)
    read_head(head(b"Content-Length: 1", b"Set-Cookie: session=secret"), head_only=False)
    remembered = [*RESPONSE_HEADS, *RESPONSE_FIELDS]
    assert len(remembered) <= 256 + 1_024
    assert not [known for known in remembered if b"secret" in known]


def test_a_line_or_a_head_longer_than_most_is_not_remembered() -> None:
    line = b"X-Longest: " + b"a" * 69
    for known, remembered in ((line, True), (line + b"a", False)):
        read_head(head(known), head_only=True)
        assert (known in RESPONSE_FIELDS) is remembered
    raw = head(b"Content-Length: 0", b"X-Fill: " + b"a" * 976)
    assert len(raw) == 1_024
    for whole, remembered in ((raw, True), (raw.replace(b"X-Fill", b"XX-Fill"), False)):
        read_head(whole, head_only=False)
        assert (known_head(whole) is not None) is remembered


def test_a_line_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):  # the first may find the memo full, which clears it between the lines
        read_head(head(b"X-Once: 1", b"Content-Length: 77"), head_only=True)
    monkeypatch.setattr(response, "_read_line", None)
    assert read_head(head(b"X-Once: 1", b"Content-Length: 77"), head_only=True).framing == b"content-length: 77\r\n"


def test_a_line_seen_before_is_judged_as_the_first_time() -> None:
    for _ in range(2):
        with pytest.raises(MalformedRequest):
            read_head(head(b"Content-Length: x"), head_only=False)
        with pytest.raises(MalformedRequest):
            read_head(head(b"Content-Length: 1", b"Content-Length: 1"), head_only=False)
        assert read_head(head(b"Connection: close", b"Content-Length: 1"), head_only=False).named == frozenset()
        assert read_head(head(b"Connection: close, X-A"), head_only=False).named == {b"x-a"}


class Collector:
    """What llhttp itself makes of a head."""

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.strip()))

    def on_headers_complete(self) -> None:
        self.complete = True


LINES = st.lists(
    st.tuples(
        st.sampled_from([b"X-A", b"x-b", b"Server", b"ETag"]),
        st.sampled_from([b":", b": ", b":\t", b" :", b""]),
        st.binary(max_size=6).filter(lambda value: b"\r\n" not in value),
        st.sampled_from([b"\r\n", b"\r\n", b"\n", b"\r\n "]),
    ),
    max_size=5,
)


@settings(max_examples=300, deadline=None)
@given(LINES)
def test_what_llhttp_accepts_is_cut_into_the_same_fields(parts: list[tuple[bytes, bytes, bytes, bytes]]) -> None:
    raw = b"HTTP/1.1 200 OK\r\n" + b"".join(b"".join(part) for part in parts) + b"\r\n"
    collector = Collector()
    try:
        httptools.HttpResponseParser(collector).feed_data(raw)
    except httptools.HttpParserError:
        return
    if not collector.complete:
        return
    lines = read_head(raw, head_only=False).lines
    assert [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)] == collector.fields
