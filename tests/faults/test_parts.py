"""A worker dies, an upstream dies, hangs or talks nonsense: under load, request by request."""

import os
import signal
from collections import Counter

import pytest

from tests.support.wire import answering, recording_upstream

pytestmark = pytest.mark.xdist_group("faults")

KINDS = ("read", "trade 1", "trade 2")


def lost(load) -> Counter[str]:
    return Counter({kind: load.outcomes(kind)["lost"] for kind in (*KINDS, "forged")})


async def test_a_worker_is_killed(start, load, tell):
    async with start() as gateway, load(gateway) as running:
        victim, _other = await gateway.worker_pids()
        os.kill(victim, signal.SIGKILL)
        await gateway.event("worker_restarted")
        for kind in KINDS:
            await running.some(kind, 20, "200")
    for kind in (*KINDS, "forged"):
        expected = "invalid_credentials" if kind == "forged" else "200"
        assert set(running.outcomes(kind)) <= {expected, "lost"}, running.table()
    # Each client has one request in flight at most, and the queue of the dead worker's socket is not lost.
    assert lost(running).total() <= 5, running.table()
    tell("a worker killed", running)


async def test_one_of_two_servers_is_killed(start, load, upstream, tell):
    async with recording_upstream() as other:
        more = f'[upstreams.pair]\nservers = ["{upstream.url}", "{other.url}"]'
        async with start(more=more, pool="pair") as gateway, load(gateway) as running:
            await other.stop()
            for kind in KINDS:
                await running.some(kind, 50, "200")
    assert set(running.outcomes("read")) == {"200"}, running.table()
    for kind in KINDS[1:]:
        # What was in flight on the dead server is not sent twice.
        assert running.outcomes(kind)["upstream_unreachable"] <= 1, running.table()
    tell("one of two servers killed", running)


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (answering(b"HTTP/1.1 2oo OK\r\n\r\n", close=True), "upstream_unreachable"),
        (answering(b"\x00\x01\x02garbage\r\n\r\n", close=True), "upstream_unreachable"),
        (answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", close=True), "upstream_unreachable"),
        (answering(b"", close=True), "upstream_unreachable"),
        (answering(b""), "upstream_timeout"),
    ],
    ids=["bad status", "garbage", "two lengths", "closed", "silent"],
)
async def test_an_upstream_misbehaves_and_recovers(start, load, upstream, request, tell, *, script, code):
    healthy = upstream.script
    limit = "response_timeout_ms = 300" if code == "upstream_timeout" else ""  # a busy machine is not to reach it elsewhere
    async with start(of_upstreams=limit) as gateway, load(gateway) as running:
        upstream.script = script
        for kind in KINDS:
            await running.until(kind, code)
        upstream.script = healthy
        for kind in KINDS:
            await running.some(kind, 5, "200")
    for kind in KINDS:
        assert set(running.outcomes(kind)) <= {"200", code, "upstream_unavailable"}, running.table()
    assert set(running.outcomes("forged")) == {"invalid_credentials"}
    tell(f"upstream: {request.node.callspec.id}", running)
