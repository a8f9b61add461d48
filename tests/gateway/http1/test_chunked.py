"""Content out of bytes, however they are cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import HeadersTooLarge, MalformedRequest, Refusal
from gateway.http1.chunked import MAX_CHUNK_LINE, ChunkedBody

PIECES = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
CUTS = st.lists(st.integers(0, 400), max_size=12)


def chunked(pieces: list[bytes], *, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    return b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces) + b"0\r\n" + trailers + b"\r\n"


def fed(body: ChunkedBody, data: bytes, cuts: list[int]) -> tuple[bytes, bytes]:
    """Content and rest when the bytes come in these pieces."""
    content, begin = b"", 0
    for cut in [*sorted({cut for cut in cuts if cut < len(data)}), len(data)]:
        got, rest = body.feed(data[begin:cut])
        content += got
        if body.done:
            return content, rest + data[cut:]
        assert rest == b""
        begin = cut
    return content, b""


@settings(max_examples=150, deadline=None)
@given(
    PIECES,
    CUTS,
    st.sampled_from([b"", b";a", b';a="b c"', b" ; a=b"]),
    st.sampled_from([b"", b"X-A: b\r\n", b"A:\r\nB: c\r\n"]),
    st.binary(),
)
def test_chunks_are_joined_and_what_follows_is_left(
    pieces: list[bytes], cuts: list[int], extension: bytes, trailers: bytes, rest: bytes
) -> None:
    data = chunked(pieces, extension=extension, trailers=trailers) + rest
    assert fed(ChunkedBody(100), data, cuts) == (b"".join(pieces), rest)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([b"0", b"1", b"a", b"\r", b"\n", b"\r\n", b";", b" ", b"x", b":", b"ff", b"-"]), max_size=12).map(b"".join),
    CUTS,
)
def test_whatever_comes_is_read_or_refused_and_the_cuts_do_not_matter(data: bytes, cuts: list[int]) -> None:
    def outcome(cuts: list[int]) -> object:
        try:
            return fed(ChunkedBody(50), data, cuts)
        except Refusal as refusal:
            return type(refusal)

    assert outcome(cuts) == outcome([])


@pytest.mark.parametrize("size", ["1" * 16, "+1", " 1", "0x1", "", "g", "1_0", "१"])
def test_a_size_is_hexadecimal_digits(size: str) -> None:
    with pytest.raises(MalformedRequest):
        ChunkedBody(100).feed(size.encode() + b"\r\n")


@pytest.mark.parametrize("line", [b"2  ", b"2\t", b"2 ; a", b"2 ;a", b"2; a", b'2;a="b"', b"0002", b"2   ;a  "])
def test_white_space_behind_a_size_is_taken_from_servers(line: bytes) -> None:
    data = line + b"\r\nok\r\n0 \r\n\r\nrest"
    for cut in range(len(data)):
        assert fed(ChunkedBody(100, padded=True), data, [cut]) == (b"ok", b"rest")


@pytest.mark.parametrize("line", [b" 2", b"2 a", b"2 2", b"2\r", b"2\x0b", b"2\x00", b"2 ;\x00", b"", b" "])
def test_but_nothing_else_there(line: bytes) -> None:
    with pytest.raises(MalformedRequest):
        ChunkedBody(100, padded=True).feed(line + b"\r\nok\r\n0\r\n\r\n")


def test_trailers_are_bounded() -> None:
    ChunkedBody(100).feed(b"0\r\n" + b"A: b\r\n" * 16 + b"\r\n")
    with pytest.raises(HeadersTooLarge):
        ChunkedBody(100).feed(b"0\r\n" + b"A: b\r\n" * 20 + b"\r\n")


@pytest.mark.parametrize(
    ("data", "kind", "why"),
    [
        (b"g\r\n", MalformedRequest, "must be hexadecimal digits"),
        (b"1 \r\n", MalformedRequest, "must be hexadecimal digits"),
        (b"\n", MalformedRequest, "does not end in CRLF"),
        (b"\n" + b"a" * 300, MalformedRequest, "does not end in CRLF"),
        (b"1\n", MalformedRequest, "does not end in CRLF"),
        (b"1\r\nx\n", MalformedRequest, "not followed by CRLF"),
        (b"1\r\nx\ry", MalformedRequest, "not followed by CRLF"),
        (b"0\r\nX\r\n", MalformedRequest, "not a field line"),
        (b"0\r\n: x\r\n", MalformedRequest, "not a field line"),
        (b"0\r\nA: \x00\r\n", MalformedRequest, "not a field line"),
        (b"1;" + b"a" * (MAX_CHUNK_LINE - 1) + b"\r\n", MalformedRequest, "too long"),
        (b"1;" + b"a" * MAX_CHUNK_LINE, MalformedRequest, "too long"),
        (b"0\r\nA:" + b"a" * 99 + b"\r\n", HeadersTooLarge, "too long"),
        (b"0\r\nA:" + b"a" * 100, HeadersTooLarge, "too long"),
        (b"0\r\n" + b"A:" + b"a" * 96 + b"\r\nB:\r\n", HeadersTooLarge, "too long"),
        (b"0\r\n" + b"A:" + b"a" * 96 + b"\r\nB\r\n", HeadersTooLarge, "too long"),
    ],
)
def test_what_breaks_the_coding_ends_the_connection(data: bytes, kind: type[Refusal], why: str) -> None:
    for cuts in ([], list(range(len(data)))):
        with pytest.raises(kind, match=why) as refusal:
            fed(ChunkedBody(100), data, cuts)
        assert refusal.value.close


@pytest.mark.parametrize(
    "data",
    [
        b"1;" + b"a" * (MAX_CHUNK_LINE - 2) + b"\r\nx\r\n0\r\n\r\n",
        b"1\r\nx\r\n0;" + b"a" * (MAX_CHUNK_LINE - 2) + b"\r\n\r\n",
        b"1\r\nx\r\n0\r\nA:" + b"a" * 98 + b"\r\n\r\n",
        b"1\r\nx\r\n0\r\nA:" + b"a" * 44 + b"\r\nB:" + b"b" * 50 + b"\r\n\r\n",
    ],
)
def test_what_is_exactly_as_long_as_it_may_be_passes(data: bytes) -> None:
    for cuts in ([], list(range(len(data)))):
        assert fed(ChunkedBody(100), data + b"rest", cuts) == (b"x", b"rest")
