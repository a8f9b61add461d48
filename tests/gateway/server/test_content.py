"""Whose content is kept, from when on, and how slowly it may come."""

from typing import NoReturn

import pytest

from gateway.errors import KeyStoreUnavailable, MissingCredentials, Overloaded
from gateway.forward.call import Call
from gateway.http1.body import SHARES, UNVERIFIED, BodyBuffer, Memory
from gateway.runtime.ticker import NEVER
from gateway.server.states import SLOWEST
from tests.gateway.server.test_phases import LIMITS, Talk
from tests.support.inside import connections, remembered
from tests.support.plane import ScriptedGate, serving
from tests.support.wire import recording_upstream

HOST = b"Host: gate.example\r\n"
CODINGS = {
    "by length": (b"Content-Length: 60000\r\n\r\n", b"x" * 60_000),
    "in chunks": (b"Transfer-Encoding: chunked\r\n\r\n", b"ea60\r\n" + b"x" * 60_000 + b"\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_head_that_says_enough_is_refused_before_any_content_is_kept(coding: str) -> None:
    fields, content = CODINGS[coding]
    gate = ScriptedGate(refuse_at_head=MissingCredentials("no"))
    async with serving(gate=gate) as served:
        free = served.plane.worker.memory.left
        client = await served.client()
        client.send(b"POST /trade HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\n" + fields)
        assert (await client.response()).status == 401  # and no 100
        assert served.plane.worker.memory.left == free
        assert gate.admitted == []
        other = await served.client()
        other.send(b"POST /trade HTTP/1.1\r\n" + HOST + fields + content[:100])
        assert (await other.response()).status == 401


@pytest.mark.parametrize("coding", CODINGS)
async def test_the_client_is_not_read_while_its_key_is_looked_up(coding: str) -> None:
    fields, content = CODINGS[coding]
    gate = ScriptedGate(unknown_at_head=1)
    async with recording_upstream() as upstream, serving(upstream, gate=gate) as served:
        client = await served.client()
        client.send(b"POST /trade HTTP/1.1\r\n" + HOST + fields + content[:1_000])
        await served.until(lambda: bool(gate.begun))
        (connection,) = connections(served)
        client.send(content[1_000:])
        assert connection.deadline_ms == NEVER
        assert served.plane.worker.memory.left == served.settings.limits.body_memory_bytes
        gate.looked_up.set()
        assert (await client.response()).status == 200
        assert upstream.requests[0].body == b"x" * 60_000
        assert (await client.ask(b"GET /read HTTP/1.1\r\n" + HOST + b"\r\n")).status == 200


async def test_a_key_that_is_evicted_before_its_waiters_run_is_looked_up_again() -> None:
    gate = ScriptedGate(unknown_at_head=3)
    gate.looked_up.set()
    async with recording_upstream() as upstream, serving(upstream, gate=gate) as served:
        client = await served.client()
        client.send(b"POST /trade HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\n")
        await served.until(lambda: len(gate.begun) == 4)
        client.send(b"body")
        assert (await client.response()).status == 200
        assert upstream.requests[0].body == b"body"


async def test_a_key_that_never_stays_is_refused_as_unavailable() -> None:
    gate = ScriptedGate(unknown_at_head=1_000)
    gate.looked_up.set()
    async with serving(gate=gate) as served:
        client = await served.client()
        client.send(b"POST /trade HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\n")
        assert (await client.response()).status == 503


class Unavailable(ScriptedGate):
    """No store answers."""

    async def resolve(self, _needed: object) -> NoReturn:
        raise KeyStoreUnavailable("try again")


@pytest.mark.parametrize("with_the_head", [0, 2])
async def test_who_is_refused_because_the_key_cannot_be_looked_up_is_read_on(with_the_head: int) -> None:
    async with recording_upstream() as upstream, serving(upstream, gate=Unavailable(unknown_at_head=1)) as served:
        client = await served.client()
        client.send(b"POST /trade HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\n" + b"body"[:with_the_head])
        assert (await client.response()).status == 503
        client.send(b"body"[with_the_head:] + b"GET /read HTTP/1.1\r\n" + HOST + b"\r\n")
        assert (await client.response()).status == 200
        assert [request.line for request in upstream.requests] == [b"GET /read HTTP/1.1"]


async def test_a_client_that_leaves_while_its_key_is_looked_up_leaves_nothing_behind() -> None:
    gate = ScriptedGate(unknown_at_head=1)
    async with serving(gate=gate) as served:
        client = await served.client()
        client.send(b"POST /trade HTTP/1.1\r\n" + HOST + CODINGS["by length"][0])
        await served.until(lambda: bool(gate.begun))
        await client.close()  # not seen yet: the client is not read
        gate.looked_up.set()
        await served.until(lambda: served.metrics.connections == 0)
        assert gate.admitted == []
        assert served.plane.worker.memory.left == served.settings.limits.body_memory_bytes


async def test_content_that_comes_with_its_head_is_decided_at_once() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        assert (await client.ask(b"POST /trade HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\nhi")).status == 200
        assert served.gate.begun == []


def test_each_owner_has_a_share_and_what_is_given_back_is_forgotten() -> None:
    memory = Memory(800)
    share = 800 // SHARES
    first = BodyBuffer(800, -1, memory, ("192.0.2.1", "account a"))
    first.add(bytes(share), keep=True)
    for owners in (("192.0.2.1",), ("192.0.2.2", "account a")):
        with pytest.raises(Overloaded, match="from this client"):
            BodyBuffer(800, -1, memory, owners).add(b"x", keep=True)
    other = BodyBuffer(800, -1, memory, ("192.0.2.2", "account b"))
    other.add(bytes(share), keep=True)
    assert memory.left == 800 - 2 * share
    assert first.whole() == other.whole() == bytes(share)
    assert (memory.left, remembered(memory)) == (800, {})


def test_keys_that_do_not_exist_leave_half_of_the_memory_to_customers() -> None:
    memory = Memory(800)
    for number in range(SHARES // 2):
        BodyBuffer(800, -1, memory, (f"192.0.2.{number}", UNVERIFIED)).add(bytes(800 // SHARES), keep=True)
    with pytest.raises(Overloaded):
        BodyBuffer(800, -1, memory, ("198.51.100.1", UNVERIFIED)).add(b"x", keep=True)
    BodyBuffer(800, -1, memory, ("198.51.100.1", "account a")).add(bytes(800 // SHARES), keep=True)


async def test_one_address_cannot_take_the_memory_of_others() -> None:
    limits = {"max_body_bytes": 131_072, "body_memory_bytes": 1 << 20}
    async with recording_upstream() as upstream, serving(upstream, limits=limits) as served:
        head = b"POST /trade HTTP/1.1\r\n" + HOST + b"Content-Length: 131072\r\n\r\n"
        greedy = [await served.client() for _ in range(4)]
        for client in greedy:
            client.send(head + bytes(131_071))
        statuses = [(await client.response()).status for client in greedy[1:]]
        assert set(statuses) <= {503}
        assert served.plane.worker.memory.left >= (1 << 20) * (SHARES - 1) // SHARES
        honest = await served.client(local_addr=("127.0.0.2", 0))
        assert (await honest.ask(head + bytes(131_072))).status == 200


def test_streamed_content_must_come_faster_than_a_trickle(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk()
    talk.gate.unknown_keys = 0
    talk.connection.data_received(b"POST /public HTTP/1.1\r\nHost: gate\r\nContent-Length: 90000\r\n\r\n")
    monkeypatch.setattr(Call, "feed", lambda *_args, **_last: None)  # an upstream that takes everything
    began_ms = talk.worker.ticker.now_ms
    assert talk.limit_ms == LIMITS["body_timeout_ms"]
    for _ in range(3):
        talk.worker.ticker.now_ms += 100
        talk.connection.data_received(b"x")
    assert talk.connection.deadline_ms == began_ms + LIMITS["body_timeout_ms"] + 3 * 1_000 // SLOWEST
    talk.connection.data_received(bytes(SLOWEST))  # what comes fast enough may go on, up to the whole of the limit
    assert talk.limit_ms == LIMITS["body_timeout_ms"]
