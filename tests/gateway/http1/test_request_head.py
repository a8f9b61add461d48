"""A request's head, cut into fields."""

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import MalformedRequest, MethodNotAllowed
from gateway.http1 import memo
from gateway.http1.request_head import METHODS, read_request_line, split_fields, with_target_authority
from tests.support.inside import PLAIN_FIELDS, REQUEST_LINES, SPECIAL_FIELDS


class Collector:
    """What llhttp itself makes of a head."""

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


NAMES = [b"X-A", b"x-b", b"Host", b"HOST", b"Connection", b"Signature", b"X-Request-Timestamp", b"Accept", b"", b"X A"]
LINES = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.sampled_from([b":", b": ", b":\t", b" :", b"::", b""]),
        st.one_of(st.sampled_from([b"1", b"a:b", b" a\t", b"close"]), st.binary(max_size=6)),
        st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\n "]),
    ),
    max_size=6,
)


@settings(max_examples=500, deadline=None)
@given(LINES)
def test_what_llhttp_accepts_is_cut_into_the_same_fields(parts: list[tuple[bytes, bytes, bytes, bytes]]) -> None:
    raw = b"GET / HTTP/1.1\r\n" + b"".join(b"".join(part) for part in parts) + b"\r\n"
    raw = raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    collector = Collector()
    try:
        httptools.HttpRequestParser(collector).feed_data(raw)
    except httptools.HttpParserError:
        return
    if not collector.complete:
        return
    for _ in range(2):  # the second time from memory
        assert split_fields(raw[:-4].split(b"\r\n"))[0] == collector.fields


def test_what_says_something_about_framing_is_told_apart_each_time() -> None:
    lines = [b"GET / HTTP/1.1", b"Accept: x", b"Host: a", b"content-length: 1", b"Transfer-Encoding: chunked", b"Host: a"]
    for _ in range(2):
        assert split_fields(lines)[1] == [(b"host", b"a"), (b"content-length", b"1"), (b"transfer-encoding", b"chunked"), (b"host", b"a")]


@pytest.mark.parametrize("name", [b"Authorization", b"COOKIE", b"X-Request-Signature", b"sIgNaTuRe", b"X-Auth-Token", b"User-Agent"])
def test_what_may_be_secret_or_changes_or_is_long_is_not_remembered(name: bytes) -> None:
    line = name + b": " + b"v" * (200 if name == b"User-Agent" else 5)
    assert split_fields([b"GET / HTTP/1.1", line])[0] == [(name.lower(), line.partition(b": ")[2])]
    assert line not in PLAIN_FIELDS


def test_a_request_line_with_a_query_is_not_remembered_where_signatures_stand() -> None:
    for line, kept in ((b"GET /a/1 HTTP/1.1", True), (b"GET /a/1?signature=s HTTP/1.1", False), (b"GET /a/1? HTTP/1.1", False)):
        REQUEST_LINES.clear()
        first = read_request_line(line)
        assert (line in REQUEST_LINES) is kept
        assert (read_request_line(line) is first) is kept


def test_memory_for_lines_is_bounded() -> None:
    for number in range(2 * memo.LINES):
        split_fields([b"GET / HTTP/1.1", b"User-Agent: %d" % number, b"Host: h%d" % number])
    assert len(PLAIN_FIELDS) <= memo.LINES
    assert len(SPECIAL_FIELDS) <= memo.LINES


def test_a_name_that_folds_onto_one_of_the_gates_is_refused_each_time() -> None:
    for _ in range(2):
        with pytest.raises(MalformedRequest, match="x_account_id"):
            split_fields([b"GET / HTTP/1.1", b"X_Account_Id: evil"])


@pytest.mark.parametrize(
    ("line", "cut"),
    [
        (b"GET /a?b=c?d HTTP/1.1", (b"GET", b"/a?b=c?d", b"/a", b"b=c?d", b"")),
        (b"GET /a? HTTP/1.1", (b"GET", b"/a?", b"/a", b"", b"")),
        (b"GET http://api.example/v1?x HTTP/1.1", (b"GET", b"/v1?x", b"/v1", b"x", b"api.example")),
        (b"GET HTTPS://API.example:8443/ HTTP/1.1", (b"GET", b"/", b"/", None, b"API.example:8443")),
        (b"GET http://[2001:db8::1]/a HTTP/1.1", (b"GET", b"/a", b"/a", None, b"[2001:db8::1]")),
        (b"GET http://a HTTP/1.1", (b"GET", b"/", b"/", None, b"a")),
        (b"GET http://a?b HTTP/1.1", (b"GET", b"/?b", b"/", b"b", b"a")),
        (b"GET http://a//b HTTP/1.1", (b"GET", b"//b", b"//b", None, b"a")),
        (b"OPTIONS http://a HTTP/1.1", (b"OPTIONS", b"*", b"*", None, b"a")),
        (b"OPTIONS * HTTP/1.1", (b"OPTIONS", b"*", b"*", None, b"")),
    ],
)
def test_every_form_of_target_comes_to_a_path(line: bytes, cut: tuple[bytes, bytes, bytes, bytes | None, bytes]) -> None:
    for _ in range(2):  # the second time from memory
        read = read_request_line(line)
        assert (read.method, read.target, read.path, read.query, read.authority) == cut


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"GET /a", "must be METHOD SP target SP"),
        (b"GET  /a HTTP/1.1", "must be METHOD SP target SP"),
        (b"GET /a HTTP/1.1 ", "must be METHOD SP target SP"),
        (b"GET /a HTTP/1.2", r"must be HTTP/1\.1 or HTTP/1\.0"),
        (b"GET /a HTTP/2.0", r"must be HTTP/1\.1 or HTTP/1\.0"),
        (b"GET /a http/1.1", r"must be HTTP/1\.1 or HTTP/1\.0"),
        (b"\x00GET /a HTTP/1.1", "must consist of letters"),
        (b"M-SEARCH /a HTTP/1.1", "must consist of letters"),
        (b"GET a HTTP/1.1", "must begin with /"),
        (b"GET * HTTP/1.1", "must begin with /"),
        (b"OPTIONS *a HTTP/1.1", "must begin with /"),
        (b"GET ftp://a/ HTTP/1.1", "must begin with /"),
        (b"GET xhttp://a/ HTTP/1.1", "must begin with /"),
        (b"GET http://a,b/ HTTP/1.1", "Host must be"),
        (b"GET http:///a HTTP/1.1", "Host must be"),
        (b"GET http://u@a/ HTTP/1.1", "Host must be"),
    ],
)
def test_what_is_no_request_line_ends_the_connection(line: bytes, why: str) -> None:
    for _ in range(2):
        with pytest.raises(MalformedRequest, match=why) as refusal:
            read_request_line(line)
        assert refusal.value.close


@pytest.mark.parametrize("method", [b"CONNECT", b"TRACE"])
def test_what_could_lead_elsewhere_or_repeat_a_request_is_told_what_may_be_asked(method: bytes) -> None:
    with pytest.raises(MethodNotAllowed, match=f"{method.decode()} is not supported") as refusal:
        read_request_line(method + b" /a HTTP/1.1")
    assert (refusal.value.close, refusal.value.headers) == (True, ((b"Allow", METHODS),))


def test_the_older_version_is_told_apart_in_every_form() -> None:
    for target in (b"/a", b"/a?b", b"http://h/a"):
        assert [read_request_line(b"GET " + target + b" HTTP/1." + minor).http10 for minor in (b"0", b"1")] == [True, False]


@pytest.mark.parametrize("name", [b"Host", b"X-Forwarded-For", b"X-Api-Key", b"X-Of-Somebody"])
@pytest.mark.parametrize("value", [b"::1", b"a:80", b"a: b: c", b":"])
def test_a_name_ends_at_the_first_colon(name: bytes, value: bytes) -> None:
    assert split_fields([b"", name + b": " + value])[0] == [(name.lower(), value)]


def test_of_white_space_only_blanks_and_tabs_stand_around_a_value() -> None:
    assert split_fields([b"", b"X-A: \t\x0bv w\x0c \t", b"X-B:"])[0] == [(b"x-a", b"\x0bv w\x0c"), (b"x-b", b"")]


def test_what_is_remembered_is_what_was_cut_and_no_longer_than_a_line_may_be() -> None:
    room = memo.LINE_BYTES
    for remembered, name in ((PLAIN_FIELDS, b"User-Agent"), (SPECIAL_FIELDS, b"Host")):
        line = name + b": " + b"a" * (room - len(name) - 2)
        assert split_fields([b"", line])[0][0] is split_fields([b"", line])[0][0] is remembered[line]
        assert remembered[line] == (name.lower(), line.partition(b": ")[2])
        split_fields([b"", line + b"a"])
        assert line + b"a" not in remembered
    line = b"GET /" + b"a" * (room - 14) + b" HTTP/1.1"
    assert read_request_line(line) is read_request_line(line)
    assert read_request_line(line.replace(b"/", b"/a", 1)) is not read_request_line(line.replace(b"/", b"/a", 1))


@pytest.mark.parametrize(
    ("fields", "http10", "asked"),
    [
        ([(b"a", b"1"), (b"host", b"b"), (b"c", b"2")], False, [(b"a", b"1"), (b"host", b"h"), (b"c", b"2")]),
        ([(b"a", b"1"), (b"host", b"b"), (b"c", b"2")], True, [(b"a", b"1"), (b"host", b"h"), (b"c", b"2")]),
        ([(b"host", b"b"), (b"host", b"")], False, [(b"host", b"h"), (b"host", b"h")]),
        ([(b"a", b"1")], True, [(b"a", b"1"), (b"host", b"h")]),
        ([(b"a", b"1")], False, [(b"a", b"1")]),  # refused as missing: the client must send it all the same
    ],
)
def test_the_authority_stands_where_host_stood(fields: list[tuple[bytes, bytes]], http10: bool, asked: list[tuple[bytes, bytes]]) -> None:
    assert with_target_authority(b"h", fields, http10=http10) == asked
    with pytest.raises(MalformedRequest, match="Host must be"):
        with_target_authority(b"h", [*fields, (b"host", b"a/b")], http10=http10)
