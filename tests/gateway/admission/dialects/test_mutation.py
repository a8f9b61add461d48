"""One changed byte of what a dialect signs, or of the credentials, is never admitted; and no bytes make the gate stumble."""

import json
import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admission.dialects import DIALECTS
from gateway.errors import Refusal
from gateway.http1.message import Request
from tests.support.signed import a_gate, record_of, request_of, vectors

EXAMPLES = 10_000 if "CI" in os.environ else 1_000
FILES = {name: vectors(name) for name in DIALECTS}
SIGNED_PARTS = {
    "mobee": ("method", "path", "body", "x-api-key", "x-request-timestamp", "x-request-signature"),
    "binance": ("query", "body", "x-mbx-apikey"),
    "rfc9421": ("method", "path", "query", "body", "signature-input", "signature", "content-digest"),
}
CASES = [
    (dialect, file["keys"][each["key"]], request_of(each))
    for dialect, file in FILES.items()
    for each in file["vectors"]
    if each["valid"] and "base_only" not in each
]
GATES = {key["key_id"]: a_gate(record_of(key)) for _, key, _ in CASES}


def parts_of(dialect: str, request: Request) -> list[str]:
    names = {"method", "path", "query", "body"} | {name.decode() for name, _ in request.headers}
    lengths = {name: len(part(request, name)) for name in names if name in SIGNED_PARTS[dialect]}
    return [name for name in SIGNED_PARTS[dialect] if lengths.get(name)]


def part(request: Request, name: str) -> bytes:
    if name in ("method", "path", "query", "body"):
        return getattr(request, name) or b""
    return b"".join(request.field_lines(name.encode()))


def changed(request: Request, name: str, position: int, byte: int) -> Request:
    """The request as it would arrive with one byte replaced."""
    old = part(request, name)
    new = old[:position] + bytes((byte,)) + old[position + 1 :]
    if name in ("method", "body"):
        return request.replace(**{name: new})
    if name not in ("path", "query"):
        return request.replace(headers=tuple((field, new if field == name.encode() else value) for field, value in request.headers))
    target = new + (b"?" + request.query if request.query is not None else b"") if name == "path" else request.path + b"?" + new
    path, mark, query = target.partition(b"?")
    return request.replace(target=target, path=path, query=query if mark else None)


def is_admitted(gate, request: Request) -> bool:
    try:
        gate.admit(request, gate.route(request))
    except Refusal:
        return False
    return True


def every_change(dialect: str, request: Request) -> Iterator[Request]:
    for name in parts_of(dialect, request):
        old = part(request, name)
        for position in range(len(old)):
            yield from (changed(request, name, position, byte) for byte in range(256) if byte != old[position])


@pytest.mark.parametrize(("dialect", "key", "request_"), CASES)
def test_the_request_itself_is_admitted(dialect, key, request_):
    assert is_admitted(GATES[key["key_id"]], request_)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_single_change_of_one_byte_is_refused(dialect):
    """All positions, all 255 other values, for the shortest request signed by HMAC with content."""
    candidates = [case for case in CASES if case[0] == dialect and case[1]["algorithm"] == "hmac-sha256" and case[2].body]
    _, key, request = min(candidates, key=lambda case: len(case[2].body))
    gate = GATES[key["key_id"]]
    assert [each for each in every_change(dialect, request) if is_admitted(gate, each)] == []


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.data())
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_changed_byte_is_never_admitted(dialect, data):
    _, key, request = data.draw(st.sampled_from([case for case in CASES if case[0] == dialect]))
    name = data.draw(st.sampled_from(parts_of(dialect, request)))
    old = part(request, name)
    position = data.draw(st.integers(0, len(old) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != old[position]))
    assert not is_admitted(GATES[key["key_id"]], changed(request, name, position, byte))


FIELDS = [*sorted(set().union(*(dialect.fields for dialect in DIALECTS.values()))), b"content-digest", b"content-type", b"host"]
SNIPPETS = (
    b'sig1=( "@method" "@path" "@query" "content-digest" );created=1790000000 ;keyid="a" sig1=:YQ==: sha-256=: : '
    b"&signature= signature= timestamp=1790000000000 &recvWindow= & = % %2B 1790000000 AAAA gbk_ \xff \r\n \0"
).split(b" ")
noise = st.lists(st.sampled_from(SNIPPETS) | st.binary(max_size=6), max_size=8).map(b"".join)


@settings(max_examples=1_000, deadline=None)
@given(
    headers=st.lists(st.tuples(st.sampled_from(FIELDS), noise), max_size=5).map(tuple),
    query=st.none() | noise,
    body=noise,
    method=st.sampled_from([b"GET", b"POST", b"DELETE"]),
)
def test_no_bytes_make_the_gate_fail_otherwise_than_by_a_refusal_that_can_be_told(headers, query, body, method):
    gate = GATES[CASES[0][1]["key_id"]]
    request = request_of(FILES["mobee"]["vectors"][0], method=method, headers=headers, query=query, body=body)
    with pytest.raises(Refusal) as refused:
        gate.admit(request, gate.route(request.replace(query=None)))
    assert refused.value.status < 500
    assert json.loads(gate.render(refused.value, request).body)
