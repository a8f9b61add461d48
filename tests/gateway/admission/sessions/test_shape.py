"""A message that is read by its shape is read exactly as one that is scanned: the shortcut is held against the reader, over any text."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admission.sessions import SESSIONS, Shape
from gateway.admission.sessions.shape import LONGEST, MOST
from tests.support.session import HANDSHAKE, made_of

ORDER = (
    '{"id":17,"method":"order.place","params":{"symbol":"BTCIDR","price":"900%000","quantity":0.00000100,"timestamp":1790000000000,'
    '"list":["a","b"],"recvWindow":5000,"flag":true,"apiKey":"gbk_x","signature":"' + "ab" * 32 + '"}}'
)


def told(text: bytes, shapes: list[Shape] | None) -> list[object]:
    return made_of("binance", text, shapes)


def recognised(text: str, shapes: list[Shape]) -> bool:
    return SESSIONS["binance"].read(text.encode(), HANDSHAKE, "", 7, "request-1", shapes).shape is not None


@pytest.mark.parametrize(
    "text",
    [
        ORDER.replace("BTCIDR", "ETHIDR").replace("17,", "18,"),
        ORDER.replace("900%000", "").replace("0.00000100", "-1e3"),
        ORDER.replace("gbk_x", "gbk_y").replace("ab" * 32, "é"),
        ORDER.replace("1790000000000", "0").replace("5000", "60000"),
    ],
)
def test_a_message_that_differs_in_its_values_is_not_scanned_again(text):
    shapes: list[Shape] = []
    assert not recognised(ORDER, shapes)
    assert recognised(text, shapes)
    assert told(text.encode(), shapes) == told(text.encode(), None)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("17,", '"17",'), ("17,", "017,"), ("17,", "1 7,"), ("17,", ","), ("17,", "17 ,"), ("17,", "17,,"), ("17,", "true,"),
        ("17,", "\u0661,"),
        ("order.place", "order.cancel"),
        ('"BTCIDR"', '"BTC\\u0049DR"'), ('"BTCIDR"', '"BTC\nIDR"'), ('"BTCIDR"', "1"), ('"BTCIDR"', '"a","b"'),
        ('"symbol"', '"side"'), ('"symbol"', '"price"'), ('"symbol"', '"apikey"'), ('"a","b"', '"a","c"'), ('"a","b"', '"a"'),
        ("true", "false"), ("true", "nul"), ("}}", "}"), ("}}", "}}}"), ("}}", '},"gateway":1}'), ("}}", "}} "), ('{"id"', ' {"id"'),
        ("5000", "NaN"), ("5000", "+5"), ("5000", "0x5"), ("0.00000100", "1."), ("0.00000100", '1.5,"x":2'), ("BTCIDR", "x" * LONGEST),
    ],
)  # fmt: skip
def test_what_differs_otherwise_is_scanned(old, new):
    shapes: list[Shape] = []
    assert told(ORDER.encode(), shapes) == told(ORDER.encode(), None)
    known = shapes[0]
    text = ORDER.replace(old, new, 1)
    assert text != ORDER
    assert known.values_in(text.encode().split(b'"')) is None or len(text) > LONGEST or "\\" in text or "\n" in text
    assert told(text.encode(), [known]) == told(text.encode(), None)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"apiKey":"gbk_x",', ""), (',"signature":"' + "ab" * 32 + '"', ""), ("1790000000000", "null"), ("5000", "null"), ("5000", "[]"),
        ('"signature":"' + "ab" * 32 + '"', '"signature":null'), ('"gbk_x"', "null"), ('"price"', '"pri=ce"'), ("17,", "[17],"),
        ("order.place", "session.logon"), ("order.place", "session.status"), ("BTCIDR", "x\\ty"), ("BTCIDR", "x" * LONGEST),
    ],
)  # fmt: skip
def test_of_what_has_another_meaning_nothing_is_remembered(old, new):
    shapes: list[Shape] = []
    text = ORDER.replace(old, new)
    assert text != ORDER
    assert told(text.encode(), shapes) == told(text.encode(), None)
    if new != "[17],":  # that has no id, and is as good as any other
        assert shapes == []


def test_an_ampersand_in_a_value_is_found_by_shape_too():
    shapes: list[Shape] = []
    told(ORDER.encode(), shapes)
    text = ORDER.replace("BTCIDR", "a&b=c").encode()
    assert told(text, shapes) == told(text, None)
    assert "ambiguous" in str(told(text, shapes)[-1])


@pytest.mark.parametrize("first", ["recvWindow", "apiKey", "signature", "timestamp"])
def test_a_message_without_an_id_is_remembered_whatever_stands_first(first):
    values = {"apiKey": "gbk_x", "signature": "ab" * 32, "timestamp": 1_790_000_000_000, "recvWindow": 5_000}
    text = json.dumps({"method": "order.place", "params": {first: values[first], **values}})
    shapes: list[Shape] = []
    assert not recognised(text, shapes)
    assert recognised(text, shapes)
    assert told(text.encode(), shapes) == told(text.encode(), None)


def test_a_long_id_is_not_repeated_by_shape_either():
    text = ORDER.replace("17,", '"z",')
    shapes: list[Shape] = []
    told(text.encode(), shapes)
    longer = text.replace('"z",', f'"{"z" * 300}",')
    assert recognised(longer, shapes)
    assert told(longer.encode(), shapes) == told(longer.encode(), None)


def test_a_session_remembers_few_shapes_and_the_latest():
    shapes: list[Shape] = []
    texts = [ORDER.replace("symbol", f"s{number}") for number in range(MOST + 2)]
    for text in texts:
        assert not recognised(text, shapes)
    assert len(shapes) == MOST
    assert [recognised(text, shapes[:]) for text in texts] == [False, False] + [True] * MOST


NAMES = st.sampled_from(["apiKey", "signature", "timestamp", "recvWindow", "symbol", "price", "a%b", "a=b", "a&b", "ü", ""])
STRINGS = st.sampled_from(["", "x", "ab" * 32, "&", "=", "%", "%b", "é", "{", "},", ":1,", "1790000000000"]) | st.text(max_size=4)
NUMBERS = st.integers(-5, 10**14) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = STRINGS | NUMBERS | st.booleans() | st.none()
INNER = st.dictionaries(NAMES, SCALARS | st.lists(SCALARS, max_size=2), max_size=7)
SEPARATORS = st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :")])


@st.composite
def conversations(draw: st.DrawFn) -> list[bytes]:
    """A message, others that have the same members with other values, and such as somebody tampered with."""
    params, separators = draw(INNER), draw(SEPARATORS)
    method = draw(st.sampled_from(["order.place", "v3/time", "session.logon"]))
    texts = []
    for _ in range(draw(st.integers(1, 4))):
        values = {name: draw(st.just(value) | (STRINGS if isinstance(value, str) else SCALARS)) for name, value in params.items()}
        message = {"id": draw(SCALARS), "method": method, "params": values}
        text = json.dumps(message, separators=separators, ensure_ascii=draw(st.booleans()))
        if draw(st.booleans()):
            at, end = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
            end = min(end, at + draw(st.integers(0, 2)))
            text = text[:at] + draw(st.sampled_from(["", '"', ",", ":", "1", ".", "}", "{", " ", "\\", "-", "e", "\n"])) + text[end:]
        texts.append(text.encode("utf-8", "replace"))
    return texts


@settings(max_examples=400, deadline=None)
@given(conversations())
def test_any_message_is_read_by_shape_as_it_is_scanned(texts):
    shapes: list[Shape] = []
    for text in [*texts, *texts]:
        assert told(text, shapes) == told(text, None)
