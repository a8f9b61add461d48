"""A connection leaves nothing behind that only the garbage collector frees: it lives long, so only a full collection would."""

import asyncio
from typing import Any

import pytest

from gateway.admission.driver import MAX_LOOKUPS
from gateway.errors import ReplayedRequest
from gateway.net.addresses import NetworkList
from tests.support.garbage import none_of_the_gateway
from tests.support.plane import ScriptedGate, serving
from tests.support.session import conversation
from tests.support.wire import RawClient, Received, UpstreamSide, recording_upstream

HEAD = b"GET /read HTTP/1.1\r\nHost: a\r\n"


async def unframable(side: UpstreamSide, _request: Received) -> None:
    side.send(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n")


async def endless(side: UpstreamSide, _request: Received) -> None:
    side.send(b"HTTP/1.1 200 OK\r\nContent-Len")


async def in_chunks(side: UpstreamSide, _request: Received) -> None:
    side.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n")


async def answered(client: RawClient) -> None:
    await client.response()


async def held(_client: RawClient) -> None:
    pass


CONNECTIONS: dict[str, tuple[bytes, Any, Any]] = {
    "answered": (HEAD + b"\r\n", None, answered),
    "of a head of its own": (HEAD + b"X-Own: 1\r\n\r\n", None, answered),
    "with half a head": (HEAD, None, held),
    "with a refused head": (HEAD + b"Host: b\r\n\r\n", None, answered),
    "with half a body": (b"POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf", None, held),
    "with a wrong chunk": (b"POST /trade HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", None, answered),
    "to a service that answers in chunks": (HEAD + b"\r\n", in_chunks, answered),
    "to a service that cannot be framed": (HEAD + b"\r\n", unframable, answered),
    "given up": (HEAD + b"\r\n", endless, held),
}


@pytest.mark.parametrize(("data", "script", "read"), CONNECTIONS.values(), ids=CONNECTIONS)
async def test_a_connection_is_freed_when_it_ends(data: bytes, script: Any, read: Any) -> None:
    async with recording_upstream(*[script] * (script is not None)) as upstream, serving(upstream) as served:
        with none_of_the_gateway():
            client = await served.client()
            client.send(data)
            await served.until(lambda: served.metrics.connections == 1)
            if script is not None:
                await served.until(lambda: bool(upstream.requests))
            await read(client)
            await client.close()
            await served.until(lambda: served.metrics.connections == 0 and not served.upstreams.pools["spot"].servers[0].active)


@pytest.mark.parametrize(("unknown", "status"), [(3, 200), (MAX_LOOKUPS + 1, 503)])
async def test_a_request_that_waited_for_its_key_is_freed(unknown: int, status: int) -> None:
    gate = ScriptedGate()
    gate.looked_up.set()
    async with recording_upstream() as upstream, serving(upstream, gate=gate) as served:
        client = await served.client()
        with none_of_the_gateway():
            gate.unknown_keys = unknown
            assert (await client.ask(HEAD + b"\r\n")).status == status
            gate.unknown_keys = 0
            gate.admitted.clear()
            assert (await client.ask(HEAD + b"\r\n")).status == 200  # nothing of the first is in use any more
            gate.admitted.clear()


async def test_a_request_whose_signature_was_used_before_is_freed() -> None:
    gate = ScriptedGate()
    async with recording_upstream() as upstream, serving(upstream, gate=gate) as served:
        client = await served.client()
        with none_of_the_gateway():
            gate.claim_result = asyncio.get_running_loop().create_future()
            gate.claim_result.set_exception(ReplayedRequest("again"))
            assert (await client.ask(HEAD + b"\r\n")).status == ReplayedRequest.status
            gate.claim_result = None
            gate.admitted.clear()
            assert (await client.ask(HEAD + b"\r\n")).status == 200
            gate.admitted.clear()


@pytest.mark.parametrize("dialect", ["mobee", "binance"])
async def test_a_session_of_refused_messages_is_freed_when_it_ends(dialect: str) -> None:
    async with conversation() as talk:
        with none_of_the_gateway():
            client, _ = await talk.open(dialect)
            client.send(b'{"id":1,"method":"unlisted"}', b"{nonsense")
            for _ in range(2):
                await client.message()
            await client.raw.close()
            await talk.served.until(lambda: talk.served.metrics.connections == 0)


def test_a_list_of_networks_is_freed_when_a_reload_replaces_it() -> None:
    with none_of_the_gateway():
        assert not NetworkList([]).contains("192.0.2.1")
