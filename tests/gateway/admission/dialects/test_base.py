"""What all dialects share: the ways to write a signature, the string to sign as it is shown, and what a client may have signed instead."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission.dialects.base import (
    HEX,
    SHOWN,
    Credentials,
    decoded_base64,
    decoded_hex,
    detail_beside,
    invalid,
    loosely_decoded,
    rewritten,
    shown,
    urls,
)
from gateway.admission.dialects.mobee import KEY, SIGNATURE, TIMESTAMP, Mobee
from tests.support.signed import request_of, vector

DIGEST = bytes(range(32))
READ = request_of(vector("mobee", "read, hmac"))
KEY_ID = b"".join(READ.field_lines(KEY))


def test_credentials_claim_nothing_that_they_were_not_given():
    bare = Credentials("gbk_", b"s", b"signed", 1)
    assert (bare.key_id, bare.signature, bare.signed, bare.timestamp_ms) == ("gbk_", b"s", b"signed", 1)
    assert (bare.window_ms, bare.expires_ms, bare.algorithm, bare.replay_advice) == (0, 0, "", "")
    assert (bare.covers_query, bare.unique, bare.pss, bare.weighed, bare.portable) == (True, True, False, False, False)
    full = Credentials(
        "gbk_", b"s", b"signed", 1, window_ms=2, expires_ms=3, algorithm="ed25519", covers_query=False, unique=False, pss=True,
        replay_advice="advice", weighed=True, portable=True,
    )  # fmt: skip
    assert (full.window_ms, full.expires_ms, full.algorithm, full.replay_advice) == (2, 3, "ed25519", "advice")
    assert (full.covers_query, full.unique, full.pss, full.weighed, full.portable) == (False, False, True, True, True)


@given(st.binary(max_size=80))
def test_each_value_has_one_encoding_in_base64(raw):
    encoded = base64.b64encode(raw)
    assert decoded_base64(encoded) == raw
    for other in (encoded + b"\n", encoded + b"=", encoded[:-1], b" " + encoded):
        if other:
            assert decoded_base64(other) == b""


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        (DIGEST.hex().encode(), DIGEST),
        (DIGEST.hex().upper().encode(), DIGEST),
        (DIGEST.hex().encode()[:32] + DIGEST.hex().upper().encode()[32:], b""),
        (DIGEST.hex().encode()[:-2], b""),
        (DIGEST.hex().encode() + b"00", b""),
        (b"", b""),
    ],
)
def test_a_digest_in_hex_is_in_one_case(text, decoded):
    assert decoded_hex(text) == decoded


@given(st.binary(min_size=5, max_size=40))
def test_hex_and_the_base64_of_hex_are_both_tried(raw):
    written = raw.hex().encode()
    assert list(loosely_decoded(written)) == [raw]
    encoded = base64.b64encode(written)
    for text in (encoded, encoded.rstrip(b"=")):
        if not HEX.fullmatch(text):
            assert list(loosely_decoded(text)) == [written, raw]


@pytest.mark.parametrize(
    ("written", "tried"),
    [
        (b"-_8=", [b"\xfb\xff"]),
        (b"-_8", [b"\xfb\xff"]),
        (b"_w", [b"\xff"]),
        (b"abc", [b"i\xb7"]),  # of odd length, so no hex
        (b"YWJj", [b"abc"]),  # Base64 of three digits: no hex either
        (b"X", []),
        (b"a b=", []),
        (b"", []),
    ],
)
def test_other_ways_to_write_a_signature_by_example(written, tried):
    assert list(loosely_decoded(written)) == tried


def test_the_string_to_sign_is_shown_as_received_and_cut_off():
    assert shown(b"GET\n/\xff\xc3\xa9") == "GET\n/\\xffé"
    assert shown(b"x" * (SHOWN + 1)) == "x" * SHOWN
    refusal = invalid("it does not match", b"GET\n/", reason="of another key")
    assert (refusal.detail, refusal.reason, refusal.extras) == ("it does not match", "of another key", {"string_to_sign": "GET\n/"})


def test_beside_a_problem_its_members_are_named_as_they_are_found_there():
    problem = {"detail": "compare string_to_sign (2 of per_key), not my_string_to_sign", "limit": 2, "string_to_sign": "GET"}
    assert detail_beside(problem) == "compare gerbang.string_to_sign (2 of per_key), not my_string_to_sign"


def test_a_url_is_the_scheme_the_first_host_and_the_path():
    request = READ.replace(headers=((b"host", b"a.example"), (b"host", b"b.example")))
    assert list(urls(request, b"/v1?a")) == [b"https://a.example/v1?a", b"http://a.example/v1?a"]
    assert list(urls(request.replace(headers=()), b"/v1")) == [b"https:///v1", b"http:///v1"]


def test_json_is_written_anew_as_other_serialisers_write_it():
    assert list(rewritten('{"a": "é","b":[1,2]}'.encode())) == [
        b'{"a": "\\u00e9", "b": [1, 2]}',
        '{"a": "é", "b": [1, 2]}'.encode(),
        b'{"a":"\\u00e9","b":[1,2]}',
        '{"a":"é","b":[1,2]}'.encode(),
    ]
    for body in (b"", b"{", b"\xff", b"[" * 100_000):
        assert list(rewritten(body)) == []


def test_a_request_could_be_of_each_key_id_in_its_fields():
    assert Mobee().named({KEY: KEY_ID, SIGNATURE: b"\xff", TIMESTAMP: b"1"}) == [KEY_ID.decode()]
    assert Mobee().named({SIGNATURE: KEY_ID, KEY: KEY_ID[:-1]}) == [KEY_ID.decode()]
    assert Mobee().signs_uri is False


def test_no_dialect_says_anything_of_a_missing_route_by_itself():
    assert Mobee().unrouted(READ) == ""
    assert json.dumps(Mobee().refusal({})) == "null"
