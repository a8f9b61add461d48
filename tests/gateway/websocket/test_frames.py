"""Frame boundaries, however the bytes are cut."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.websocket.frames import FrameTracker, close_frame


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
