"""Bytes that wait: for a turn, in whose memory, and when the transport is read."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from gateway.http1.body import Memory
from gateway.server import rounds
from gateway.server.intake import FREE_BACKLOG, Intake
from gateway.server.rounds import SHARE_US, Rounds

OWNER = "198.51.100.7"


A_LOT = bytes(FREE_BACKLOG + 1)


def turn(intake: Intake, rest: bytes = b"") -> Callable[[], None]:
    """What is done at a turn.

    :param rest: what is left, and waits for another one
    """

    def item() -> None:
        intake.turned()
        intake.data = rest
        if rest:
            intake.wait(turn(intake))
        intake.follow()

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
def intake(memory, transport) -> Intake:
    made = Intake(memory, Rounds())
    made.open(cast("asyncio.Transport", transport), OWNER)
    return made


async def test_who_has_proven_a_key_needs_no_turn(intake):
    too_much = SHARE_US << 12
    assert not intake.has_turn(too_much)
    intake.proven = True
    assert intake.has_turn(too_much)


async def test_who_waits_with_little_is_read(intake, transport):
    intake.data = bytes(FREE_BACKLOG)
    intake.wait(turn(intake))
    assert intake.waits
    assert transport.read
    await asyncio.sleep(0)
    assert not intake.waits


async def test_who_waits_with_a_lot_is_read_again_at_its_turn(intake, transport):
    intake.data = A_LOT
    intake.wait(turn(intake))
    assert not transport.read
    await asyncio.sleep(0)
    assert transport.read


async def test_what_comes_while_it_waits_can_be_a_lot(intake, transport):
    intake.wait(turn(intake))
    intake.data = A_LOT
    intake.follow()
    assert not transport.read


async def test_it_is_not_read_between_two_turns_that_it_waits_for(intake, transport, monkeypatch):
    monkeypatch.setattr(rounds, "SHARE_US", 0)  # one item in a turn
    intake.data = A_LOT
    intake.wait(turn(intake, A_LOT))
    await asyncio.sleep(0)
    assert intake.waits
    assert not transport.read
    await asyncio.sleep(0)
    assert not intake.waits
    assert transport.read


@pytest.mark.parametrize("turn_first", [True, False])
async def test_it_is_read_when_neither_a_turn_nor_an_order_stands_against_it(intake, transport, turn_first):
    intake.data = A_LOT
    intake.wait(turn(intake))
    intake.pause()
    intake.pause()
    if turn_first:
        await asyncio.sleep(0)
        assert not transport.read
        intake.resume()
    else:
        intake.resume()
        assert not transport.read
        await asyncio.sleep(0)
    intake.resume()
    assert transport.read


async def test_a_transport_that_closes_gets_no_orders(intake, transport):
    transport.closing = True
    intake.data = A_LOT
    intake.pause()
    intake.wait(turn(intake))
    assert transport.read
    await asyncio.sleep(0)
    assert not intake.waits


def test_little_is_free_and_more_is_taken_from_the_owners_share(intake, memory):
    intake.data = bytes(FREE_BACKLOG)
    assert intake.charge()
    assert memory.left == memory.size
    intake.data += b"x"
    assert intake.charge()
    assert memory.left == memory.size - FREE_BACKLOG - 1
    intake.drop()
    assert not intake.data
    assert memory.left == memory.size


def test_what_is_taken_is_given_back_and_what_is_left_stays_charged(intake, memory):
    intake.data = bytes(range(256)) * 64
    assert intake.charge()
    assert intake.take(4_096) == bytes(range(256)) * 16
    assert len(intake.data) == 12_288
    assert memory.left == memory.size - 12_288
    assert len(intake.take()) == 12_288
    assert not intake.data
    assert memory.left == memory.size


def test_without_a_share_left_nothing_stays_charged(intake, memory):
    intake.data = bytes(memory.size + 1)
    assert not intake.charge()
    assert memory.left == memory.size
    intake.drop()
    assert memory.left == memory.size
