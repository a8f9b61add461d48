"""Bytes that wait: for a turn, in whose memory, and when the transport is read."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from gateway.http1.body import Memory
from gateway.server import fair_scheduler
from gateway.server.fair_scheduler import BUDGET_NS, FairScheduler
from gateway.server.input_buffer import FREE_BACKLOG, InputBuffer
from tests.support.inside import remembered

OWNER = ("198.51.100.7",)


A_LOT = bytes(FREE_BACKLOG + 1)


def turn(buffer: InputBuffer, rest: bytes = b"") -> Callable[[], None]:
    """What is done at a turn.

    :param rest: what is left, and waits for another one
    """

    def item() -> None:
        buffer.turn_came()
        buffer.data = rest
        if rest:
            buffer.wait_turn(turn(buffer))
        buffer.update_reading()

    return item


class Transport:
    """Whether it is read. Two equal orders in a row are a fault."""

    def __init__(self) -> None:
        self.read, self.closing = True, False

    def pause_reading(self) -> None:
        assert self.read
        self.read = False

    def resume_reading(self) -> None:
        assert not self.read
        self.read = True

    def is_closing(self) -> bool:
        return self.closing


@pytest.fixture
def memory() -> Memory:
    return Memory(1 << 20)


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture
def buffer(memory, transport) -> InputBuffer:
    made = InputBuffer(memory, FairScheduler())
    made.open(cast("asyncio.Transport", transport), OWNER)
    return made


async def test_who_has_proven_a_key_needs_no_turn(buffer):
    too_much = BUDGET_NS << 2
    assert not buffer.may_process(too_much)
    buffer.authenticated = True
    assert buffer.may_process(too_much)


async def test_who_waits_with_little_is_read(buffer, transport):
    buffer.data = bytes(FREE_BACKLOG)
    buffer.wait_turn(turn(buffer))
    assert buffer.waiting
    assert transport.read
    await asyncio.sleep(0)
    assert not buffer.waiting


async def test_who_waits_with_a_lot_is_read_again_at_its_turn(buffer, transport):
    buffer.data = A_LOT
    buffer.wait_turn(turn(buffer))
    assert not transport.read
    await asyncio.sleep(0)
    assert transport.read


async def test_what_comes_while_it_waits_can_be_a_lot(buffer, transport):
    buffer.wait_turn(turn(buffer))
    buffer.data = A_LOT
    buffer.update_reading()
    assert not transport.read


async def test_it_is_not_read_between_two_turns_that_it_waits_for(buffer, transport, monkeypatch):
    monkeypatch.setattr(fair_scheduler, "BUDGET_NS", 0)  # one item in a turn
    buffer.data = A_LOT
    buffer.wait_turn(turn(buffer, A_LOT))
    await asyncio.sleep(0)
    assert buffer.waiting
    assert not transport.read
    await asyncio.sleep(0)
    assert not buffer.waiting
    assert transport.read


@pytest.mark.parametrize("turn_first", [True, False])
async def test_it_is_read_when_neither_a_turn_nor_an_order_stands_against_it(buffer, transport, turn_first):
    buffer.data = A_LOT
    buffer.wait_turn(turn(buffer))
    buffer.pause()
    buffer.pause()
    if turn_first:
        await asyncio.sleep(0)
        assert not transport.read
        buffer.resume()
    else:
        buffer.resume()
        assert not transport.read
        await asyncio.sleep(0)
    buffer.resume()
    assert transport.read


async def test_a_transport_that_closes_gets_no_orders(buffer, transport):
    transport.closing = True
    buffer.data = A_LOT
    buffer.pause()
    buffer.wait_turn(turn(buffer))
    assert transport.read
    await asyncio.sleep(0)
    assert not buffer.waiting


def test_little_is_free_and_more_is_taken_from_the_owners_share(buffer, memory):
    buffer.data = bytes(FREE_BACKLOG)
    assert buffer.charge()
    assert memory.left == memory.size
    buffer.data += b"x"
    assert buffer.charge()
    assert memory.left == memory.size - FREE_BACKLOG - 1
    buffer.drop()
    assert not buffer.data
    assert memory.left == memory.size


def test_what_is_taken_is_given_back_and_what_is_left_stays_charged(buffer, memory):
    buffer.data = bytes(range(256)) * 64
    assert buffer.charge()
    assert buffer.take(4_096) == bytes(range(256)) * 16
    assert len(buffer.data) == 12_288
    assert memory.left == memory.size - 12_288
    assert len(buffer.take()) == 12_288
    assert not buffer.data
    assert memory.left == memory.size


def test_without_a_share_left_nothing_stays_charged(buffer, memory):
    buffer.data = bytes(memory.size + 1)
    assert not buffer.charge()
    assert memory.left == memory.size
    buffer.drop()
    assert memory.left == memory.size


def test_who_has_proven_a_key_pays_for_itself_and_others_for_their_site_too(memory, transport):
    buffer = InputBuffer(memory, FairScheduler())
    buffer.open(cast("asyncio.Transport", transport), ("site", "network"))
    buffer.data = A_LOT
    for authenticated, payers in ((False, {"site", "network"}), (True, {"network"})):
        buffer.authenticated = authenticated
        assert buffer.charge()
        assert remembered(memory) == dict.fromkeys(payers, len(A_LOT))
    buffer.authenticated = False
    buffer.drop()
    assert remembered(memory) == {}
