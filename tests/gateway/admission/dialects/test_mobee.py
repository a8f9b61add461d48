"""The mobee dialect: what is read, and what cannot be."""

import pytest

from gateway.admission.dialects.mobee import KEY, SIGNATURE, TIMESTAMP, Mobee
from gateway.errors import MalformedRequest, MissingCredentials, UnsignedQuery
from tests.support.signed import a_gate, fields_of, request_of, vector, with_field

READ = request_of(vector("mobee", "read, hmac"))


def read(request):
    return Mobee().read(request, fields_of(Mobee(), request))


@pytest.mark.parametrize(("missing", "name"), [(KEY, "X-API-Key"), (SIGNATURE, "X-Request-Signature"), (TIMESTAMP, "X-Request-Timestamp")])
def test_a_missing_field_is_named(missing, name):
    request = READ.replace(headers=tuple(line for line in READ.headers if line[0] != missing))
    with pytest.raises(MissingCredentials, match=f"header field {name} is missing"):
        read(request)


@pytest.mark.parametrize(
    ("written", "milliseconds"),
    [
        (b"1", 1_000),
        (b"1790000000", 1_790_000_000_000),
        (b"99999999999", 99_999_999_999_000),
        (b"100000000000", 100_000_000_000),
        (b"1790000000123", 1_790_000_000_123),
        (b"999999999999999", 999_999_999_999_999),
    ],
)
def test_seconds_and_milliseconds_are_told_apart_by_size(written, milliseconds):
    assert read(with_field(READ, TIMESTAMP, written)).timestamp_ms == milliseconds


@pytest.mark.parametrize(
    "written",
    [b"", b"0", b"01790000000", b"-1", b"+1790000000", b"1790000000.5", b"1.79e9", b"1_790_000_000", b" 1790000000", b"0x6ab1", b"\xb2",
     b"now", b"1790000000000000", "١٧٩٠٠٠٠٠٠٠".encode()],
)  # fmt: skip
def test_a_time_that_is_not_written_in_digits_is_malformed(written):
    with pytest.raises(MalformedRequest, match="X-Request-Timestamp"):
        read(with_field(READ, TIMESTAMP, written))


@pytest.mark.parametrize(
    "written",
    [b"", b"====", b"AA=", b"AAA", b"AAAA AAAA", b"AAAA\n", b"_-8=", b"AB==", b"AAF=", b"AAAA=", b"AAAA====", b"\xff\xfe", b"A" * 43],
)
def test_a_signature_in_other_than_canonical_base64_is_nobodys(written):
    assert read(with_field(READ, SIGNATURE, written)).signature == b""


def test_an_empty_content_adds_no_line_and_any_other_adds_its_raw_bytes():
    assert read(READ).signed.count(b"\n") == 2
    assert read(READ.replace(body=b"\n\xff\0")).signed == read(READ).signed + b"\n\n\xff\0"


@pytest.mark.parametrize(("query", "covered"), [(None, True), (b"", False), (b"a=b", False)])
def test_the_query_is_known_not_to_be_covered(query, covered):
    assert read(READ.replace(query=query)).covers_query is covered


def test_a_trade_with_a_query_is_refused_even_an_empty_one():
    gate = a_gate()
    for target in (b"/v1/orders?", b"/v1/orders?a=b"):
        request = READ.replace(method=b"POST", target=target, path=b"/v1/orders", query=target[11:])
        route = gate.route(request)
        with pytest.raises(UnsignedQuery, match=r"does not sign the query.* end the target before the \?") as refused:
            gate.admit(request, route)
        assert refused.value.code == "unsigned_query"


def test_a_time_is_read_again_as_it_was_read_the_first_time():
    for written, milliseconds in ((b"1790000001", 1_790_000_001_000), (b"1790000002", 1_790_000_002_000)) * 2:
        assert read(with_field(READ, TIMESTAMP, written)).timestamp_ms == milliseconds


def test_the_dialect_has_its_name_and_owns_its_fields():
    assert (Mobee().name, Mobee().fields) == ("mobee", {KEY, SIGNATURE, TIMESTAMP})
