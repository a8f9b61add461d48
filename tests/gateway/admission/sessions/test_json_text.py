"""Strict JSON, held against the standard library's reader: what it takes and we refuse is one of the reasons named here."""

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admission.sessions.json_text import (
    _SIMPLE_STRING,
    _STRING,
    MAX_DEPTH,
    _rows,
    ranges_without,
    scan,
    text_of,
    unescaped,
    without,
)
from gateway.errors import MalformedRequest

TAKEN = [
    "{}",
    " { } ",
    '{"a":1}',
    '\t{\n"a" : -0.5e-7 ,\r"b":[ ] , "c" : [1,"x",null,true,false,{"d":{}}] }\n',
    '{"a":0,"b":10,"c":1E5,"d":1e+5,"e":0.00000100}',
    '{"":""}',
    r'{"a":"\"\\\/\b\f\n\r\t\u00e9"}',
    r'{"a":"\ud83d\ude00"}',
    '{"ü":"€😀\x7f"}',
    '{"a":' * (MAX_DEPTH - 1) + "{}" + "}" * (MAX_DEPTH - 1),
    '{"a":' + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1) + "}",
]
REFUSED = [
    "", " ", "[]", "1", '"a"', "null", "{", "}", '{"a"}', '{"a":}', '{"a":1,}', "{,}", '{"a":1 "b":2}', '{"a":1}{"a":1}', '{"a":1} x',
    "{}{}",
    '{"a":[1}}', '{"a":{"b":1]}', '{"a":[}}', '{"a":{]}', '{"a":{}"b":1}', '{"a":[1]"b":2}', '{"a":[[][]]}', '{"a":[{}{}]}',
    '{"a":["b":1]}', '{"a":[1,"b":1]}', '{"a":["b":[]]}',
    '{"a":[1,]}', '{"a":[,1]}', '{"a":[1 2]}', '{"a":[1}', '{"a":{"b":1]', "{a:1}", "{'a':1}", '{"a":01}', '{"a":+1}', '{"a":.5}',
    '{"a":1.}',
    '{"a":1e}', '{"a":-}', '{"a":0x1}', '{"a":1_0}', '{"a":NaN}', '{"a":Infinity}', '{"a":-Infinity}', '{"a":True}', '{"a":nul}',
    '{"a":"\n"}', '{"a":"\x00"}', '{"a":"\x1f"}', r'{"a":"\x"}', r'{"a":"\u12"}', r'{"a":"\u12g4"}', '{"a":"', r'{"a":"\"}',
    r'{"a":"\ud800"}', r'{"a":"\udc00"}', r'{"a":"\ud800\ud800"}', r'{"a":"\udc00\ud800"}', r'{"\ud800":1}', r'{"a":"\ud83dx"}',
    r'{"a":"\uD83D"}',
    '{"a":1,"a":2}', r'{"a":1,"\u0061":2}', '{"x":{"a":1,"a":1}}', '{"x":[{"a":1,"a":1}]}', '{"a":1,"b":2,"a":3}',
    '\ufeff{"a":1}', '{"a":1}\x00', "\x0b{}", '{"a":1/*b*/}', '{"a":1}//', '{"a":\xa01}',
    '{"a":' * MAX_DEPTH + "{}" + "}" * MAX_DEPTH,
    '{"a":' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}",
    '{"a":' * 20_000, '{"a":' + "[" * 60_000,
]  # fmt: skip


@pytest.mark.parametrize("text", TAKEN)
def test_json_is_taken(text):
    assert shown(text.encode(), scan(text.encode())) == json.loads(text)


@pytest.mark.parametrize("text", REFUSED, ids=[repr(text[:24]) for text in REFUSED])
def test_anything_else_is_refused(text):
    with pytest.raises(MalformedRequest):
        scan(text.encode())


def shown(text: bytes, value) -> object:
    """A scanned value as Python's reader gives it."""
    if value.members is not None:
        return {name.decode(): shown(text, member) for name, member in value.members.items()}
    if value.items is not None:
        return [shown(text, item) for item in value.items]
    return json.loads(text[value.start : value.end])


NAMES = st.text(max_size=6).filter(lambda name: "\0" not in name)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=5), st.sampled_from([None, 1]), st.booleans())
def test_what_a_serialiser_writes_is_read_as_it_was_meant(value, indent, ascii_only):
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    assert shown(text, scan(text)) == value


def _once(pairs):
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("twice")
    if any("\0" in name for name, _ in pairs):
        raise ValueError("NUL")
    return dict(pairs)


def _no(constant):
    raise ValueError(constant)


PIECES = st.sampled_from(
    ["{", "}", "[", "]", ":", ",", '"', "\\", '"a"', '"b"', r'"\u0061"', r'"\ud83d\ude00"', r"\ud83d", "1", "-", ".", "e", "0", " ", "\n",
     "true", "null", "NaN", "é", "\x00", "/"]
)  # fmt: skip


@settings(max_examples=1_500, deadline=None)
@given(st.lists(PIECES, max_size=14).map("".join).map(lambda inner: '{"m":' + inner + "}"))
def test_any_text_is_taken_exactly_when_the_standard_reader_takes_it_and_nothing_is_ambiguous(text):
    try:
        expected = json.loads(text, object_pairs_hook=_once, parse_constant=_no)
        json.dumps(expected, ensure_ascii=False).encode()  # half a surrogate pair cannot be written
    except (ValueError, UnicodeEncodeError):
        with pytest.raises(MalformedRequest):
            scan(text.encode())
    else:
        assert shown(text.encode(), scan(text.encode())) == expected


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=60))
def test_no_text_makes_it_fail_otherwise(text):
    with suppress(MalformedRequest):
        scan(text.encode())


def test_long_texts_are_read_once():
    """No pattern tries again what it has read: a message of the largest size costs what its bytes cost."""
    for text in (
        b'{"a":"' + b"x" * 2_000_000,
        b'{"a":"' + b"\\n" * 1_000_000,
        b'{"a":' + b"1" * 2_000_000,
        b"{" + b" " * 2_000_000,
        b'{"a":[' + b"1," * 300_000,
    ):
        with pytest.raises(MalformedRequest):
            scan(text)


@pytest.mark.parametrize("text", ['{"a":{"b\\u0000":1}}', '{"\\u0000a":1}', '{"a":[{"\\u0000":1}]}'])
def test_a_name_does_not_end_where_a_c_string_would(text):
    with pytest.raises(MalformedRequest, match="NUL"):
        scan(text.encode())


@pytest.mark.parametrize("inside", ["1,", "[],", "{},", '"a",', "[[1]],"])
def test_a_message_of_many_values_is_refused_before_it_is_read(inside):
    few = '{"a":[' + (inside * 500)[:-1] + "]}"
    assert scan(few.encode())
    with pytest.raises(MalformedRequest, match="at most"):
        scan(b'{"a":[' + (inside * 3_000).encode())


def test_brackets_that_close_are_counted_before_anything_is_read():
    with pytest.raises(MalformedRequest, match="at most"):
        scan(b'{"a":1' + b"]}" * 3_000)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a":1,2}', "invalid JSON at byte 7 "),
        ('{"a":1,"b\\n"}', "invalid JSON at byte 7 "),
        ('{"a":["b":1]}', "invalid JSON at byte 6 "),
        ('{"a":[1,"b":2]}', "invalid JSON at byte 8 "),
        ('{"a":1,,', "invalid JSON at byte 7 "),
        ('{"a":1]', "invalid JSON at byte 6 "),
        ('{"a":[1', "invalid JSON at byte 6 "),
        (' {"a":1} 2', "unexpected data after the object, at byte 8"),
        ('{}{"a":1}', "unexpected data after the object, at byte 2"),
        ('{"a":1,"a":2}', "duplicate member, at byte 7"),
        ('{"\\u0000":1}', "holds a NUL, at byte 1"),
        ('{"a":' * MAX_DEPTH + "{}", f"nested deeper than {MAX_DEPTH} levels, at byte {MAX_DEPTH * 5}"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text, said):
    with pytest.raises(MalformedRequest) as refused:
        scan(text.encode())
    assert said in refused.value.detail


def test_values_know_where_they_stand():
    value = scan(b' {"a" : 1,"b":[2, {}]} ')
    members = value.members or {}
    places = [value, members[b"a"], members[b"b"], *(members[b"b"].items or ())]
    assert [(one.name_start, one.start, one.end) for one in places] == [(-1, 1, 22), (2, 8, 9), (10, 14, 21), (-1, 15, 16), (-1, 18, 20)]


@pytest.mark.parametrize("string", [_STRING, _SIMPLE_STRING])
@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (b'{"a":1,"b" : [true]}', [("", "", "{", ""), ('"a"', ":", "1", ","), ('"b"', " : ", "[", ""), ("", "", "true", "]}")]),
        (b'{"a":null}', [("", "", "{", ""), ('"a"', ":", "null", "}")]),
        (b'{"a":false,"b":-0.5e+7}', [("", "", "{", ""), ('"a"', ":", "false", ","), ('"b"', ":", "-0.5e+7", "}")]),
        (b'{"":"x" ,"b":"y"}', [("", "", "{", ""), ('""', ":", '"x"', " ,"), ('"b"', ":", '"y"', "}")]),
        (b'{ "a":[[ ] , {\n}]}', [("", "", "{", " "), ('"a"', ":", "[", ""), ("", "", "[", " ] , "), ("", "", "{", "\n}]}")]),
        (b'{"a":truex}', [("", "", "{", ""), '"a":truex}']),
        (b'{"a":1', [("", "", "{", ""), '"a":1']),
    ],
)
def test_a_row_is_a_value_with_its_name_and_what_stands_before_the_next(string, text, rows):
    whole = [(*row, "") if isinstance(row, tuple) else ("", "", "", "", row) for row in rows]
    assert [tuple(piece.decode() for piece in row) for row in _rows(string).findall(text)] == whole


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=14).map("".join))
def test_rows_leave_nothing_out(text):
    for string in (_STRING, _SIMPLE_STRING):
        assert b"".join(piece for row in _rows(string).findall(text.encode()) for piece in row) == text.encode()


@pytest.mark.parametrize(
    ("text", "names", "pieces"),
    [
        (b'{"a":1,"b":2,"c":3}', (), [b'"a":1,"b":2,"c":3']),
        (b'{"a":1,"b":2, "c":3}', (), [b'"a":1,"b":2', b'"c":3']),
        (b'{"a":1,"b":2,"c":3}', {b"b"}, [b'"a":1', b'"c":3']),
        (b'{"a":1,"b":2,"c":3}', {b"a"}, [b'"b":2,"c":3']),
        (b'{"a":1,"b":2,"c":3}', {b"a", b"b", b"c"}, []),
        (b"{}", (), []),
    ],
)
def test_members_that_stand_together_are_one_piece(text, names, pieces):
    value = scan(text)
    assert [text[begin:end] for begin, end in ranges_without(value, names)] == pieces
    assert without(text, value, names) == b",".join(pieces)


def test_values_are_cut_out_as_they_came():
    text = '{ "a" : 0.00000100, "b":1e3 ,"c" : "\\u00e9€",\n"d":[ 1,2 ] }'.encode()
    value = scan(text)
    assert without(text, value, frozenset({b"b"})) == '"a" : 0.00000100,"c" : "\\u00e9€","d":[ 1,2 ]'.encode()
    assert text_of(text, value.members[b"c"]) == "é€".encode()
    assert text_of(text, value.members[b"a"]) is None
    assert unescaped(rb'"\u0061b"') == b"ab"
