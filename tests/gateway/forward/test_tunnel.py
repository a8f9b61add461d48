"""WebSocket tunnels end to end: opening, bytes both ways, back-pressure, and the end of the key that opened one."""

import asyncio
from collections import Counter

import pytest

from gateway.config.settings import Limits
from gateway.errors import Overloaded, ScopeNotGranted, StoreUnavailable
from gateway.forward import tunnel
from gateway.forward.tunnel import Tunnel, Tunnels
from gateway.runtime import clock
from gateway.runtime.tasks import spawn
from gateway.telemetry import Metrics
from gateway.websocket.frames import FRAMES_AT_ONCE
from tests.support import inside
from tests.support.plane import IDENTITY, ScriptedGate, serving
from tests.support.wire import OK, RawClient, Received, RecordingUpstream, UpstreamSide, answering, recording_upstream

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: gate.example\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nX-API-Key: k\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzhZRbK+xOo=\r\n\r\n"
)


async def switch(side: UpstreamSide, _request: Received) -> None:
    side.send(SWITCHING)
    await asyncio.Event().wait()


async def switch_or_answer(side: UpstreamSide, request: Received) -> None:
    if b"/ws" in request.line:
        await switch(side, request)
    side.send(OK)


async def opened(served, **how) -> RawClient:
    client = await served.client(**how)
    client.send(HANDSHAKE)
    assert (await client.head())[0] == 101
    return client


def side(upstream: RecordingUpstream) -> UpstreamSide:
    return upstream.sides[-1]


async def test_the_handshake_is_admitted_forwarded_and_answered() -> None:
    async with recording_upstream(switch) as upstream, serving(upstream) as served:
        client = await served.client()
        client.send(HANDSHAKE)
        status, headers = await client.head()
        fields = dict(headers)
        assert status == 101
        assert (fields["upgrade"], fields["connection"]) == ("websocket", "Upgrade")
        assert fields["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzhZRbK+xOo="
        assert fields["ratelimit-limit"] == "10"
        received = upstream.requests[0]
        assert received.values(b"connection") == [b"Upgrade"]
        assert received.values(b"upgrade") == [b"websocket"]
        assert received.values(b"sec-websocket-key") == [b"dGhlIHNhbXBsZSBub25jZQ=="]
        assert received.values(b"x-account-id") == [b"account-1"]
        assert received.values(b"x-api-key") == []
        assert len(served.gate.admitted) == 1


async def test_bytes_pass_both_ways_as_they_are() -> None:
    async with recording_upstream(switch) as upstream, serving(upstream) as served:
        client = await opened(served)
        client.send(b"\x81\x85\x00\x00\x00\x00hello")
        assert await side(upstream).reader.readexactly(11) == b"\x81\x85\x00\x00\x00\x00hello"
        side(upstream).send(b"\x81\x02hi\x89\x00")
        assert await client.reader.readexactly(6) == b"\x81\x02hi\x89\x00"
        assert served.metrics.tunnels == 1


async def test_bytes_right_behind_both_handshakes_belong_to_the_tunnel() -> None:
    async def script(side: UpstreamSide, _request: Received) -> None:
        side.send(SWITCHING + b"\x81\x02hi")
        await asyncio.Event().wait()

    async with recording_upstream(script) as upstream, serving(upstream) as served:
        client = await served.client()
        client.send(HANDSHAKE + b"\x81\x80\x00\x00\x00\x00")
        assert (await client.head())[0] == 101
        assert await client.reader.readexactly(4) == b"\x81\x02hi"
        assert await side(upstream).reader.readexactly(6) == b"\x81\x80\x00\x00\x00\x00"


@pytest.mark.parametrize("frame", [b"\x8a\x80\x00\x00\x00\x00", b"\x81\x82\x00\x00\x00\x00hi", b"\x00\x80\x00\x00\x00\x00"])
async def test_a_flood_of_frames_ends_its_tunnel_and_few_large_ones_do_not(frame: bytes) -> None:
    async with recording_upstream(switch) as upstream, serving(upstream) as served:
        client = await opened(served)
        large = b"\x82\xff" + (1 << 20).to_bytes(8, "big") + bytes(4 + (1 << 20))
        client.send(large + frame * (FRAMES_AT_ONCE - 1))
        read = side(upstream).reader.readexactly
        assert await read(len(large)) == large
        await read(len(frame) * (FRAMES_AT_ONCE - 1))
        assert served.metrics.tunnels == 1
        client.send(frame * FRAMES_AT_ONCE)
        end = await client.rest()
        assert end[2:] == b"\x03\xf0more than 1000 frames per second"
        assert served.metrics.tunnels == 0


async def test_an_end_that_closes_closes_the_other() -> None:
    async with recording_upstream(switch) as upstream, serving(upstream) as served:
        client = await opened(served)
        await client.close()
        assert await asyncio.wait_for(side(upstream).reader.read(), 30) == b""
        client = await opened(served)
        side(upstream).close()
        assert await client.rest() == b""
        await served.until(lambda: served.metrics.tunnels == 0)
        assert served.metrics.tunnels_closed == {"client": 1, "upstream": 1}
        assert served.upstreams.pools["spot"].servers[0].active == 0


async def test_a_tunnel_has_no_time_limit() -> None:
    limits = {"idle_timeout_ms": 60, "header_timeout_ms": 60, "body_timeout_ms": 60}
    async with recording_upstream(switch) as upstream, serving(upstream, limits=limits, spot={"response_timeout_ms": 60}) as served:
        client = await opened(served)
        other = await served.client()
        assert await other.rest() == b""  # an idle connection is closed meanwhile
        await asyncio.sleep(0.1)
        side(upstream).send(b"\x81\x02hi")
        assert await client.reader.readexactly(4) == b"\x81\x02hi"


async def test_a_slow_reader_slows_the_other_end() -> None:
    async with recording_upstream(switch) as upstream, serving(upstream) as served:
        client = await opened(served)
        client.pause_reading()
        sent = 0
        frame = b"\x82\x7f" + (1 << 20).to_bytes(8, "big") + b"x" * (1 << 20)
        try:
            async with asyncio.timeout(0.5):
                while sent < 200:
                    side(upstream).send(frame)
                    sent += 1
                    await side(upstream).writer.drain()
        except TimeoutError:
            pass
        assert sent < 100
        client.resume_reading()
        for _ in range(sent):
            assert await client.reader.readexactly(len(frame)) == frame


# -- refused


@pytest.mark.parametrize("behind", [b"", b"GET /read HTTP/1.1\r\nHost: gate.example\r\n\r\n"])
async def test_bytes_behind_a_refused_handshake_are_never_read_as_a_request(behind: bytes) -> None:
    gate = ScriptedGate(refuse=ScopeNotGranted("no"))
    async with recording_upstream() as upstream, serving(upstream, gate=gate) as served:
        client = await served.client()
        client.send(HANDSHAKE + behind)
        response = await client.response()
        assert (response.status, response.header("connection")) == (403, "close")
        client.send(b"GET /read HTTP/1.1\r\nHost: gate.example\r\n\r\n")
        assert await client.rest() == b""
        assert len(gate.routed) == 1
        assert upstream.sides == []


async def test_bytes_behind_a_handshake_that_the_upstream_refuses_are_not_read_either() -> None:
    async with recording_upstream(answering(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")) as upstream, serving(upstream) as served:
        client = await served.client()
        client.send(HANDSHAKE + b"GET /read HTTP/1.1\r\nHost: gate.example\r\n\r\n")
        response = await client.response()
        assert (response.status, response.body, response.header("connection")) == (403, b"no", "close")
        assert await client.rest() == b""
        assert len(upstream.requests) == 1


async def test_an_offer_of_a_websocket_on_another_route_is_ignored_and_the_connection_stays() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        for _ in range(2):  # RFC 9110 §7.8: an offer that is not taken is as if it had not been made
            response = await client.ask(HANDSHAKE.replace(b"/ws", b"/read"))
            assert (response.status, response.header("connection")) == (200, None)
        for received in upstream.requests:
            assert received.values(b"upgrade") == received.values(b"connection") == []


async def test_frames_behind_an_offer_that_is_not_taken_are_no_request() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        client.send(HANDSHAKE.replace(b"/ws", b"/read") + b"\x81\x80\x00\x00\x00\x00")
        assert (await client.response()).status == 200
        assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
        assert len(upstream.requests) == 1


H2C = b"Host: gate.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"


@pytest.mark.parametrize("path", [b"/read", b"/trade", b"/ws"])
@pytest.mark.parametrize("content", [b"\r\n", b"Content-Length: 2\r\n\r\nhi", b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"])
async def test_an_offer_of_another_protocol_is_ignored_and_the_connection_stays(path: bytes, content: bytes) -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        request = b"POST " + path + b" HTTP/1.1\r\n" + H2C + content
        client.send(request + request)  # what stands behind it is another request
        for _ in range(2):
            response = await client.response()
            assert (response.status, response.header("connection")) == (200, None)
        assert (await client.ask(request)).status == 200
        for received in upstream.requests:
            assert received.values(b"upgrade") == received.values(b"connection") == received.values(b"http2-settings") == []


@pytest.mark.parametrize("changed", [(b"HTTP/1.1", b"HTTP/1.0"), (b"GET", b"HEAD"), (b"GET", b"POST")])
async def test_a_tunnel_opens_for_a_get_of_http_1_1_alone(changed: tuple[bytes, bytes]) -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        client.send(HANDSHAKE.replace(*changed).replace(b"keep-alive, ", b""))
        assert (await client.rest()).startswith(b"HTTP/1.1 200 ")
        assert upstream.requests[0].values(b"upgrade") == upstream.requests[0].values(b"connection") == []


async def test_a_handshake_is_not_sent_twice() -> None:
    async def once(side: UpstreamSide, request: Received) -> None:
        if side.raw.count(b" HTTP/1.1\r\n") == 1:
            side.send(OK)
        else:
            side.writer.transport.abort()

    async with recording_upstream(once) as upstream, serving(upstream) as served:
        client = await served.client()
        assert (await client.ask(b"GET /read HTTP/1.1\r\nHost: gate.example\r\n\r\n")).status == 200
        assert (await client.ask(HANDSHAKE)).status == 502
        assert len(upstream.requests) == 2


# -- the key ends


CLOSE_1008 = b"\x03\xf0"


async def closed_with(client: RawClient) -> tuple[int, bytes]:
    """Code and reason of the Close frame that ends the stream."""
    frame = await client.rest()
    assert frame[0] == 0x88
    assert frame[1] == len(frame) - 2
    return int.from_bytes(frame[2:4], "big"), frame[4:]


async def test_a_deleted_keys_tunnels_are_closed_with_1008_on_both_sides() -> None:
    async with recording_upstream(switch) as upstream, serving(upstream) as served:
        client = await opened(served)
        served.valid_keys.clear()
        served.tunnels.invalidated(IDENTITY.key_id)
        assert (await closed_with(client))[0] == 1008
        frame = await asyncio.wait_for(side(upstream).reader.read(), 30)
        assert frame[0] == 0x88
        assert frame[1] & 0x80, "a frame to a server is masked"
        mask, payload = frame[2:6], frame[6:]
        assert bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))[:2] == CLOSE_1008
        assert served.metrics.tunnels == 0


async def test_a_key_deleted_while_the_upstream_answers_the_handshake_closes_the_tunnel_too() -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slowly(side: UpstreamSide, _request: Received) -> None:
        asked.set()
        await answer.wait()
        side.send(SWITCHING)
        await asyncio.Event().wait()

    async with recording_upstream(slowly) as upstream, serving(upstream) as served:
        client = await served.client()
        client.send(HANDSHAKE)
        await asked.wait()
        served.valid_keys.clear()
        served.tunnels.invalidated(IDENTITY.key_id)
        answer.set()
        assert (await client.head())[0] == 101
        assert (await asyncio.wait_for(closed_with(client), 30))[0] == 1008


async def test_a_change_that_leaves_the_key_valid_leaves_its_tunnels() -> None:
    async with recording_upstream(switch) as upstream, serving(upstream) as served:
        client = await opened(served)
        served.tunnels.invalidated(IDENTITY.key_id)
        served.tunnels.invalidated(None)
        served.tunnels.invalidated("gbk_another")
        await asyncio.sleep(0)
        side(upstream).send(b"\x81\x02hi")
        assert await client.reader.readexactly(4) == b"\x81\x02hi"


async def test_when_anything_may_have_changed_every_key_is_looked_up() -> None:
    async with recording_upstream(switch) as upstream, serving(upstream) as served:
        client = await opened(served)
        served.valid_keys.clear()
        served.tunnels.invalidated(None)
        assert (await closed_with(client))[0] == 1008


async def test_a_named_key_that_cannot_be_confirmed_is_closed_but_a_reconnect_without_stores_closes_nothing() -> None:
    async with recording_upstream(switch) as upstream, serving(upstream) as served:
        client = await opened(served)
        served.stores_away.set()
        served.tunnels.invalidated(None)
        await asyncio.sleep(0)
        assert served.metrics.tunnels == 1
        served.tunnels.invalidated(IDENTITY.key_id)
        assert (await closed_with(client))[0] == 1008


class Idle:
    """Both ends of a tunnel, of which only the end matters."""

    tunnel = None

    def write(self, data: bytes) -> None:
        pass

    def close(self) -> None:
        pass


async def test_when_anything_may_have_changed_all_keys_are_looked_up_a_few_at_a_time_until_each_is_confirmed(monkeypatch) -> None:
    """Ten thousand at once would hold up the worker, and most would be refused by the look-up; those stayed open."""
    monkeypatch.setattr(tunnel, "_PAUSE_SECONDS", 0.01)
    keys = [f"k{number}" for number in range(1_000)]
    revoked: set[str] = set()
    asked: Counter[str] = Counter()
    under_way, most = 0, 0
    all_confirmed = asyncio.Event()

    async def still_valid(key_id: str) -> bool:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        asked[key_id] += 1
        if asked[key_id] == 1 and key_id in ("k3", "k500"):
            raise StoreUnavailable("too many")
        if sum(asked.values()) == len(keys) + 2:
            all_confirmed.set()
        return key_id not in revoked

    tunnels = Tunnels(still_valid, Metrics())
    opened = {key_id: Tunnel(Idle(), Idle(), tunnels) for key_id in keys}
    for key_id, each in opened.items():
        tunnels.add(each, key_id, None, tunnels.place(Limits(), key_id, key_id))
    async with asyncio.timeout(30):
        while sum(asked.values()) < len(keys):  # noqa: ASYNC110 - counted here
            await asyncio.sleep(0)
    asked.clear()
    most = 0
    revoked |= {"k3", "k998"}
    tunnels.invalidated(None)
    tunnels.invalidated(None)
    async with asyncio.timeout(30):
        await all_confirmed.wait()
    assert most <= 100
    assert {key_id for key_id, each in opened.items() if each not in tunnels._all} == revoked  # noqa: SLF001


async def test_of_keys_that_change_at_once_a_few_are_looked_up_in_a_turn_and_none_waits_for_another() -> None:
    """Hundreds of look-ups begun in one turn of the loop kept it from a bot's request."""
    keys = [f"k{number}" for number in range(500)]
    begun: Counter[str] = Counter()
    never = asyncio.Event()

    async def still_valid(key_id: str) -> bool:
        begun[key_id] += 1
        if begun[key_id] > 1 and key_id == "k0":
            await never.wait()  # a store that does not answer
        return begun[key_id] == 1

    tunnels = Tunnels(still_valid, Metrics())
    opened = [Tunnel(Idle(), Idle(), tunnels) for _ in keys]
    for key_id, each in zip(keys, opened, strict=True):
        tunnels.add(each, key_id, None, tunnels.place(Limits(), key_id, key_id))
    async with asyncio.timeout(30):
        while sum(begun.values()) < len(keys):  # noqa: ASYNC110 - counted here
            await asyncio.sleep(0)
        most = 0
        for key_id in (*keys, *keys):
            tunnels.invalidated(key_id)
        while inside.remembered(tunnels).keys() != {"k0"}:
            before = sum(begun.values())
            await asyncio.sleep(0)
            most = max(most, sum(begun.values()) - before)
        assert (most, set(begun.values())) == (10, {2})
        tunnels.invalidated("k0")
        while begun["k0"] < 3:  # noqa: ASYNC110 - one that changes again is looked up again
            await asyncio.sleep(0)
    never.set()


async def test_a_tunnel_ends_when_its_key_expires() -> None:
    gate = ScriptedGate(expires_ms=clock.now_ms() + 300)
    async with recording_upstream(switch) as upstream, serving(upstream, gate=gate) as served:
        client = await opened(served)
        assert await closed_with(client) == (1008, b"key expired")


async def test_the_close_frame_waits_for_the_end_of_a_frame_in_progress() -> None:
    async with recording_upstream(switch) as upstream, serving(upstream) as served:
        client = await opened(served)
        side(upstream).send(b"\x81\x0ahalf ")
        assert await client.reader.readexactly(7) == b"\x81\x0ahalf "
        served.valid_keys.clear()
        served.tunnels.invalidated(IDENTITY.key_id)
        await served.until(lambda: bool(served.tunnels.ending))
        side(upstream).send(b"done.\x81\x04more")
        assert (await client.reader.readexactly(5)) == b"done."
        assert (await closed_with(client))[0] == 1008


async def test_a_frame_that_never_ends_is_cut() -> None:
    async with recording_upstream(switch) as upstream, serving(upstream) as served:
        client = await opened(served)
        side(upstream).send(b"\x81\x0ahalf ")
        await client.reader.readexactly(7)
        served.valid_keys.clear()
        served.tunnels.invalidated(IDENTITY.key_id)
        assert await client.rest() == b""
        await served.until(lambda: not served.tunnels.ending)


async def test_draining_says_going_away() -> None:
    async with recording_upstream(switch) as upstream, serving(upstream) as served:
        client = await opened(served)
        draining = spawn(served.plane.drain(30_000), name="drain")
        assert (await closed_with(client))[0] == 1001
        assert await draining


# -- apart from the pool, and bounded


async def test_tunnels_take_nothing_from_what_requests_may_have() -> None:
    async with recording_upstream(switch_or_answer) as upstream, serving(upstream, spot={"max_connections": 1}) as served:
        tunnels = [await opened(served) for _ in range(3)]
        assert (await (await served.client()).ask(b"GET /read HTTP/1.1\r\nHost: gate.example\r\n\r\n")).status == 200
        assert served.metrics.tunnels == len(tunnels)


async def test_a_request_that_waits_gets_the_room_that_a_handshake_leaves() -> None:
    switch = asyncio.Event()

    async def later(side: UpstreamSide, request: Received) -> None:
        if b"/ws" in request.line:
            await switch.wait()
            side.send(SWITCHING)
        else:
            side.send(OK)

    async with recording_upstream(later) as upstream, serving(upstream, spot={"max_connections": 1}) as served:
        client, other = await served.client(), await served.client()
        client.send(HANDSHAKE)
        await upstream.got(1)
        other.send(b"GET /read HTTP/1.1\r\nHost: gate.example\r\n\r\n")
        await served.until(lambda: bool(inside.fair_queue(served).count))
        switch.set()
        assert (await other.response()).status == 200


@pytest.mark.parametrize("limit", ["max_tunnels", "max_tunnels_per_key", "max_tunnels_per_address"])
async def test_tunnels_are_limited_in_all_by_key_and_by_address(limit: str) -> None:
    async with recording_upstream(switch_or_answer) as upstream, serving(upstream, limits={limit: 2}) as served:
        first, _second = await opened(served), await opened(served)
        refused = await (await served.client()).ask(HANDSHAKE)
        assert (refused.status, refused.body) == (503, b"overloaded")
        assert (await (await served.client()).ask(b"GET /read HTTP/1.1\r\nHost: gate.example\r\n\r\n")).status == 200
        await first.close()
        await served.until(lambda: served.metrics.tunnels == 1)
        await opened(served)


async def test_another_address_has_tunnels_of_its_own() -> None:
    async with recording_upstream(switch_or_answer) as upstream, serving(upstream, limits={"max_tunnels_per_address": 1}) as served:
        await opened(served)
        await opened(served, local_addr=("127.0.0.2", 0))


def test_the_networks_of_a_site_have_tunnels_that_others_are_left_some_and_those_with_keys_theirs() -> None:
    async def never(_key_id: str) -> bool:
        return True

    tunnels, limits = Tunnels(never, Metrics()), Limits(max_tunnels=40, max_tunnels_per_address=3)
    places = [tunnels.place(limits, f"2001:db8:1:{number:x}::1", "") for number in range(10)]
    with pytest.raises(Overloaded, match="10 WebSocket connections are already open from your network, 2001:db8:1::/48") as full:
        tunnels.place(limits, "2001:db8:1:ffff::1", "")
    assert full.value.resource == "tunnels_address"
    with_keys = [tunnels.place(limits, f"2001:db8:1:{number:x}::1", f"key {number}") for number in range(10)]
    with pytest.raises(Overloaded, match="from your network"):
        tunnels.place(limits, "2001:db8:1:ffff::1", "key")
    others = [tunnels.place(limits, address, "") for address in ("192.0.2.1", "2001:db8:2::1")]
    places.pop().release()
    places.append(tunnels.place(limits, "2001:db8:1::1", ""))
    with pytest.raises(Overloaded, match="3 WebSocket connections are already open from your IP address"):
        tunnels.place(limits, "2001:db8:1::1", "another key")
    for place in (*places, *with_keys, *others):
        place.release()
    assert inside.places(tunnels) == 0


@pytest.mark.parametrize("answer", [b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", b""])
async def test_a_handshake_that_fails_leaves_its_room(answer: bytes) -> None:
    async with recording_upstream(answering(answer, close=not answer)) as upstream, serving(upstream, limits={"max_tunnels": 1}) as served:
        for _ in range(3):
            assert (await (await served.client()).ask(HANDSHAKE)).status in (403, 502)


async def test_a_client_that_leaves_during_the_handshake_leaves_its_room() -> None:
    async def never(side: UpstreamSide, _request: Received) -> None:
        await side.reader.read()

    async with recording_upstream(never) as upstream, serving(upstream) as served:
        client = await served.client()
        client.send(HANDSHAKE)
        await upstream.got(1)
        assert inside.places(served.tunnels) == 1
        await client.close()
        await served.until(lambda: inside.places(served.tunnels) == 0)


async def test_a_tunnel_on_which_nothing_comes_is_closed() -> None:
    async with recording_upstream(switch_or_answer) as upstream, serving(upstream) as served:
        client = await opened(served)
        (tunnel,) = inside.tunnels(served)
        idle_ms = served.settings.limits.tunnel_idle_timeout_ms
        last_ms = tunnel.active_ms
        served.tunnels.sweep(last_ms + idle_ms - 1, idle_ms)
        assert served.metrics.tunnels == 1
        client.send(b"\x89\x80\x00\x00\x00\x00")  # a ping: heard at the time of the last sweep
        await served.until(lambda: tunnel.active_ms > last_ms)
        inside.sweep_anew(served.tunnels)
        served.tunnels.sweep(last_ms + idle_ms, idle_ms)
        assert served.metrics.tunnels == 1
        inside.sweep_anew(served.tunnels)
        served.tunnels.sweep(last_ms + 2 * idle_ms, idle_ms)
        assert await client.rest() == b"\x88\x06\x03\xe9idle"
        assert served.metrics.tunnels_closed["idle"] == 1
