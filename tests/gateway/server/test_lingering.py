"""How long a connection that is ending is still read."""

import asyncio
from typing import cast

import pytest

from gateway.server import lingering as module
from gateway.server.lingering import DONE, DROPPED_AT_MOST, LINGER, STALLED, Lingering

TRANSPORT = cast("asyncio.Transport", object())


@pytest.fixture
def looks(monkeypatch):
    """Drives one through (bytes unsent, time in ms); the idle time-out is 100 ms."""

    def drive(*seen: tuple[int, int]) -> list[int]:
        lingering, sizes = Lingering(), iter(size for size, _ in seen)
        monkeypatch.setattr(module, "unsent", lambda _transport: next(sizes))
        return [lingering.look(TRANSPORT, now_ms, 100) for _, now_ms in seen]

    return drive


def test_it_is_done_when_nothing_was_unsent_a_moment_ago_either(looks):
    assert looks((0, 1_000)) == [DONE]
    assert looks((5, 1_000), (0, 2_000), (0, 3_000)) == [LINGER, LINGER, DONE]


def test_who_reads_slowly_has_time_from_each_byte(looks):
    assert looks((900, 1_000), (899, 1_099), (898, 1_198), (898, 1_297), (898, 1_298)) == [LINGER, LINGER, LINGER, LINGER, STALLED]


def test_who_reads_nothing_is_stalled_after_the_idle_timeout(looks):
    assert looks((9, 1_000), (9, 1_099), (9, 1_100)) == [LINGER, LINGER, STALLED]


def test_so_much_is_dropped_and_no_more():
    lingering = Lingering()
    assert lingering.drop(DROPPED_AT_MOST)
    assert not lingering.drop(1)
