"""The binance dialect: what is read, what cannot be, and refusals with Binance's own numbers."""

import json
from contextlib import suppress

import pytest

from gateway import errors
from gateway.admission.dialects.binance import KEY, Binance
from gateway.errors import AmbiguousCredentials, MalformedRequest, MissingCredentials, Refusal
from gateway.http1.message import Request
from tests.support.signed import a_gate

HEX = b"ab" * 32
FORM = (b"content-type", b"application/x-www-form-urlencoded")


def sent(query=None, body=b"", *more):
    return Request(
        b"POST",
        b"/api/v3/order",
        b"/api/v3/order",
        query,
        ((KEY, b"the-key"), *more),
        body,
        "192.0.2.1",
        secure=False,
        received_ms=0,
        request_id="r",
    )


def read(request):
    return Binance().read(request, {KEY: b"the-key"})


@pytest.mark.parametrize(
    ("query", "body", "signed"),
    [
        (b"a=1&timestamp=1790000000000&signature=" + HEX, b"", b"a=1&timestamp=1790000000000"),
        (b"signature=" + HEX + b"&a=1&timestamp=1790000000000", b"", b"a=1&timestamp=1790000000000"),
        (b"a=1&signature=" + HEX + b"&timestamp=1790000000000", b"", b"a=1&timestamp=1790000000000"),
        (b"timestamp=1790000000000", b"b=2&signature=" + HEX, b"timestamp=1790000000000b=2"),
        (b"timestamp=1790000000000&signature=" + HEX, b"b=2", b"timestamp=1790000000000b=2"),
        (b"signature=" + HEX, b"timestamp=1790000000000&b=2", b"timestamp=1790000000000&b=2"),
        (None, b"timestamp=1790000000000&signature=" + HEX, b"timestamp=1790000000000"),
        (b"a=%20+&b=&timestamp=1790000000000&signature=" + HEX, b"", b"a=%20+&b=&timestamp=1790000000000"),
        (b"", b"a=1&timestamp=1790000000000&signature=" + HEX, b"a=1&timestamp=1790000000000"),
    ],
)
def test_what_is_signed_is_query_then_content_without_the_signature(query, body, signed):
    assert read(sent(query, body, FORM)).signed == signed
    assert read(sent(query, body)).signed == signed  # a form by default, as for Binance
    assert read(sent(query, body, (b"content-type", b"application/json"))).signed == signed  # as hummingbot sends it


def test_neither_method_nor_path_is_signed_and_answers_report_the_weight():
    credentials = read(sent(b"timestamp=1790000000000&signature=" + HEX))
    assert (credentials.key_id, credentials.portable, credentials.weighed, credentials.window_ms) == ("the-key", True, True, 0)


@pytest.mark.parametrize("query", [None, b"", b"listenKey=abc", b"timestamp=1790000000000&signature=" + HEX])
def test_the_key_is_known_by_the_head_alone_whatever_its_bytes(query):
    assert Binance().key_id(sent(query), {KEY: b"the-k\xe9y"}) == "the-k\xe9y"


@pytest.mark.parametrize("query", [b"a", b"a=b=c", b"&a=1", b"000"])
def test_a_query_that_cannot_be_read_is_refused_by_the_head_alone(query):
    with pytest.raises(MalformedRequest, match="in the query"):
        Binance().key_id(sent(query), {KEY: b"the-key"})


@pytest.mark.parametrize("in_query", [True, False])
def test_each_mistake_is_what_would_have_been_signed_with_the_signature_that_was_sent(in_query):
    query, body, mark = b"symbol=[BTC]&note=a+b%20c%e5%E5&b=1&a=2", b"timestamp=1790000000000&side=BUY", b"&signature=" + HEX
    parts = (query + mark, body) if in_query else (query, body + mark)
    request = sent(*parts, (b"host", b"api.example"))
    credentials, joined = read(request), query + body
    mistakes = list(Binance().mistakes(request, {KEY: b"the-key"}, credentials))
    assert {mistake.signature for mistake in mistakes if mistake.signed != joined} == {credentials.signature} == {b"\xab" * 32}
    assert [(mistake.advice.partition(":")[0], mistake.signed) for mistake in mistakes] == [
        ("wrong signature encoding for this key", joined),
        ("query and body were joined with & before signing", query + b"&" + body),
        ("the body was not signed", query),
        ("the query was not signed", body),
        ("the question mark was signed", b"?" + joined),
        ("the parameters were sent in a different order than they were signed in", b"&".join(sorted(joined.split(b"&")))),
        ("the parameters were signed before percent-encoding", b"symbol=[BTC]&note=a+b c\xe5\xe5&b=1&a=2" + body),
        ("brackets were signed as %5B and %5D and sent as [ and ]", joined.replace(b"[BTC]", b"%5BBTC%5D")),
        ("a space was signed as %20 and sent as +", joined.replace(b"+", b"%20")),
        ("a space was signed as + and sent as %20", joined.replace(b"%20", b"+")),
        ("letters of a percent-encoding were signed in upper case and sent in lower (%E5, %e5)", joined.replace(b"%e5", b"%E5")),
        ("letters of a percent-encoding were signed in lower case and sent in upper (%e5, %E5)", joined.replace(b"%E5", b"%e5")),
        *(
            ("the entire URL was signed", before + b"/api/v3/order?" + joined)
            for before in (b"", b"https://api.example", b"http://api.example")
        ),
    ]
    assert [mistake.advice.partition(": ")[2] for mistake in mistakes[7:12]] == [
        "percent-encode once, and sign the very text that is sent"
    ] * 5


@pytest.mark.parametrize(
    ("parameters", "signed"),
    [
        (b"a=1&timestamp=1790000000000&signature=" + HEX + b"&b=2", [b"a=1&timestamp=1790000000000"]),
        (b"a=1&timestamp=1790000000000&signature=" + HEX, []),
    ],
)
@pytest.mark.parametrize("in_query", [True, False])
def test_what_stands_behind_the_signature_may_not_have_been_signed(parameters, signed, in_query):
    request = sent(parameters) if in_query else sent(None, parameters)
    mistakes = Binance().mistakes(request, {KEY: b"the-key"}, read(request))
    assert [mistake.signed for mistake in mistakes if mistake.advice.endswith("put signature last")] == signed


@pytest.mark.parametrize(
    "part",
    [b"", b"000", b"=", b"=1", b"a", b"1a=1", b"a-b=1", b"a_b=1", b"a%62=1", b" a=1", b"a=1=2", b"a=b=", b"[a]=1", b"a\n=1", b'{"a":1}',
     b"timestamp==", b"\xe9=1", "\u0661a=1".encode()],
)  # fmt: skip
def test_whatever_is_no_parameter_is_refused_in_both_places(part):
    good = b"timestamp=1790000000000&signature=" + HEX
    for parts in ([part, good], [good, part], [b"a=1", part, good]):
        joined = b"&".join(parts)
        with pytest.raises(MalformedRequest, match="name=value"):
            read(sent(joined))
        for more in ((), (FORM,), ((b"content-type", b"application/json"),)):
            with pytest.raises(MalformedRequest, match="name=value"):
                read(sent(None, joined, *more))
    if part:
        with pytest.raises(MalformedRequest, match="name=value"):
            read(sent(good, part, (b"content-type", b"application/json")))


@pytest.mark.parametrize("order", [
    b"symbol=LTCBTC&side=BUY&type=LIMIT&quantity=0.5&price=95000&recvWindow=60000&timestamp=1790000000000",
    b"timestamp=1790000000000&symbol=LTCBTC&side=BUY",
    b"symbol=LTCBTC&price=95000&timestamp=1790000000000&newClientOrderId=abc%3D1",
])  # fmt: skip
@pytest.mark.parametrize("kind", [(), (FORM,), ((b"content-type", b"application/json"),)])
def test_what_was_signed_in_one_place_is_read_in_one_place_only(order, kind):
    """The boundary at every byte, and the signature at either end of either place."""
    mark = b"signature=" + HEX
    for cut in range(1, len(order)):
        query, body = order[:cut], order[cut:]
        for one, other in (
            (query + b"&" + mark, body),
            (mark + b"&" + query, body),
            (query, body + b"&" + mark),
            (query, mark + b"&" + body),
        ):
            with suppress(Refusal):
                assert read(sent(one, other, *kind)).signed != order


def test_a_key_alone_is_told_what_is_missing():
    with pytest.raises(MissingCredentials, match="X-MBX-APIKEY alone does not authenticate"):
        read(sent(None))
    with pytest.raises(MissingCredentials, match="listen keys"):
        read(sent(b"listenKey=abc"))


@pytest.mark.parametrize(
    ("query", "more", "told"),
    [
        (None, (), True),
        (b"listenKey=abc", (), True),
        (b"", ((b"content-length", b"0"),), True),
        (b"timestamp=1790000000000&signature=" + HEX, (), False),
        (None, ((b"content-length", b"90"), FORM), False),
    ],
)
def test_a_key_alone_is_told_so_where_there_is_no_route_either(query, more, told):
    """As nautilus_trader and older programs begin: with a listen key."""
    gate = a_gate(routes=[{"match": "GET /api/v3/account", "scope": "read", "upstream": "spot"}])
    request = sent(query, b"", *more).replace(path=b"/api/v3/userDataStream", target=b"/api/v3/userDataStream")
    with pytest.raises(errors.NoRoute) as refused:
        gate.route(request)
    answer = json.loads(gate.render(refused.value, request).body)
    assert answer["code"] == -1020
    assert ("X-MBX-APIKEY alone does not authenticate" in answer["msg"]) is told
    stranger = request.replace(headers=())
    assert "X-MBX-APIKEY" not in json.loads(gate.render(refused.value, stranger).body)["msg"]


@pytest.mark.parametrize(
    ("query", "body"),
    [
        (b"timestamp=1790000000000&signature=" + HEX + b"&signature=" + HEX, b""),
        (b"timestamp=1790000000000&signature=" + HEX, b"signature=" + HEX),
        (b"timestamp=1790000000000&timestamp=1790000000000&signature=" + HEX, b""),
        (b"timestamp=1790000000000&signature=" + HEX, b"recvWindow=1&recvWindow=2"),
    ],
)
def test_a_parameter_that_the_gate_reads_may_stand_once(query, body):
    with pytest.raises(AmbiguousCredentials, match="repeated"):
        read(sent(query, body, FORM))


@pytest.mark.parametrize(
    ("query", "missing"),
    [(b"timestamp=1790000000000", "signature"), (b"signature=" + HEX, "timestamp"), (b"xsignature=1&timestamp=1790000000000", "signature"),
     (b"recvWindow=1", "signature"), (b"Timestamp=1&signature=" + HEX, "timestamp")],
)  # fmt: skip
def test_a_missing_parameter_is_named(query, missing):
    with pytest.raises(MissingCredentials, match=f"the parameter {missing} is missing"):
        read(sent(query))


@pytest.mark.parametrize(
    ("written", "milliseconds"),
    [(b"1790000000123", 1_790_000_000_123), (b"1790000000123456", 1_790_000_000_123), (b"100000000000", 100_000_000_000)],
)
def test_microseconds_are_told_apart_by_size(written, milliseconds):
    assert read(sent(b"timestamp=" + written + b"&signature=" + HEX)).timestamp_ms == milliseconds


@pytest.mark.parametrize("written", [b"", b"0", b"1790000000", b"-1", b"1790000000123.5", b"%31790000000123", b"0x1", b"1" * 19, b"\xb2"])
def test_any_other_time_is_malformed(written):
    with pytest.raises(MalformedRequest, match="timestamp"):
        read(sent(b"timestamp=" + written + b"&signature=" + HEX))


@pytest.mark.parametrize(("written", "window_ms"), [(b"1", 1), (b"5000", 5_000), (b"60000", 60_000), (b"6000.346", 6_000)])
def test_the_window_is_read(written, window_ms):
    assert read(sent(b"recvWindow=" + written + b"&timestamp=1790000000000&signature=" + HEX)).window_ms == window_ms


@pytest.mark.parametrize("written", [b"", b"0", b"-1", b"1e4", b"5000.", b"5000.1234", b"05000", b"999999999"])
def test_any_other_window_is_malformed(written):
    with pytest.raises(MalformedRequest, match="recvWindow"):
        read(sent(b"recvWindow=" + written + b"&timestamp=1790000000000&signature=" + HEX))


def test_a_window_above_the_configured_one_is_refused_by_the_gate():
    gate = a_gate()
    request = sent(b"recvWindow=60001&timestamp=1790000000000&signature=" + HEX).replace(received_ms=1_790_000_000_000)
    route = gate.route(request)
    with pytest.raises(MalformedRequest, match="maximum of 60000 ms"):
        gate.admit(request, route)


@pytest.mark.parametrize(
    ("written", "decoded"),
    [
        (b"ab" * 32, b"\xab" * 32),
        (b"AB" * 32, b"\xab" * 32),
        (b"ab" * 31, b""),
        (b"A" * 86 + b"%3D%3D", bytes(64)),
        (b"A" * 86 + b"%3d%3d", bytes(64)),
        (b"A" * 86 + b"==", bytes(64)),
        (b"A" * 86 + b"%3D%3d", b""),
        (b"A" * 86, b""),
        (b"A" * 85 + b"B%3D%3D", b""),
        (b"A" * 86 + b"%3D%3", b""),
        (b"A" * 43 + b"%3D", b""),  # an HMAC's digest is sent in hex
        (b"", b""),
    ],
)
def test_a_signature_has_one_spelling_for_each_kind_of_key(written, decoded):
    assert read(sent(b"timestamp=1790000000000&signature=" + written)).signature == decoded


@pytest.mark.parametrize("written", [b"aB" * 32, b"ab" * 64])
def test_hex_in_mixed_case_or_of_another_length_has_no_keys_length(written):
    assert len(read(sent(b"timestamp=1790000000000&signature=" + written)).signature) not in (32, 64, 256, 384, 512)


CODES = {
    -1001: "upstream_unreachable upstream_unavailable key_store_unavailable replay_guard_unavailable internal_error request_timeout "
           "expectation_failed overloaded maintenance",
    -1002: "key_expired ip_not_allowed scope_not_granted account_frozen",
    -1003: "rate_limited",
    -1007: "upstream_timeout",
    -1020: "no_route method_not_allowed",
    -1021: "timestamp_out_of_window",
    -1022: "invalid_credentials",
    -1100: "ambiguous_path body_too_large headers_too_large",
    -1101: "ambiguous_credentials",
    -1102: "malformed_request",
    -1104: "unsigned_query",
    -2010: "replayed_request",
    -2014: "missing_credentials",
}  # fmt: skip
REFUSALS = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, Refusal) and cls is not Refusal]


@pytest.mark.parametrize("cls", REFUSALS, ids=lambda cls: cls.code)
def test_each_refusal_has_a_number_of_binance_and_carries_the_problem(cls):
    answer = a_gate().render(cls("what to do", extras={"more": 1}), sent(b"signature=" + HEX))
    body = json.loads(answer.body)
    assert answer.status == cls.status
    assert cls.code in CODES[body["code"]].split()
    assert isinstance(body["msg"], str)
    assert (body["gerbang"]["code"], body["gerbang"]["detail"], body["gerbang"]["more"]) == (cls.code, "what to do", 1)


@pytest.mark.parametrize(
    ("missing", "code"), [({}, -2014), ({"missing": "apiKey"}, -2014), ({"missing": "timestamp"}, -1102), ({"missing": "signature"}, -1102)]
)
def test_without_a_key_clients_are_told_so_and_not_that_a_parameter_is_missing(missing, code):
    answer = a_gate().render(MissingCredentials("what to do", extras=missing), sent())
    assert json.loads(answer.body)["code"] == code


@pytest.mark.parametrize("cls", [errors.UpstreamUnreachable, errors.UpstreamTimeout])
def test_a_trade_whose_outcome_is_unknown_has_the_number_for_it_whatever_failed(cls):
    body = json.loads(a_gate().render(cls("look it up", extras={"outcome": "unknown"}), sent()).body)
    assert body["code"] == -1007
    assert "execution status unknown" in body["msg"]


@pytest.mark.parametrize(
    ("skew_ms", "phrase"),
    [
        (2_000, "Timestamp for this request was 1000ms ahead of the server's time."),
        (-6_000, "Timestamp for this request is outside of the recvWindow."),
    ],
)
def test_clients_that_match_phrases_find_them(skew_ms, phrase):
    answer = a_gate().render(errors.TimestampOutOfWindow("d", extras={"skew_ms": skew_ms}), sent())
    assert json.loads(answer.body)["msg"] == f"{phrase} D"


@pytest.mark.parametrize("cls", REFUSALS, ids=lambda cls: cls.code)
def test_the_reason_stands_in_what_clients_show(cls):
    message = json.loads(a_gate().render(cls("how to help yourself"), sent(b"signature=" + HEX)).body)["msg"]
    assert message.lower().endswith("how to help yourself")
