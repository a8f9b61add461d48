"""The control channel: every question gets its own answer, and a peer that is gone is an answer too."""

import asyncio
import socket

import pytest
import uvloop

from gateway.errors import GerbangError
from gateway.process import channel
from gateway.process.channel import Caller, Frames, WorkerFailed, answer


@pytest.fixture
async def pair():
    one, other = socket.socketpair()
    ours, theirs = await Frames.over(one), await Frames.over(other)
    yield ours, theirs
    ours.close()
    theirs.close()


async def serve(theirs, handle):
    return asyncio.get_running_loop().create_task(answer(theirs, handle))


async def test_each_question_gets_its_own_answer_whatever_the_order(pair):
    release = asyncio.Event()

    async def handle(do, message):
        if do == "slow":
            await release.wait()
        return message["value"]

    serving = await serve(pair[1], handle)
    caller = Caller(pair[0])
    slow = asyncio.get_running_loop().create_task(caller.call("slow", timeout_ms=5000, value=1))
    assert await caller.call("quick", timeout_ms=5000, value="é" * 200_000) == "é" * 200_000
    release.set()
    assert await slow == 1
    await caller.close()
    await serving


@pytest.mark.parametrize(("error", "told"), [(GerbangError("port busy"), "port busy"), (KeyError("x"), "KeyError: 'x'")])
async def test_a_failure_is_told_with_its_reason(pair, error, told):
    async def handle(_do, _message):
        raise error

    serving = await serve(pair[1], handle)
    caller = Caller(pair[0])
    with pytest.raises(WorkerFailed, match=told):
        await caller.call("anything", timeout_ms=5000)
    await caller.close()
    await serving


async def test_no_answer_in_time_is_a_failure_and_a_late_one_is_ignored(pair):
    caller = Caller(pair[0])
    with pytest.raises(WorkerFailed, match="did not answer prepare within 10 ms"):
        await caller.call("prepare", timeout_ms=10)
    late = await pair[1].receive()
    await pair[1].send({"id": late["id"], "ok": "late"})
    asked = asyncio.get_running_loop().create_task(caller.call("commit", timeout_ms=5000))
    message = await pair[1].receive()
    await pair[1].send({"id": message["id"], "ok": "in time"})
    assert await asked == "in time"
    await caller.close()


async def test_a_worker_that_dies_fails_every_question(pair):
    caller = Caller(pair[0])
    asked = asyncio.get_running_loop().create_task(caller.call("prepare", timeout_ms=5000))
    await pair[1].receive()
    pair[1].close()
    with pytest.raises(WorkerFailed, match="is gone"):
        await asked
    assert caller.gone
    with pytest.raises(WorkerFailed, match="is gone"):
        await caller.call("commit", timeout_ms=5000)
    await caller.close()


async def test_a_parent_that_dies_ends_the_worker(pair):
    serving = await serve(pair[1], lambda do, message: None)
    pair[0].close()
    await asyncio.wait_for(serving, 5)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_whoever_sends_to_a_peer_that_is_gone_goes_on(new_loop):
    async def send():
        one, other = socket.socketpair()
        frames = await Frames.over(one)
        other.close()
        for _ in range(3):
            await frames.send({"id": 1})
            await asyncio.sleep(0)
        assert await frames.receive() is None
        frames.close()
        await frames.send({"id": 1})

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(send())


async def test_what_is_too_long_to_be_sent_is_a_failure_and_the_channel_goes_on(pair, monkeypatch):
    monkeypatch.setattr(channel, "MAX_FRAME", 1_000)

    async def handle(_do, message):
        return "x" * message["length"]

    serving = await serve(pair[1], handle)
    caller = Caller(pair[0])
    with pytest.raises(WorkerFailed, match="too long"):
        await caller.call("asked at length", timeout_ms=5000, length=1, padding="x" * 1_000)
    with pytest.raises(WorkerFailed, match="too long"):
        await caller.call("answered at length", timeout_ms=5000, length=1_000)
    assert await caller.call("in short", timeout_ms=5000, length=1) == "x"
    await caller.close()
    await serving


@pytest.mark.parametrize("garbage", [b"\x00\x00", b"\x00\x00\x00\x09{", b"\xff\xff\xff\xff"])
async def test_half_a_frame_or_an_absurd_one_is_the_end(garbage):
    one, other = socket.socketpair()
    frames = await Frames.over(one)
    other.sendall(garbage)
    other.close()
    assert await frames.receive() is None
    frames.close()
