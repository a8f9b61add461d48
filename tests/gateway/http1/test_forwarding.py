"""What a message says of those it passes through."""

import pytest

from gateway.errors import MalformedRequest
from gateway.http1.forwarding import hops_left, one_hop_less


@pytest.mark.parametrize(("value", "hops"), [(b"0", 0), (b"1", 1), (b"010", 10), (b"999999999", 999_999_999)])
def test_max_forwards_is_a_number(value: bytes, hops: int) -> None:
    assert hops_left([(b"accept", b"x"), (b"max-forwards", value)]) == hops


@pytest.mark.parametrize("values", [[b""], [b"-1"], [b"1.5"], [b"x"], [b"1", b"1"], [b"1, 2"], [b"9999999999"], [b"\xb2"]])
def test_anything_else_is_refused(values: list[bytes]) -> None:
    with pytest.raises(MalformedRequest):
        hops_left([(b"max-forwards", value) for value in values])


def test_where_it_does_not_stand_there_is_no_limit() -> None:
    assert hops_left([(b"accept", b"x")]) is None


def test_each_hop_takes_one_off() -> None:
    assert one_hop_less([(b"a", b"5"), (b"max-forwards", b"5"), (b"b", b"5")], 5) == [(b"a", b"5"), (b"max-forwards", b"4"), (b"b", b"5")]
