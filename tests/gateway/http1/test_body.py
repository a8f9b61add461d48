"""Bodies held in memory: within their limit, and each owner within a share."""

import pytest

from gateway.errors import BodyTooLarge, Overloaded
from gateway.http1.body import UNVERIFIED, BodyBuffer, Memory
from tests.support.inside import remembered


def test_a_buffer_holds_no_more_than_its_limit() -> None:
    buffer = BodyBuffer(3, -1, Memory(100))
    buffer.add(b"ab", keep=True)
    buffer.add(b"c", keep=True)
    assert buffer.whole() == b"abc"
    with pytest.raises(BodyTooLarge) as refusal:
        buffer.add(b"d", keep=False)
    assert (refusal.value.extras, refusal.value.close) == ({"limit": 3}, True)
    assert refusal.match("the body exceeds 3 bytes")
    with pytest.raises(BodyTooLarge):
        BodyBuffer(3, 4, Memory(100))
    BodyBuffer(3, 3, Memory(100))


def test_buffers_share_what_memory_there_is() -> None:
    memory = Memory(5)
    one, other = BodyBuffer(100, -1, memory), BodyBuffer(100, -1, memory)
    one.add(b"abc", keep=True)
    other.add(b"passes on", keep=False)
    with pytest.raises(Overloaded):
        other.add(b"abc", keep=True)
    assert one.whole() == b"abc"
    other.add(b"a", keep=True)
    other.whole()
    assert (one.whole(), other.whole()) == (b"", b"")
    assert memory.left == memory.size == 5
    one.add(b"ab", keep=True)
    one.add(b"cd", keep=True)
    assert (memory.left, one.whole(), memory.left) == (1, b"abcd", 5)


def test_each_owner_of_content_has_a_share_of_the_memory() -> None:
    memory = Memory(80)
    memory.take(10, ("a",))
    with pytest.raises(Overloaded, match="from this client; send fewer") as refusal:
        memory.take(1, ("b", "a"))
    assert (refusal.value.resource, refusal.value.close, memory.left) == ("body_memory_share", True, 70)
    memory.take(10, ("b", "c"))  # of what was refused, neither holds anything
    memory.give(4, ("a",))
    memory.take(3, ("a",))
    with pytest.raises(Overloaded):
        memory.take(2, ("a",))
    memory.take(1, ("a",))
    memory.give(9, ("a",))
    with pytest.raises(Overloaded):
        memory.take(10, ("a",))
    memory.give(1, ("a",))
    memory.give(10, ("b", "c"))
    assert (memory.left, remembered(memory)) == (80, {})  # nobody who holds nothing is remembered


def test_a_site_has_what_it_is_told_to() -> None:
    memory = Memory(80, 20, lambda owner: owner == "site")
    memory.take(10, ("site", "a"))
    memory.take(10, ("site", "b"))
    with pytest.raises(Overloaded, match="from this client"):
        memory.take(1, ("site", "c"))
    memory.take(10, ("c",))
    with pytest.raises(Overloaded, match="from this client"):
        memory.take(1, ("c",))
    memory.give(10, ("site", "a"))
    memory.take(1, ("site", "b2"))
    assert remembered(memory) == {"site": 11, "b": 10, "c": 10, "b2": 1}


def test_all_that_nobody_answers_for_has_half_of_it() -> None:
    memory = Memory(80)
    memory.take(40, (UNVERIFIED,))
    with pytest.raises(Overloaded, match="from this client"):
        memory.take(1, (UNVERIFIED,))
    for owner in "abcd":
        memory.take(10, (owner,))
    with pytest.raises(Overloaded, match="too many request bodies are being received; try again") as refusal:
        memory.take(1, ("e",))
    assert (refusal.value.resource, refusal.value.close, memory.left) == ("body_memory", True, 0)
