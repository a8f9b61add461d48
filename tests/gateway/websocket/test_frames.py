"""Frame boundaries, however the bytes are cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.websocket.frames import FRAMES_AT_ONCE, PING, TEXT, FrameBudget, FrameTracker, Masks, close_frame
from gateway.websocket.frames import frame as made
from gateway.websocket.frames import masked as exclusive_or


def frame(payload: bytes, *, masked: bool) -> bytes:
    """As RFC 6455 §5.2 draws it."""
    flag = 0x80 if masked else 0
    if len(payload) < 126:
        length = bytes([flag | len(payload)])
    elif len(payload) < 1 << 16:
        length = bytes([flag | 126]) + len(payload).to_bytes(2, "big")
    else:
        length = bytes([flag | 127]) + len(payload).to_bytes(8, "big")
    return b"\x82" + length + (b"mask" if masked else b"") + payload


FRAMES = st.lists(st.tuples(st.sampled_from([0, 1, 5, 125, 126, 127, 300, 70_000]), st.booleans()), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(FRAMES, st.lists(st.integers(0, 71_000), max_size=10))
def test_between_frames_is_known_at_every_cut(kinds: list[tuple[int, bool]], cuts: list[int]) -> None:
    stream, ends = b"", {0}
    for size, masked in kinds:
        stream += frame(b"x" * size, masked=masked)
        ends.add(len(stream))
    tracker, begin = FrameTracker(), 0
    for cut in sorted({*(cut for cut in cuts if cut <= len(stream)), len(stream)}):
        tracker.follow(stream[begin:cut])
        assert tracker.between_frames == (cut in ends)
        begin = cut


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 200), st.booleans(), st.binary(max_size=20), st.data())
def test_the_end_of_the_frame_in_progress_is_found(size: int, masked: bool, behind: bytes, data: st.DataObject) -> None:
    whole = frame(b"x" * size, masked=masked)
    cut = data.draw(st.integers(1, len(whole) - 1))
    tracker = FrameTracker()
    tracker.follow(whole[:cut])
    assert tracker.until_frame_end(whole[cut:] + behind) == len(whole) - cut
    assert tracker.between_frames
    assert tracker.until_frame_end(behind) == 0


def test_close_frames_are_those_of_the_standard() -> None:
    assert close_frame(1008, "no") == b"\x88\x04\x03\xf0no"
    assert close_frame(1000, "", mask=b"\x01\x02\x03\x04") == b"\x88\x82\x01\x02\x03\x04" + bytes([0x03 ^ 1, 0xE8 ^ 2])


FRAGMENTS = st.lists(
    st.tuples(st.sampled_from([0x81, 0x01, 0x00, 0x80, 0x89, 0x8A]), st.sampled_from([0, 1, 125, 126, 70_000])), max_size=6
)


@settings(max_examples=200, deadline=None)
@given(FRAGMENTS, st.lists(st.integers(0, 210_000), max_size=8))
def test_a_whole_message_may_be_put_in_where_no_other_is_open(frames: list[tuple[int, int]], cuts: list[int]) -> None:
    stream, free, is_open = b"", {0}, False
    for first, size in frames:
        stream += bytes([first]) + frame(b"x" * size, masked=False)[1:]
        is_open = is_open if first & 0x0F >= 8 else not first & 0x80
        if not is_open:
            free.add(len(stream))
    tracker, begin = FrameTracker(), 0
    for cut in sorted({*(cut for cut in cuts if cut <= len(stream)), len(stream)}):
        tracker.follow(stream[begin:cut])
        assert tracker.between_messages == (cut in free)
        begin = cut


@settings(max_examples=100, deadline=None)
@given(FRAGMENTS, st.data())
def test_the_end_of_the_message_in_progress_is_found(frames: list[tuple[int, int]], data: st.DataObject) -> None:
    stream, free, is_open = b"", [0], False
    for first, size in frames:
        stream += bytes([first]) + frame(b"x" * size, masked=False)[1:]
        is_open = is_open if first & 0x0F >= 8 else not first & 0x80
        free += [] if is_open else [len(stream)]
    cut = data.draw(st.integers(0, len(stream)))
    tracker = FrameTracker()
    tracker.follow(stream[:cut])
    rest = tracker.until_message_end(stream[cut:])
    assert cut + rest == next((end for end in free if end >= cut), len(stream))
    assert tracker.between_messages == (cut + rest in free)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_masking_is_byte_by_byte_and_undoes_itself(payload: bytes, mask: bytes) -> None:
    assert exclusive_or(payload, mask) == bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    assert exclusive_or(exclusive_or(payload, mask), mask) == payload


def test_frames_are_made_as_the_standard_draws_them() -> None:
    assert made(TEXT, b"Hello") == bytes.fromhex("810548656c6c6f")  # RFC 6455 §5.7
    assert made(TEXT, b"Hello", mask=bytes.fromhex("37fa213d")) == bytes.fromhex("818537fa213d7f9f4d5158")
    assert made(PING, b"Hello") == bytes.fromhex("890548656c6c6f")
    assert made(TEXT, b"x" * 126)[:4] == b"\x81\x7e\x00\x7e"
    assert made(TEXT, b"x" * 65_535)[:4] == b"\x81\x7e\xff\xff"
    assert made(TEXT, b"x" * 65_536)[:10] == b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"


def test_a_close_reason_is_cut_between_characters() -> None:
    assert close_frame(1000, "x" * 122 + "€")[4:] == b"x" * 122


def test_masks_do_not_come_twice() -> None:
    masks = Masks()
    assert len({masks.next() for _ in range(5_000)}) > 4_990


def test_the_masks_of_one_draw_are_its_bytes_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter([bytes(range(256)) * 16, b"next" * 1_024])
    monkeypatch.setattr("gateway.websocket.frames.secrets.token_bytes", lambda size: next(draws)[:size])
    masks = Masks()
    drawn = [masks.next() for _ in range(1_025)]
    assert b"".join(drawn[:1_024]) == bytes(range(256)) * 16
    assert drawn[1_024] == b"next"


def test_a_close_frame_between_two_fragments_ends_no_message() -> None:
    tracker = FrameTracker()
    tracker.follow(b"\x01\x02He" + b"\x88\x00")
    assert not tracker.between_messages
    tracker.follow(b"\x80\x03llo")
    assert tracker.between_messages


def test_frames_are_counted_once_however_they_are_cut() -> None:
    stream = frame(b"x" * 300, masked=True) + frame(b"", masked=False) + frame(b"x" * 3, masked=True)
    whole, cut = FrameTracker(), FrameTracker()
    whole.follow(stream)
    for index in range(len(stream)):
        cut.follow(stream[index : index + 1])
    assert (whole.frames, cut.frames) == (3, 3)


def test_a_budget_may_be_spent_at_once_and_comes_back_with_time() -> None:
    budget = FrameBudget()
    assert budget.spend(FRAMES_AT_ONCE - 1, 5)
    assert budget.spend(1, 5)
    assert not budget.spend(1, 5)  # and is counted: refused frames have come, too
    assert not budget.spend(1, 6)
    assert budget.spend(0, 7)
    assert not budget.spend(1, 7)
    assert budget.spend(2, 10)
    assert not budget.spend(1, 10)


def test_a_budget_never_exceeds_what_may_come_at_once_nor_grows_when_the_clock_is_set_back() -> None:
    budget = FrameBudget()
    assert budget.spend(0, 1_000_000)
    assert not budget.spend(FRAMES_AT_ONCE + 1, 1_000_000)
    budget = FrameBudget()
    assert budget.spend(FRAMES_AT_ONCE, 1_000)
    assert budget.spend(0, 900)
    assert budget.spend(1, 901)
    assert not budget.spend(1, 901)
