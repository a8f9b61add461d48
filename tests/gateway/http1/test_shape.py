"""A head of a known shape reads as one that is read the long way, or is refused as it is."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import Refusal
from gateway.http1.headers import REQUEST_DROP, request_lines
from gateway.http1.request_reader import PATIENCE, SHAPES, RequestReader
from gateway.http1.shape import CHANGING, LONGEST, shape_of
from tests.support.inside import remembered

LIMIT = 4_096
DROP = REQUEST_DROP | CHANGING | {b"x-api-key", b"x-mbx-apikey"}
MOBEE = (
    b"GET /v1/wallets HTTP/1.1\r\nHost: gate.test\r\nUser-Agent: bot\r\nX-API-Key: gbk_1\r\nX-Request-Timestamp: %b\r\n"
    b"X-Request-Signature: %b\r\nAccept: */*\r\n\r\n"
)
ORDER = MOBEE.replace(b"GET /v1/wallets", b"POST /v1/orders").replace(b"Accept: */*", b"Content-Length: 3")
BINANCE = b"GET /api/v3/account?%b HTTP/1.1\r\nHost: gate.test\r\nX-MBX-APIKEY: gbk_1\r\nConnection: keep-alive\r\n\r\n"
ASKED = MOBEE.replace(b"GET /v1/wallets ", b"GET /v1/orders?%b ")
HEADS = [
    MOBEE % (b"1760000000", b"c2ln"), ORDER % (b"1760000000", b"c2ln"), BINANCE % b"timestamp=1760000000000&signature=0a",
    ASKED % (b"since=1760000000", b"1760000000", b"c2ln"),
    MOBEE.replace(b"\r\nAccept: */*", b"") % (b"1760000000", b"c2ln"),
]  # fmt: skip


def read(reader: RequestReader, data: bytes) -> Any:
    """Everything that a reader makes of these bytes."""
    try:
        if not reader.read_head(data, LIMIT):
            return "more"
    except Refusal as refusal:
        return type(refusal), refusal.detail
    line, framing = reader.line, reader.framing
    told = (framing.length, framing.keep_alive, framing.host, framing.named, framing.expects_continue, framing.upgrade, framing.alone)
    return line.method, line.target, line.path, line.query, line.http10, line.authority, reader.fields, told, reader.ended, reader.rest


def acquainted(*heads: bytes) -> RequestReader:
    """A reader that has read these, one after the other."""
    reader = RequestReader()
    for head in heads:
        assert read(reader, head) != "more"
        if not reader.ended:
            reader.read_content(b"abc")
    return reader


@pytest.mark.parametrize("head", HEADS)
def test_the_second_head_of_a_shape_is_known(head: bytes) -> None:
    reader = acquainted(head)
    assert reader.shape is None
    fresh = read(RequestReader(), head.replace(b"1760000000", b"1760000001"))
    assert read(reader, head.replace(b"1760000000", b"1760000001")) == fresh
    assert reader.shape is not None
    assert reader.shape.forwarded(DROP) == request_lines(fresh[6], DROP)
    assert reader.shape.forwarded(DROP) is reader.shape.forwarded(DROP)
    assert reader.shape.forwarded(DROP | {b"accept"}) == request_lines(fresh[6], DROP | {b"accept"}), "another configuration"


def test_the_framing_of_a_known_head_is_not_that_of_the_next_unknown_one() -> None:
    """Which repeats the fields that concern framing of the unknown one before it: what follows it is content, not a request."""
    unknown = b"POST /v1/orders HTTP/1.1\r\nHost: gate.test\r\nX-Odd: 1\r\nContent-Length: 3\r\n\r\n"
    head = HEADS[0]
    reader = acquainted(head, unknown, head)
    assert reader.shape is not None
    assert read(reader, unknown) == read(RequestReader(), unknown)
    assert reader.framing.length == 3


def test_a_field_that_connection_names_is_not_forwarded_from_a_known_head_either() -> None:
    head = b"GET / HTTP/1.1\r\nHost: gate.test\r\nAccept: a/b\r\nAccept-Language: id\r\nConnection: Accept-Language\r\n\r\n"
    reader = acquainted(head, head)
    assert reader.shape is not None
    assert reader.shape.forwarded(DROP) == b"accept: a/b\r\n"


@given(st.sampled_from(HEADS), st.data())
def test_whatever_is_changed_in_a_known_head_it_reads_as_it_does_to_a_stranger(head: bytes, data: Any) -> None:
    start = data.draw(st.integers(0, len(head)))
    end = data.draw(st.integers(start, min(len(head), start + 12)))
    changed = head[:start] + data.draw(st.binary(max_size=6) | st.sampled_from((b"\r\n", b" ", b"?", b"#", b"\r\nX: 1"))) + head[end:]
    assert read(acquainted(head, head), changed) == read(RequestReader(), changed)


@given(st.binary(max_size=40), st.binary(max_size=40))
@example(b"1\r\nX-Account-Id: 1", b"c2ln")
@example(b"a=1 HTTP/1.1\r\nX-Account-Id: 1\r\nX: a", b"")
@example(b"a#b", b"")
@example(b"", b"")
def test_no_value_is_taken_for_anything_else(first: bytes, second: bytes) -> None:
    for shape in (MOBEE, ORDER, BINANCE, ASKED):
        values = shape.count(b"%b")
        known, changed = (shape % (a, b, a)[:values] for a, b in ((b"1", b"x"), (first, second)))
        assert read(acquainted(known, known), changed + b"abc") == read(RequestReader(), changed + b"abc")


@given(st.sampled_from(HEADS), st.data())
def test_a_known_head_may_come_in_pieces(head: bytes, data: Any) -> None:
    cut = data.draw(st.integers(1, len(head) - 1))
    reader = acquainted(head, head)
    assert read(reader, head[:cut]) == "more"
    assert read(reader, head[cut:]) == read(RequestReader(), head)


@pytest.mark.parametrize(
    "changed",
    [
        MOBEE.replace(b"Accept:", b"Authorization:"),
        MOBEE.replace(b"Accept:", b"Cookie:"),
        MOBEE.replace(b"Accept:", b"X-Anything:"),
        MOBEE.replace(b"Accept: */*", b"Upgrade: websocket\r\nConnection: upgrade"),
        MOBEE.replace(b"HTTP/1.1", b"HTTP/1.0"),
        MOBEE.replace(b"/v1/wallets", b"http://gate.test/v1/wallets"),
        MOBEE.replace(b"/v1/wallets", b"/v1/wallets?"),
        MOBEE.replace(b"bot", b"b" * LONGEST),
        ORDER.replace(b"Content-Length: 3", b"Transfer-Encoding: chunked"),
    ],
)
def test_what_may_hold_a_secret_or_is_not_usual_is_not_remembered(changed: bytes) -> None:
    reader = RequestReader()
    for _ in range(2):
        read(reader, changed % (b"1", b"x"))
        assert reader.shape is None


def test_a_few_shapes_of_a_connection_are_remembered_and_few_of_one_that_has_many() -> None:
    paths = [b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(SHAPES + 1)]
    reader = acquainted(*paths)
    for path in paths[1:]:
        read(reader, path)
        assert reader.shape is not None
    read(reader, paths[0])
    assert reader.shape is None
    for number in range(PATIENCE * 2):
        read(reader, b"GET /x%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
    read(reader, b"GET /x%d HTTP/1.1\r\nHost: a\r\n\r\n" % (PATIENCE * 2 - 1))
    assert reader.shape is None


def test_what_was_known_of_an_address_is_known_on_its_next_connection_and_to_nobody_else() -> None:
    first = RequestReader()
    first.come_from("192.0.2.1")
    read(first, HEADS[0])
    for peer, known in (("192.0.2.1", True), ("192.0.2.2", False)):
        reader = RequestReader()
        reader.come_from(peer)
        assert read(reader, HEADS[0]) == read(RequestReader(), HEADS[0])
        assert (reader.shape is not None) is known


@pytest.mark.parametrize("shape", [MOBEE, ASKED])
def test_values_of_another_length_are_known_and_found_at_once_the_next_time(shape: bytes) -> None:
    values = (b"since=1", b"1760000000", b"c2ln")[-shape.count(b"%b") :]
    longer = tuple(value + b"00" for value in values)
    reader = acquainted(shape % values, shape % values)
    for given_ in (longer, values, longer):
        assert read(reader, shape % given_) == read(RequestReader(), shape % given_)
        assert reader.shape is not None
        assert remembered(reader.shape) == [len(value) for value in given_]


def test_a_value_has_a_longest_length() -> None:
    reader = acquainted(HEADS[0], HEADS[0])
    assert reader.shape is not None
    for length, known in ((LONGEST - 1, True), (LONGEST, False)):
        assert reader.shape.recognizes(MOBEE % (b"1", b"x" * length)) is known


@pytest.mark.parametrize("stamp", [b"1 ", b"1\t", b""])
def test_no_shape_is_made_of_what_could_never_be_recognised(stamp: bytes) -> None:
    reader = RequestReader()
    head = MOBEE % (stamp, b"x")
    assert reader.read_head(head, LIMIT)
    assert shape_of(head, reader.line, reader.fields, reader.framing) is None


def test_a_shape_is_shared_by_all_connections() -> None:
    for head in HEADS:
        first, second = acquainted(head, head), acquainted(head, head)
        assert first.shape is second.shape is not None


def test_a_known_head_over_the_limit_is_refused() -> None:
    head = HEADS[0]
    reader = acquainted(head)
    with pytest.raises(Refusal):
        reader.read_head(head, len(head) - 1)


def test_a_connection_that_says_no_address_leaves_nothing_to_another() -> None:
    read(RequestReader(), HEADS[0])
    for peer in ("", "XXXX"):
        reader = RequestReader()
        reader.come_from(peer)
        read(reader, HEADS[0])
        assert reader.shape is None


def test_what_is_unusual_in_a_query_takes_the_long_way() -> None:
    head = b"GET /v1/orders?%b HTTP/1.1\r\nHost: a\r\n\r\n"
    reader = acquainted(head % b"a=1", head % b"a=2")
    assert reader.shape is not None
    for byte in range(0x21, 0x7F):
        usual = bytes([byte]).isalnum() or byte in b"-._~!$&'()*+,=:@%/"
        assert reader.shape.recognizes(head % b"a=%c" % byte) is usual, byte
