"""Messages out of bytes: RFC 6455 case by case, then whole conversations under every split."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.websocket.frames import BINARY, CLOSE, CONTINUATION, FRAMES_AT_ONCE, FRAMES_PER_SECOND, LONGEST_HEAD, PING, PONG, TEXT
from gateway.websocket.messages import FAILED, MessageReader

MASK = b"\x01\x02\x03\x04"
LIMIT = 1_000


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = MASK, length: bytes | None = None
) -> bytes:
    """As RFC 6455 §5.2 draws it, byte by byte; ``length`` in place of the right one."""
    size = len(payload)
    flag = 0 if mask is None else 0x80
    if length is None:
        length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big") if size < 65_536 else b"\x7f" + size.to_bytes(8, "big")
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode, flag | length[0]]) + length[1:]
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def read(stream: bytes, *cuts: int, limit: int = LIMIT, now_ms: int = 0) -> list[tuple[int, bytes, int]]:
    """Every event of a stream that comes in these pieces."""
    reader, events, begin = MessageReader(limit), [], 0
    for cut in sorted({*cuts, len(stream)}):
        reader.feed(stream[begin:cut])
        begin = cut
        while (event := reader.next(now_ms)) is not None:
            events.append((event.opcode, event.payload, event.code))
    return events


def test_a_message_comes_unmasked():
    assert read(frame(TEXT, b"Hello", mask=b"\x37\xfa\x21\x3d")) == [(TEXT, b"Hello", 0)]  # RFC 6455 §5.7
    assert frame(TEXT, b"Hello", mask=b"\x37\xfa\x21\x3d") == bytes.fromhex("818537fa213d7f9f4d5158")


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 125, 126, 127, 999, 1000])
def test_every_length_up_to_the_limit_passes(size):
    assert read(frame(TEXT, b"x" * size)) == [(TEXT, b"x" * size, 0)]


def test_the_longest_form_of_a_length_is_read():
    assert read(frame(TEXT, b"x" * 70_000), limit=1 << 20) == [(TEXT, b"x" * 70_000, 0)]


def test_fragments_are_put_together_with_control_frames_between_them():
    stream = (
        frame(TEXT, b"Hel", fin=False)
        + frame(PING, b"there?")
        + frame(CONTINUATION, b"", fin=False)
        + frame(PONG)
        + frame(CONTINUATION, b"lo")
    )
    assert read(stream) == [(PING, b"there?", 0), (PONG, b"", 0), (TEXT, b"Hello", 0)]


def test_a_character_may_be_cut_by_fragments():
    euro = "€".encode()
    assert read(frame(TEXT, euro[:1], fin=False) + frame(CONTINUATION, euro[1:])) == [(TEXT, euro, 0)]


@pytest.mark.parametrize(
    ("payload", "code"), [(b"", 1005), (b"\x03\xe8", 1000), (b"\x03\xe9bye", 1001), (b"\x0b\xb8", 3000), (b"\x13\x87" + b"x" * 123, 4999)]
)
def test_a_close_frame_is_the_last_event(payload, code):
    assert read(frame(CLOSE, payload) + frame(TEXT, b"{}")) == [(CLOSE, payload, code)]


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1014, 3000, 4999])
def test_a_close_code_that_may_be_sent_is_passed_on(code):
    assert read(frame(CLOSE, code.to_bytes(2, "big"))) == [(CLOSE, code.to_bytes(2, "big"), code)]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535])
def test_any_other_close_code_is_not(code):
    assert [event[::2] for event in read(frame(CLOSE, code.to_bytes(2, "big")))] == [(FAILED, 1002)]


def test_a_continuation_of_nothing_is_told_from_a_message_within_another():
    assert read(frame(CONTINUATION, b"x"))[0][1] == b"a continuation frame without a message"
    assert read(frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"))[0][1] == b"a new message inside a fragmented one"


REFUSED = [
    ("reserved bit", frame(TEXT, b"x", rsv=4), 1002),
    ("reserved bit of a control frame", frame(PING, rsv=1), 1002),
    ("not masked", frame(TEXT, b"x", mask=None), 1002),
    ("unknown data", frame(3), 1002),
    ("unknown control", frame(0xB), 1002),
    ("fragmented ping", frame(PING, fin=False), 1002),
    ("long ping", frame(PING, b"x" * 126), 1002),
    ("a continuation frame without a message", frame(CONTINUATION, b"x"), 1002),
    ("a message within another", frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
    ("binary within another", frame(TEXT, b"x", fin=False) + frame(BINARY, b"y"), 1002),
    ("binary", frame(BINARY, b"x"), 1003),
    ("length 126 for a short one", frame(TEXT, b"x", length=b"\x7e\x00\x01"), 1002),
    ("length 127 for a short one", frame(TEXT, b"x", length=b"\x7f" + bytes(7) + b"\x01"), 1002),
    ("length of 64 bits", frame(TEXT, b"x", length=b"\x7f\x80" + bytes(7)), 1002),
    ("not UTF-8", frame(TEXT, b"\xff"), 1007),
    ("overlong UTF-8", frame(TEXT, b"\xc0\xaf"), 1007),
    ("half a surrogate pair in UTF-8", frame(TEXT, b"\xed\xa0\x80"), 1007),
    ("half a character", frame(TEXT, "€".encode()[:2]), 1007),
    ("half a character over fragments", frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"\x82"), 1007),
    ("too big", frame(TEXT, b"x" * 1_001), 1009),
    ("too big over fragments", frame(TEXT, b"x" * 600, fin=False) + frame(CONTINUATION, b"x" * 401), 1009),
    ("too big by its head alone", frame(TEXT, b"", length=b"\x7f" + (1 << 40).to_bytes(8, "big")), 1009),
    ("half a close code", frame(CLOSE, b"\x03"), 1002),
    ("close code 1005", frame(CLOSE, b"\x03\xed"), 1002),
    ("close code 1006", frame(CLOSE, b"\x03\xee"), 1002),
    ("close code 999", frame(CLOSE, b"\x03\xe7"), 1002),
    ("close code 2999", frame(CLOSE, b"\x0b\xb7"), 1002),
    ("close code 5000", frame(CLOSE, b"\x13\x88"), 1002),
    ("close reason", frame(CLOSE, b"\x03\xe8\xff"), 1007),
]


@pytest.mark.parametrize(("stream", "code"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_breaks_a_rule_ends_the_connection_with_its_code(stream, code):
    for cuts in ((), tuple(range(len(stream))) if len(stream) < 200 else (1, 7)):
        events = read(stream + frame(TEXT, b"{}"), *cuts)
        assert [event[0] for event in events] == [FAILED], events
        assert events[0][2] == code
        assert events[0][1]


def test_two_bytes_are_enough_to_refuse():
    assert read(b"\xc1\x80")[0][2] == 1002
    assert read(b"\x81\x01")[0][2] == 1002


CONTROL = st.sampled_from([PING, PONG])


@st.composite
def conversations(draw):
    """Frames of several messages in fragments, control frames in between; and the events they are."""
    stream, events = b"", []
    for text in draw(st.lists(st.text(max_size=40), max_size=4)):
        payload = text.encode()
        cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3)))
        pieces = [payload[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
        for index, piece in enumerate(pieces):
            if draw(st.booleans()):
                opcode, content = draw(CONTROL), draw(st.binary(max_size=9))
                stream += frame(opcode, content, mask=draw(st.binary(min_size=4, max_size=4)))
                events.append((opcode, content, 0))
            stream += frame(
                TEXT if not index else CONTINUATION, piece, fin=index == len(pieces) - 1, mask=draw(st.binary(min_size=4, max_size=4))
            )
        events.append((TEXT, payload, 0))
    return stream, events


@settings(max_examples=150, deadline=None)
@given(conversations(), st.data())
def test_a_conversation_is_the_same_however_it_is_cut(conversation, data):
    stream, events = conversation
    assert read(stream) == events
    assert read(stream, *range(len(stream))) == events
    assert read(stream, *data.draw(st.lists(st.integers(0, len(stream)), max_size=6))) == events


@settings(max_examples=60, deadline=None)
@given(conversations())
def test_every_split_in_two_gives_the_same(conversation):
    stream, events = conversation
    for cut in range(len(stream)):
        assert read(stream, cut) == events


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_any_bytes_end_in_events_and_at_most_one_failure_as_the_last(stream, cuts):
    events = read(stream, *(cut for cut in cuts if cut <= len(stream)))
    assert all(event[0] in (TEXT, PING, PONG) for event in events[:-1])
    assert events == read(stream)


@pytest.mark.parametrize("flood", [frame(PING), frame(PONG), frame(CONTINUATION, fin=False)])
def test_frames_that_are_no_message_are_bounded(flood):
    begin = frame(TEXT, fin=False) if flood[0] == 0 else b""
    allowed = FRAMES_AT_ONCE - bool(begin)
    assert not [event for event in read(begin + flood * allowed) if event[0] == FAILED]
    assert read(begin + flood * (allowed + 1))[-1][2] == 1008


def test_they_may_come_again_as_time_passes():
    reader = MessageReader(LIMIT)
    reader.feed(frame(PING) * (FRAMES_AT_ONCE + 10))
    assert sum(reader.next(0).opcode == PING for _ in range(FRAMES_AT_ONCE)) == FRAMES_AT_ONCE
    assert reader.next(10 * 1_000 // FRAMES_PER_SECOND).opcode == PING
    assert [event.opcode for event in iter(lambda: reader.next(10), None)] == [PING] * 9


def test_whole_messages_are_not_counted_as_frames():
    assert len(read(frame(TEXT, b"{}") * (FRAMES_AT_ONCE + 50))) == FRAMES_AT_ONCE + 50


def test_bytes_that_come_while_others_wait_come_behind_them():
    reader = MessageReader(LIMIT)
    reader.feed(frame(TEXT, b"1") + frame(TEXT, b"2")[:3])
    assert reader.next(0).payload == b"1"
    reader.feed(frame(TEXT, b"2")[3:] + frame(TEXT, b"3"))
    assert reader.waiting
    assert [reader.next(0).payload for _ in range(2)] == [b"2", b"3"]
    assert not reader.waiting
    assert reader.next(0) is None


def test_no_head_is_longer_than_said():
    assert len(frame(TEXT, b"x" * 65_536)) - 65_536 == LONGEST_HEAD
