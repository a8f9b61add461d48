"""Writes that wait for the end of a turn."""

import asyncio

from structlog.testing import capture_logs

from gateway.runtime.outbox import LARGE, Outbox


class Transport(asyncio.WriteTransport):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closing


async def test_small_writes_are_made_at_the_end_of_the_turn_in_their_order() -> None:
    outbox, one, other = Outbox(), Transport(), Transport()
    outbox.put(one, b"a")
    outbox.put(other, b"b")
    outbox.put(one, b"c")
    assert one.written == other.written == []
    await asyncio.sleep(0)
    assert (one.written, other.written) == ([b"a", b"c"], [b"b"])
    outbox.put(one, b"d")
    await asyncio.sleep(0)
    assert one.written == [b"a", b"c", b"d"]


async def test_writes_that_follow_each_other_are_joined_up_to_the_size_of_a_large_one() -> None:
    outbox, one, other = Outbox(), Transport(), Transport()
    for transport, data in ((one, b"a"), (one, b"b"), (one, b"c"), (other, b"d"), (other, b"e"), (one, b"f")):
        outbox.put(transport, data)
    half = b"x" * (LARGE // 2)
    for data in (half, half, b"y"):
        outbox.put(other, data)
    outbox.flush()
    assert one.written == [b"abc", b"f"]
    assert other.written == [b"de", half + half, b"y"]


async def test_a_large_write_waits_for_nothing_but_what_came_before_it() -> None:
    outbox, transport = Outbox(), Transport()
    outbox.put(transport, b"a")
    outbox.put(transport, b"x" * (LARGE + 1))
    assert [len(data) for data in transport.written] == [1, LARGE + 1]


async def test_what_is_written_behind_an_end_takes_nothing_from_others() -> None:
    class Ended(Transport):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            raise RuntimeError("Cannot call write() after write_eof()")

    outbox, ended, other = Outbox(), Ended(), Transport()
    outbox.put(ended, b"a")
    outbox.put(other, b"b")
    with capture_logs() as logs:
        outbox.flush()
    assert other.written == [b"b"]
    assert [line["event"] for line in logs] == ["written_behind_the_end"]


async def test_what_waits_is_written_before_a_transport_is_closed_and_not_after() -> None:
    outbox, transport, closed = Outbox(), Transport(), Transport()
    outbox.put(transport, b"a")
    outbox.put(closed, b"b")
    closed.closing = True
    outbox.flush()
    assert (transport.written, closed.written) == ([b"a"], [])
    await asyncio.sleep(0)
    assert transport.written == [b"a"]
