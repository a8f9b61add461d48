"""Both session dialects: what a message asks, whose it is, and how a refusal reads."""

import json
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admission.answers import compact
from gateway.admission.sessions import CALL, LOG_IN, LOG_OUT, SESSIONS, STATUS, SessionDialect, Shape
from gateway.admission.sessions.base import Spelling
from gateway.admission.sessions.binance import BinanceSession
from gateway.admission.sessions.json_text import Value
from gateway.admission.sessions.mobee import MobeeSession
from gateway.errors import MalformedRequest, MissingCredentials, Refusal
from gateway.http1.message import Request

HANDSHAKE = Request(b"GET", b"/ws", b"/ws", None, (), b"", "192.0.2.1", False, 0, "request-1")
PROBLEM = {"type": "urn:x", "title": "X", "status": 403, "code": "scope_not_granted", "detail": "why – not", "request_id": "r"}


MADE: dict[str, Callable[[], SessionDialect]] = {"mobee": MobeeSession, "binance": BinanceSession}


def read(dialect: str, text: str, key_id: str = "", shapes: list[Shape] | None = None):
    return MADE[dialect]().read(text.encode(), HANDSHAKE, key_id, 7, "request-1", shapes)


@pytest.mark.parametrize(
    ("dialect", "log_in", "log_out", "state", "advice"),
    [
        ("mobee", "login", "logout", "", "log in with an API key first (login)"),
        (
            "binance",
            "session.logon",
            "session.logout",
            "session.status",
            "log in with an API key first (session.logon), or sign the message",
        ),
    ],
)
def test_what_a_dialect_calls_itself_and_its_methods(dialect, log_in, log_out, state, advice):
    for one in (SESSIONS[dialect], MADE[dialect]()):
        assert (one.name, one.log_in, one.log_out, one.state, one.log_in_first) == (dialect, log_in, log_out, state, advice)


@pytest.mark.parametrize("dialect", SESSIONS)
def test_a_message_knows_where_it_came_from_scanned_or_recognised(dialect):
    shapes: list[Shape] = []
    text = '{"id":1,"method":"time","params":{"a":"b"}}'
    for message in (read(dialect, text, "gbk_x", shapes), read(dialect, text, "gbk_x", shapes)):
        assert (message.text, message.client, message.peer, message.key_id) == (text.encode(), HANDSHAKE, "192.0.2.1", "gbk_x")
        assert (message.received_ms, message.request_id) == (7, "request-1")
        assert (type(message.dialect), message.wrong) == (type(SESSIONS[dialect]), "")
    assert bool(message.shape) is (dialect == "binance")


def test_a_message_of_which_nothing_is_left_is_forwarded_with_the_gates_member_alone():
    assert read("mobee", '{"api":1}').forwarded(b'"gateway":{}') == b'{"gateway":{}}'
    assert read("mobee", '{"api":1,"method":"x"}').forwarded(b'"gateway":{}') == b'{"gateway":{},"method":"x"}'


def test_the_gates_own_messages_are_written_in_as_few_bytes_as_it_takes():
    assert compact({"a": ["é–", 1], "b": {"c": None}}) == '{"a":["é–",1],"b":{"c":null}}'.encode()
    assert compact({"a": "\ud800"}) == rb'{"a":"\ud800"}'


@pytest.mark.parametrize(
    ("dialect", "text", "act", "names", "rest"),
    [
        ("mobee", '{"method":"logout"}', LOG_OUT, ["logout"], '"method":"logout"'),
        ("mobee", '{"method":"ping","api":1,"hmac":2,"x":[1, 2]}', CALL, ["ping"], '"method":"ping","x":[1, 2]'),
        ("mobee", '{"method":"subscribe","events":["MK","OB.BTC-IDR","PO.ALL.x"]}', CALL, ["subscribe MK", "subscribe OB", "subscribe PO"],
         '"method":"subscribe","events":["MK","OB.BTC-IDR","PO.ALL.x"]'),
        ("mobee", r'{"events":["\u0042L"],"method":"unsubscribe"}', CALL, ["unsubscribe BL"],
         r'"events":["\u0042L"],"method":"unsubscribe"'),
        ("binance", '{"id":1,"method":"time"}', CALL, ["time"], '"id":1,"method":"time"'),
        ("binance", '{"id":1,"method":"v3/time","params":{}}', CALL, ["time"], '"id":1,"method":"v3/time","params":{}'),
        ("binance", '{"id":1,"method":"session.logon"}', LOG_IN, ["session.logon"], '"id":1,"method":"session.logon"'),
        ("binance", '{"id":1,"method":"v3/session.status"}', STATUS, ["session.status"], '"id":1,"method":"v3/session.status"'),
        ("binance", '{"id":1,"method":"session.logout"}', LOG_OUT, ["session.logout"], '"id":1,"method":"session.logout"'),
        ("binance", '{"method":"x","params":{"apiKey":"k"},"id":2}', CALL, ["x"], '"method":"x","params":{},"id":2'),
        ("binance", '{"method":"x","params":[1]}', CALL, ["x"], '"method":"x","params":[1]'),
        ("binance", '{"method":"x","apiKey":"at the top"}', CALL, ["x"], '"method":"x","apiKey":"at the top"'),
    ],
)  # fmt: skip
def test_what_a_message_asks(dialect, text, act, names, rest):
    message = read(dialect, text)
    assert (message.wrong, message.act, message.names, message.rest.decode()) == ("", act, names, rest)


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        ("mobee", "{}"),
        ("mobee", '{"method":1}'),
        ("mobee", '{"method":""}'),
        ("mobee", '{"method":"subscribe MK","events":["BL"]}'),
        ("mobee", '{"method":"subscribe ","events":["MK"]}'),
        ("mobee", '{"method":"subscribe"}'),
        ("mobee", '{"method":"subscribe","events":[]}'),
        ("mobee", '{"method":"subscribe","events":"MK"}'),
        ("mobee", '{"method":"subscribe","events":["MK",1]}'),
        ("mobee", '{"method":"subscribe","events":["MK",""]}'),
        ("mobee", json.dumps({"method": "subscribe", "events": ["MK"] * 257})),
        ("mobee", '{"method":"ping","gateway":{}}'),
        ("mobee", r'{"method":"ping","g\u0061teway":{}}'),
        ("binance", "{}"),
        ("binance", '{"id":1}'),
        ("binance", '{"id":1,"method":["time"]}'),
        ("binance", '{"id":1,"method":"time","gateway":null}'),
        ("binance", '{"Gateway":1,"id":1,"method":"time"}'),
        ("binance", '{"GATEWAY":1,"id":1,"method":"time"}'),
        ("binance", '{"id":1,"method":"account.status","METHOD":"order.place"}'),
        ("binance", '{"id":1,"method":"time","Params":{"symbol":"x"}}'),
        ("binance", '{"Id":1,"method":"time"}'),
        ("binance", '{"id":1,"method":"x","params":{"APIKEY":"k"}}'),
        ("binance", '{"id":1,"method":"x","params":{"Signature":"k"}}'),
        ("binance", '{"id":1,"method":"x","params":{"\u017fignature":"k"}}'),
        ("binance", '{"id":1,"method":"x","params":{"t\u0131mestamp":1}}'),
        ("binance", '{"id":1,"method":"x","params":{"time\u017ftamp":1}}'),
        ("binance", '{"id":1,"method":"x","params":{"api\u212aey":1}}'),
        ("mobee", '{"method":"subscribe","events":["MK"],"Events":["BL"]}'),
        ("mobee", '{"method":"ping","Method":"order"}'),
        ("mobee", '{"method":"login","API":{},"api":{"public_key":"k","timestamp":1},"hmac":"y"}'),
        ("mobee", '{"method":"login","api":{"public_key":"k","PUBLIC_KEY":"l","timestamp":1},"hmac":"y"}'),
    ],
)
def test_what_is_no_message_of_the_dialect_says_so(dialect, text):
    assert read(dialect, text).wrong


SOME = Value(-1, 0, 0)
"""The value of a member of which the name alone counts."""


@pytest.mark.parametrize("name", ["METHOD", "Method", "method\u0307", "m\u00c9thod", "methods"])
def test_names_are_folded_as_readers_without_regard_to_case_do(name):
    likely = name.lower().replace("\u0307", "") == "method"
    assert bool(Spelling(b"method").mistake(dict.fromkeys([name.encode()], SOME))) is likely


@pytest.mark.parametrize("dialect", SESSIONS)
@pytest.mark.parametrize("text", ["[]", '{"method":"x","method":"y"}', '{"method":"x"} y', '{"method":NaN}'])
def test_what_is_ambiguous_is_not_read_at_all(dialect, text):
    with pytest.raises(MalformedRequest):
        read(dialect, text)


def test_a_message_without_credentials_speaks_for_the_session():
    for text in ('{"method":"subscribe","events":["BL"]}', '{"method":"logout"}'):
        assert SESSIONS["mobee"].credentials(read("mobee", text), 60_000) is None
    for text in ('{"method":"order.place"}', '{"method":"x","params":{"timestamp":1}}', '{"method":"x","params":[]}'):
        assert SESSIONS["binance"].credentials(read("binance", text), 60_000) is None
    own = read("binance", '{"method":"x","params":{"apiKey":"gbk_mine"}}', key_id="gbk_mine")
    assert SESSIONS["binance"].credentials(own, 60_000) is None


@pytest.mark.parametrize(
    ("dialect", "text", "missing"),
    [
        ("mobee", '{"method":"login"}', "api"),
        ("mobee", '{"method":"login","token":"x"}', "api"),
        ("mobee", '{"method":"login","api":"x","hmac":"y"}', "api"),
        ("mobee", '{"method":"login","api":{"public_key":"k"},"hmac":"y"}', "timestamp"),
        ("mobee", '{"method":"login","api":{"public_key":"k","timestamp":1}}', "hmac"),
        ("binance", '{"method":"session.logon"}', "apiKey"),
        ("binance", '{"method":"session.logon","params":{"timestamp":1}}', "apiKey"),
        ("binance", '{"method":"x","params":{"apiKey":"k"}}', "signature"),
        ("binance", '{"method":"x","params":{"signature":"s"}}', "apiKey"),
        ("binance", '{"method":"x","params":{"signature":"s","apiKey":"k"}}', "timestamp"),
    ],
)
def test_incomplete_credentials_say_what_is_missing(dialect, text, missing):
    with pytest.raises(MissingCredentials, match=missing) as refused:
        SESSIONS[dialect].credentials(read(dialect, text, key_id="gbk_other"), 60_000)
    assert refused.value.extras == ({"missing": missing} if dialect == "binance" else {})


def test_a_time_that_is_none_is_named_as_it_stands_in_the_message():
    with pytest.raises(MalformedRequest, match=r"^api\.timestamp must be"):
        SESSIONS["mobee"].credentials(read("mobee", '{"method":"login","api":{"public_key":"k","timestamp":-1},"hmac":"y"}'), 60_000)


@pytest.mark.parametrize("params", [{"a&b": 1}, {"a=b": 1}, {"a": "1&b=2"}, {"a": ["&"]}])
def test_what_could_be_signed_for_other_params_is_refused(params):
    text = json.dumps({"method": "x", "params": {"apiKey": "k", "signature": "s", "timestamp": 1_790_000_000_000, **params}})
    with pytest.raises(MalformedRequest, match="ambiguous"):
        SESSIONS["binance"].credentials(read("binance", text), 60_000)


@pytest.mark.parametrize(
    ("time", "advised"), [("1790000000", True), ('"1790000000"', True), ("1790000000000", False), ("179000000000", False)]
)
def test_two_log_ins_in_one_second_are_told_what_makes_them_differ(time, advised):
    text = f'{{"method":"login","api":{{"public_key":"k","timestamp":{time}}},"hmac":"y"}}'
    advice = SESSIONS["mobee"].credentials(read("mobee", text), 60_000).replay_advice
    assert "send api.timestamp in milliseconds" in advice if advised else advice == ""


def test_a_log_in_is_never_granted_more_than_the_configuration_allows():
    text = '{"method":"login","api":{"public_key":"k","timestamp":1790000000},"hmac":"y"}'
    assert SESSIONS["mobee"].credentials(read("mobee", text), 60_000).window_ms == 45_000
    assert SESSIONS["mobee"].credentials(read("mobee", text), 10_000).window_ms == 10_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"method":"login"}', {"method": "login", "status": "error", "message": "why – not"}),
        ('{"method":"subscribe","events":["BL","PO.ALL"]}', {
            "method": "subscribe",
            "events": [{"event": name, "status": "error", "message": "why – not"} for name in ("BL", "PO.ALL")],
            "status": "error",
            "message": "why – not",
        }),
        ('{"method":7}', {"method": None, "status": "error", "message": "why – not"}),
    ],
)  # fmt: skip
def test_a_refusal_in_the_dialect_mobee(text, expected):
    assert json.loads(SESSIONS["mobee"].refusal(PROBLEM, read("mobee", text))) == {**expected, "gerbang": PROBLEM}


@pytest.mark.parametrize("own_id", ['"a€"', "17", "null", "1.50", r'"\u0041"'])
def test_a_refusal_in_the_dialect_binance_repeats_the_id_as_it_came(own_id):
    refusal = SESSIONS["binance"].refusal(PROBLEM, read("binance", f'{{"method":"x","id":{own_id}}}'))
    assert refusal.startswith(b'{"id":%b,' % own_id.encode())
    told = json.loads(refusal)
    assert (told["status"], told["error"]["code"], told["gerbang"]) == (403, -1002, PROBLEM)


@pytest.mark.parametrize(
    "text", ['{"method":"x"}', '{"method":"x","id":{}}', '{"method":"x","id":[1]}', '{"method":"x","id":"%s"}' % ("x" * 300)]
)
def test_an_id_that_is_none_is_not_repeated(text):
    assert json.loads(SESSIONS["binance"].refusal(PROBLEM, read("binance", text)))["id"] is None


@pytest.mark.parametrize(("length", "repeated"), [(254, True), (255, False)])
def test_a_method_that_is_too_long_is_not_repeated(length, repeated):
    told = json.loads(SESSIONS["mobee"].refusal(PROBLEM, read("mobee", f'{{"method":"{"x" * length}"}}')))
    assert told["method"] == ("x" * length if repeated else None)


@pytest.mark.parametrize("dialect", SESSIONS)
def test_a_refusal_of_what_could_not_be_read(dialect):
    told = json.loads(SESSIONS[dialect].refusal(PROBLEM, None))
    assert told["gerbang"] == PROBLEM
    assert told["id" if dialect == "binance" else "method"] is None


def test_each_mistake_in_binances_messages_is_what_would_have_been_signed():
    params = {"symbol": "A B", "apiKey": "gbk_k", "timestamp": 1_790_000_000_000, "signature": "ab" * 32, "note": "1/é"}
    message = read("binance", json.dumps({"method": "x", "params": params}, ensure_ascii=False))
    credentials = SESSIONS["binance"].credentials(message, 60_000)
    signed = "apiKey=gbk_k&note=1/é&symbol=A B&timestamp=1790000000000".encode()
    assert (credentials.signed, credentials.signature, credentials.portable) == (signed, b"\xab" * 32, True)
    mistakes = list(SESSIONS["binance"].mistakes(message, credentials))
    assert {mistake.signature for mistake in mistakes} == {b"\xab" * 32}
    assert [(mistake.advice.partition(":")[0], mistake.signed.decode()) for mistake in mistakes] == [
        ("wrong signature encoding for this key", signed.decode()),
        ("the parameters were signed in the order they were sent in", "symbol=A B&apiKey=gbk_k&timestamp=1790000000000&note=1/é"),
        ("apiKey was not signed", "note=1/é&symbol=A B&timestamp=1790000000000"),
        ("the values were percent-encoded before signing", "apiKey=gbk_k&note=1/%C3%A9&symbol=A%20B&timestamp=1790000000000"),
        ("the quotes around strings were signed", 'apiKey="gbk_k"&note="1/é"&symbol="A B"&timestamp=1790000000000'),
    ]


def test_each_mistake_in_a_log_in_of_mobee_is_what_would_have_been_signed():
    api = '{"public_key": "gbk_k","timestamp": 1790000000}'
    digest = "ab" * 32
    message = read("mobee", f'{{"method":"login","api":{api},"hmac":"{digest}"}}')
    credentials = SESSIONS["mobee"].credentials(message, 60_000)
    assert (credentials.signed, credentials.signature) == (api.encode(), b"\xab" * 32)
    mistakes = list(SESSIONS["mobee"].mistakes(message, credentials))
    assert {mistake.signature for mistake in mistakes} == {b"\xab" * 32}
    assert [(mistake.advice.partition(":")[0], mistake.signed) for mistake in mistakes[:2]] == [
        ("wrong hmac encoding", api.encode()),
        ("the entire message was signed", message.text),
    ]
    formatted = "the signed api is formatted differently from the api sent"
    assert {(mistake.advice.partition(":")[0], mistake.signed) for mistake in mistakes[2:]} == {
        (formatted, b'{"public_key": "gbk_k", "timestamp": 1790000000}'),
        (formatted, b'{"public_key":"gbk_k","timestamp":1790000000}'),
    }


def test_the_state_of_a_session_is_told():
    dialect = SESSIONS["binance"]
    told = json.loads(dialect.status(read("binance", '{"id":3,"method":"session.status"}', key_id="gbk_x"), since_ms=1, logged_in_ms=2))
    result = {"apiKey": "gbk_x", "authorizedSince": 2, "connectedSince": 1, "returnRateLimits": False, "serverTime": 7}
    assert told == {"id": 3, "status": 200, "result": result}
    nobody = json.loads(dialect.status(read("binance", '{"method":"session.status"}'), since_ms=1, logged_in_ms=2))["result"]
    assert (nobody["apiKey"], nobody["authorizedSince"]) == (None, None)


def test_only_one_dialect_says_good_bye():
    assert SESSIONS["mobee"].shutdown_notice(5) == b""
    assert json.loads(SESSIONS["binance"].shutdown_notice(5)) == {"event": {"e": "serverShutdown", "E": 5}}


NAMES = st.sampled_from(["apiKey", "signature", "timestamp", "recvWindow", "public_key", "symbol", "x"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)
METHODS = st.sampled_from(["login", "logout", "subscribe", "session.logon", "session.status", "order.place"]) | ANYTHING


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from(sorted(SESSIONS)),
    st.dictionaries(st.sampled_from(["id", "params", "api", "hmac", "events", "gateway", "x"]), ANYTHING, max_size=5),
    METHODS,
)
def test_any_message_is_read_or_refused_and_never_forwards_a_credential(dialect, members, method):
    own = SESSIONS[dialect]
    message = read(dialect, json.dumps({**members, "method": method}))
    assert json.loads(own.refusal(PROBLEM, message))["gerbang"] == PROBLEM
    with suppress(Refusal):
        credentials = own.credentials(message, 60_000)
        if credentials is not None:
            list(own.mistakes(message, credentials))
    forwarded = json.loads(message.forwarded(b'"gateway":{}'))
    if dialect == "binance":
        params = forwarded.get("params")
        assert not isinstance(params, dict) or not {"apiKey", "signature"} & params.keys()
    else:
        assert not {"api", "hmac"} & forwarded.keys()


def test_a_name_that_was_harmless_makes_no_other_spelling_so():
    spelling = Spelling(b"apiKey")
    assert spelling.mistake(dict.fromkeys([b"apiKey", b"symbol"], SOME)) == ""
    assert spelling.mistake({b"apikey": SOME}), "folded like it"
    assert spelling.mistake(dict.fromkeys([b"symbol", b"APIKEY"], SOME)), "one of two is known"
