"""Heads of responses: cut, framed, refused."""

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.http1 import response
from gateway.http1.response import CHUNKED, UNTIL_CLOSE, Unframable, read_head, read_whole


def head(*lines: bytes, version: bytes = b"HTTP/1.1", status: int = 200) -> bytes:
    return version + b" %d OK\r\n" % status + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


@pytest.mark.parametrize(
    ("raw", "status", "head_only", "length", "framing"),
    [
        (head(b"Content-Length: 7"), 200, False, 7, b"content-length: 7"),
        (head(b"Content-Length:7  "), 200, False, 7, b"content-length: 7"),
        (head(b"Content-Length: 7"), 200, True, 0, b"content-length: 7"),
        (head(b"Transfer-Encoding: chunked"), 200, True, 0, b""),
        (head(b"Content-Length: 7", status=304), 304, False, 0, b"content-length: 7"),
        (head(b"Content-Length: 7", status=204), 204, False, 0, b""),
        (head(status=103), 103, False, 0, b""),
        (head(b"Transfer-Encoding: chunked"), 200, False, CHUNKED, b"transfer-encoding: chunked"),
        (head(b"transfer-encoding: Chunked"), 200, False, CHUNKED, b"transfer-encoding: chunked"),
        (head(), 200, False, UNTIL_CLOSE, b"transfer-encoding: chunked"),
        (head(version=b"HTTP/1.0"), 200, False, UNTIL_CLOSE, b"transfer-encoding: chunked"),
    ],
)
def test_where_the_content_ends_and_how_the_client_is_told(raw: bytes, status: int, head_only: bool, length: int, framing: bytes) -> None:
    for _ in range(2):  # also when it has been seen before
        read = read_head(raw, status, head_only=head_only)
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
    ],
)
def test_whether_the_connection_goes_on(raw: bytes, keep_alive: bool) -> None:
    assert read_head(raw, 200, head_only=False).keep_alive is keep_alive


@pytest.mark.parametrize("status", [0, 99, 600, 999])
def test_a_status_that_is_none_is_refused(status: int) -> None:
    with pytest.raises(Unframable):
        read_head(head(b"Content-Length: 0", status=status), status, head_only=False)


def test_hop_by_hop_lines_are_left_out_and_others_kept_as_they_came() -> None:
    lines = (b"X-A:  1 ", b"Keep-Alive: x", b"TE: x", b"Set-Cookie: a", b"set-cookie: b", b"Proxy-Authenticate: x", b"Trailer: x")
    assert read_head(head(*lines), 200, head_only=False).lines == [b"X-A:  1 ", b"Set-Cookie: a", b"set-cookie: b"]


def test_a_head_that_answers_head_is_not_taken_for_one_that_does_not() -> None:
    raw = head(b"Content-Length: 70")
    assert [read_head(raw, 200, head_only=head_only).length for head_only in (True, False, True)] == [0, 70, 0]


def test_a_whole_response_with_a_known_head_is_told_from_everything_else() -> None:
    raw = head(b"Content-Length: 3", b"X-Whole: 1")
    assert read_whole(raw + b"abc") is None, "its head has not been read yet"
    known = read_head(raw, 200, head_only=False)
    assert read_whole(raw + b"abc") == (known, b"abc")
    for other in (raw, raw + b"ab", raw + b"abcd", raw[:-2] + b"abc", b"", raw.replace(b"3", b"4") + b"abcd"):
        assert read_whole(other) is None
    for framing in (b"Transfer-Encoding: chunked", b"X-None: 1"):
        raw = head(framing)
        read_head(raw, 200, head_only=False)
        assert read_whole(raw) is None
    interim = head(status=103)
    read_head(interim, 103, head_only=False)
    assert read_whole(interim) is None


@pytest.mark.parametrize("behind", [b"a", b"\n", b"\r", b"\r\n", b"\r\n\r", b"ab\r\n\r\n"])
def test_a_known_head_is_not_taken_for_the_beginning_of_another(behind: bytes) -> None:
    """Each time with a length that would fit if it were."""
    for length in range(40, 140):
        raw = head(b"Content-Length: %d" % length, b"X-Echo: a")
        read_head(raw, 200, head_only=False)
        assert read_whole(raw[:-4] + behind) is None


def test_what_is_remembered_is_bounded_and_nobodys() -> None:
    for number in range(3_000):
        read_head(head(b"Content-Length: 1", b"X-Number: %d" % number), 200, head_only=False)
    read_head(head(b"Content-Length: 1", b"Set-Cookie: session=secret"), 200, head_only=False)
    remembered = [*response._heads, *response._memo]
    assert len(remembered) <= 256 + 1_024
    assert not [known for known in remembered if b"secret" in known]


def test_a_line_seen_before_is_judged_as_the_first_time() -> None:
    for _ in range(2):
        with pytest.raises(Unframable):
            read_head(head(b"Content-Length: x"), 200, head_only=False)
        with pytest.raises(Unframable):
            read_head(head(b"Content-Length: 1", b"Content-Length: 1"), 200, head_only=False)
        assert read_head(head(b"Connection: close", b"Content-Length: 1"), 200, head_only=False).named == frozenset()
        assert read_head(head(b"Connection: close, X-A"), 200, head_only=False).named == {b"x-a"}


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
    lines = read_head(raw, 200, head_only=False).lines
    assert [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)] == collector.fields
