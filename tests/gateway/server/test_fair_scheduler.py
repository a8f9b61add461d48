"""Who is read when: turns by address, a share of each turn of the loop, and turns without strangers after long ones."""

import asyncio
import os
from collections.abc import Callable

import pytest

from gateway.net.addresses import owners
from gateway.net.tally import Owners
from gateway.runtime import clock
from gateway.server import fair_scheduler as module
from gateway.server.connection import SLICE
from gateway.server.fair_scheduler import MAX_SKIPPED_TURNS, FairScheduler
from gateway.websocket.frames import BINARY, frame
from tests.support import inside
from tests.support.inside import connections
from tests.support.plane import ScriptedGate, ScriptedRoute, serving
from tests.support.session import switching
from tests.support.wire import OK, Received, UpstreamSide, recording_upstream


class Time:
    """Both clocks, in nanoseconds: each item takes as long as it says."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000

    def passes(self, nanoseconds: int) -> None:
        self.now_ns += nanoseconds


@pytest.fixture
def time(monkeypatch) -> Time:
    made = Time()
    monkeypatch.setattr(clock, "monotonic_ns", lambda: made.now_ns)
    monkeypatch.setattr(clock, "processor_ns", lambda: made.now_ns)
    return made


class Turns:
    """What is done in which turn of the loop."""

    def __init__(self, time: Time, scheduler: FairScheduler) -> None:
        self.done: list[str] = []
        self._time, self._scheduler = time, scheduler

    def wait(self, owner: str, name: str, takes_ns: int = 0) -> None:
        def item() -> None:
            self.done.append(name)
            self._time.passes(takes_ns)

        self._scheduler.schedule(owners(owner), item)

    async def turn(self) -> list[str]:
        """What the next turn does."""
        self.done.clear()
        await asyncio.sleep(0)
        return list(self.done)


async def test_in_one_turn_there_is_a_share_for_what_comes_at_once(time):
    scheduler = FairScheduler()
    assert scheduler.may_run()
    time.passes(module.BUDGET_NS - 1)
    assert scheduler.may_run()
    time.passes(1)
    assert not scheduler.may_run()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert scheduler.may_run()


async def test_of_a_short_turn_the_processor_time_is_not_read_again(time, monkeypatch):
    read = []
    monkeypatch.setattr(clock, "processor_ns", lambda: read.append(time.now_ns) or time.now_ns)
    scheduler = FairScheduler()
    for _ in range(3):
        assert scheduler.may_run()
        time.passes(module.TURN_NS - 1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert len(read) == 3


async def test_bytes_count_for_what_reading_them_took(time):
    scheduler = FairScheduler()
    assert scheduler.may_run(256)
    assert not scheduler.may_run(module.BUDGET_NS << 1)


async def test_addresses_take_turns_whoever_has_more_to_ask(time):
    scheduler = FairScheduler()
    turns = Turns(time, scheduler)
    for number in range(4):
        turns.wait("greedy", f"greedy {number}")
    turns.wait("other", "other 0")
    assert await turns.turn() == ["greedy 0", "other 0", "greedy 1", "greedy 2", "greedy 3"]
    assert scheduler.deferred == 5


async def test_networks_of_a_site_take_turns_at_its_turns(time):
    scheduler = FairScheduler()
    turns = Turns(time, scheduler)
    for network in range(3):
        for number in range(2):
            turns.wait(f"2001:db8:1:{network}::1", f"{network} {number}")
    for address in ("192.0.2.1", "2001:db8:2::1"):
        turns.wait(address, address)
    assert await turns.turn() == ["0 0", "192.0.2.1", "2001:db8:2::1", "1 0", "2 0", "0 1", "1 1", "2 1"]
    turns.wait("2001:db8:1::1", "again")
    assert await turns.turn() == ["again"]


async def test_who_comes_waits_behind_those_who_wait(time):
    scheduler = FairScheduler()
    turns = Turns(time, scheduler)
    for number in range(2):
        turns.wait("a", f"a {number}", module.BUDGET_NS)
    assert not scheduler.may_run()
    assert await turns.turn() == ["a 0"]
    assert not scheduler.may_run()
    assert await turns.turn() == ["a 1"]
    await turns.turn()
    assert scheduler.may_run()


async def test_a_long_turn_is_made_up_for_by_turns_without_strangers(time):
    scheduler = FairScheduler()
    turns = Turns(time, scheduler)
    turns.wait("a", "long", 3 * module.TURN_NS)
    turns.wait("a", "next")
    assert await turns.turn() == ["long"]
    waited = 0
    while not await turns.turn():
        time.passes(module.TURN_NS // 2)
        assert not scheduler.may_run()
        waited += 1
    assert waited == 4  # each gives half a turn back of the two that it was too long by
    assert scheduler.long_ns == 0


async def test_however_long_turns_are_strangers_get_on(time):
    scheduler = FairScheduler()
    turns = Turns(time, scheduler)
    for number in range(3):
        turns.wait("a", f"item {number}")
    assert len(await turns.turn()) == 3
    turns.wait("a", "late")
    time.passes(module.LONG_NS + 1)
    waited = 0
    while not await turns.turn():
        time.passes(module.LONG_NS + 1)
        waited += 1
    assert waited == MAX_SKIPPED_TURNS
    assert scheduler.long_ns == (MAX_SKIPPED_TURNS + 1) * (module.LONG_NS + 1)


async def test_what_fills_a_turn_is_alone_in_it_and_the_turns_behind_it_are_watched(time):
    scheduler = FairScheduler()
    turns = Turns(time, scheduler)

    def start() -> None:
        scheduler.close_turn()
        turns.done.append("start")

    assert scheduler.may_run()
    scheduler.close_turn()
    assert not scheduler.may_run()
    scheduler.schedule(("a",), start)
    turns.wait("b", "b")
    assert await turns.turn() == ["start"]
    assert await turns.turn() == ["b"]
    time.passes(module.LONG_NS + 1)  # what the start has led to
    await turns.turn()
    assert scheduler.long_ns == module.LONG_NS + 1
    turns.wait("c", "c")
    assert await turns.turn() == []


async def test_what_awaits_its_turn_is_charged_what_it_will_take_and_may_be_given_up(time):
    scheduler = FairScheduler()
    first, second, third = (scheduler.wait_turn((owner,), module.BUDGET_NS) for owner in ("a", "b", "c"))
    second.cancel()
    for done in ([True, True, False], [True, True, False], [True, True, True]):
        await asyncio.sleep(0)
        assert [each.done() for each in (first, second, third)] == done


async def test_a_defect_in_one_item_does_not_stop_the_others(time):
    scheduler = FairScheduler()
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["exception"]))
    scheduler.schedule(("a",), lambda: 1 / 0)
    scheduler.schedule(("b",), lambda: told.append("b"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert isinstance(told[0], ZeroDivisionError)
    assert told[1:] == ["b"]


# -- through the data plane: what a customer waits for


FLOOD = b"GET /nothing HTTP/1.1\r\nHost: gate\r\n\r\n"
HANDSHAKE = (
    b"GET /open HTTP/1.1\r\nHost: gate\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
READ = b"GET /read HTTP/1.1\r\nHost: gate\r\n\r\n"


@pytest.mark.parametrize("connections", [1, 20])
async def test_a_flood_of_strangers_is_one_item_in_each_turn_of_a_customers_request(monkeypatch, connections):
    """However many requests of strangers lie in the gate's sockets when a customer's comes, few are answered before it."""
    monkeypatch.setattr(module, "BUDGET_NS", 0)
    async with recording_upstream() as upstream, serving(upstream) as served:
        customer = await served.client()
        assert (await customer.ask(READ)).status == 200
        strangers = [await served.client() for _ in range(connections)]
        for stranger in strangers:
            stranger.send(FLOOD * (400 // connections))
        assert (await customer.ask(READ)).status == 200  # sent before the gate has had a turn
        assert served.metrics.refused["no_route"] < 60
        for stranger in strangers:
            for _ in range(400 // connections):
                assert (await stranger.response()).status == 404


@pytest.mark.parametrize("body", [b"", b"x"])
async def test_behind_a_proxy_clients_take_turns_over_however_many_connections_their_requests_come(monkeypatch, body):
    monkeypatch.setattr(module, "BUDGET_NS", 0)

    def asked_by(client: str) -> bytes:
        head = b"POST /public HTTP/1.1\r\nHost: gate\r\nX-Forwarded-For: %b\r\nContent-Length: %d\r\n\r\n"
        return head % (client.encode(), len(body)) + body

    async with recording_upstream() as upstream, serving(upstream, client_ip={"trusted_proxies": ("127.0.0.0/8",)}) as served:
        connections = [await served.client() for _ in range(20)]
        await served.until(lambda: served.metrics.connections == 20)
        scheduler = served.plane.worker.scheduler
        scheduler.schedule(("another",), lambda: None)
        for number, connection in enumerate(connections):
            os.write(connection.writer.get_extra_info("socket").fileno(), asked_by("203.0.113.7" if number == 19 else "203.0.113.66"))
        for connection in connections:
            assert (await connection.response()).status == 200
        order = [request.field_lines(b"x-forwarded-for")[0] for request in served.gate.admitted]
        assert len(order) == 20
        assert order.index(b"203.0.113.7") <= 2


async def test_a_client_that_goes_before_its_turn_to_be_decided_is_not_decided(monkeypatch):
    async with recording_upstream() as upstream, serving(upstream, client_ip={"trusted_proxies": ("127.0.0.0/8",)}) as served:
        client = await served.client()
        await served.until(lambda: served.metrics.connections == 1)
        held = Held()
        monkeypatch.setattr(served.plane.worker, "scheduler", held)
        (connection,) = inside.connections(served)
        inside.read_head(connection, b"POST /public HTTP/1.1\r\nHost: gate\r\n\r\n")
        await client.close()
        await served.until(lambda: served.metrics.connections == 0)
        (item,) = held.items
        item()
        assert served.gate.admitted == []


async def test_nor_does_a_flood_get_more_by_having_filled_its_share_of_memory(monkeypatch):
    """What can no longer be held is not read instead: it is cut off behind its first request."""
    monkeypatch.setattr(module, "BUDGET_NS", 0)
    limits = {"body_memory_bytes": 1 << 20, "max_body_bytes": 131_072}
    async with recording_upstream() as upstream, serving(upstream, limits=limits) as served:
        memory = served.plane.worker.memory
        customer = await served.client()
        assert (await customer.ask(READ)).status == 200
        strangers = [await served.client() for _ in range(12)]
        for stranger in strangers:
            stranger.send(FLOOD * 1_500)
        assert (await customer.ask(READ)).status == 200
        assert served.metrics.refused["no_route"] < 60
        assert served.metrics.resource_refused["body_memory_share"] > 0
        for stranger in strangers:
            await stranger.close()
        await served.until(lambda: memory.left == memory.size)


@pytest.mark.parametrize("proven", [False, True])
async def test_small_chunks_are_read_in_slices(monkeypatch, proven):
    """By whoever sends them: what a request costs to read is not decided by who sent the last one."""
    monkeypatch.setattr(module, "BUDGET_NS", 0)
    head = b"POST /trade HTTP/1.1\r\nHost: gate\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        client.send((READ if proven else FLOOD) + head + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n" + READ)
        assert [(await client.response()).status for _ in range(3)] == [200 if proven else 404, 200, 200]
        assert [request.body for request in upstream.requests][-2:] == [b"x" * 20_000, b""]
        assert served.plane.worker.scheduler.deferred >= 6 * 20_000 // SLICE


async def test_what_waits_is_answered_whole_and_in_its_order(monkeypatch):
    """Contents, chunks and heads behind one another, on connections that all wait for their turns."""
    monkeypatch.setattr(module, "BUDGET_NS", 0)
    body = b"POST /public HTTP/1.1\r\nHost: gate\r\nContent-Length: 3000\r\n\r\n" + b"x" * 3_000
    chunks = b"POST /public HTTP/1.1\r\nHost: gate\r\nTransfer-Encoding: chunked\r\n\r\n" + b"5\r\nhello\r\n" * 40 + b"0\r\n\r\n"
    async with recording_upstream() as upstream, serving(upstream) as served:
        clients = [await served.client() for _ in range(5)]
        for client in clients:
            client.send((body + FLOOD + chunks + READ) * 5)
        for client in clients:
            assert [(await client.response()).status for _ in range(20)] == [200, 404, 200, 200] * 5
        assert served.plane.worker.scheduler.deferred > 0
        assert sorted(len(request.body) for request in upstream.requests) == sorted([3_000, 200, 0] * 25)


async def test_a_tunnel_of_strangers_passes_in_slices_and_whole(monkeypatch):
    monkeypatch.setattr(module, "BUDGET_NS", 0)
    served_gate = ScriptedGate()
    served_gate.routes[b"open"] = ScriptedRoute("GET /open", scope="public", websocket=True)
    sent = b"".join(frame(BINARY, bytes([number]) * 30_000, mask=b"abcd") for number in range(20))

    async def script(side: UpstreamSide, request: Received) -> None:
        side.send(switching(request))
        side.raw = b""
        await side.take(side.reader.readexactly(len(sent)))
        side.send(frame(BINARY, b"all"))

    async with recording_upstream(script) as upstream, serving(upstream, gate=served_gate) as served:
        client = await served.client()
        client.send(HANDSHAKE)
        assert (await client.head())[0] == 101
        before = served.plane.worker.scheduler.deferred
        client.send(sent)
        assert await client.reader.readexactly(5) == frame(BINARY, b"all")
        assert upstream.sides[0].raw == sent
        assert served.plane.worker.scheduler.deferred - before >= len(sent) // SLICE - 10  # the first of each read had none to wait for


async def test_what_is_sent_behind_a_request_that_has_no_answer_yet_is_read_in_turns(monkeypatch):
    monkeypatch.setattr(module, "BUDGET_NS", 0)
    gone = asyncio.Event()

    async def script(side: UpstreamSide, _request: Received) -> None:
        await gone.wait()
        side.send(OK)

    async with recording_upstream(script) as upstream, serving(upstream) as served:
        client = await served.client()
        client.send(READ)
        await upstream.got(1)
        scheduler = served.plane.worker.scheduler
        before = scheduler.deferred
        client.send(READ * 200)
        await served.until(lambda: scheduler.deferred > before)
        gone.set()
        assert [(await client.response()).status for _ in range(201)] == [200] * 201


async def test_who_was_refused_and_goes_on_sending_is_read_in_turns_and_told_all_the_same(monkeypatch):
    monkeypatch.setattr(module, "BUDGET_NS", 0)
    async with serving() as served:
        client = await served.client()
        client.send(b"POST /nothing HTTP/1.1\r\nHost: gate\r\nContent-Length: 3000000\r\n\r\n" + bytes(3_000_000))
        assert (await client.response()).status == 404
        assert await client.rest() == b""
        assert served.plane.worker.scheduler.deferred > 0


async def test_a_connection_that_waits_for_its_turn_is_not_idle_and_not_late(monkeypatch):
    monkeypatch.setattr(module, "BUDGET_NS", 0)
    async with serving(limits={"header_timeout_ms": 100, "idle_timeout_ms": 100}) as served:
        scheduler = served.plane.worker.scheduler
        monkeypatch.setattr(served.plane.worker, "scheduler", held := Held())
        client = await served.client()
        client.send(FLOOD)
        await served.until(lambda: bool(held.items))
        (connection,) = connections(served)
        assert not connection.idle
        connection.expired()
        assert served.metrics.timeouts == {}
        monkeypatch.setattr(served.plane.worker, "scheduler", scheduler)
        held.items[0]()
        assert (await client.response()).status == 404


async def test_a_connection_waits_for_one_turn_at_a_time(monkeypatch):
    """Also when the end of a request's content comes together with the next request."""
    async with serving() as served:
        monkeypatch.setattr(served.plane.worker, "scheduler", held := Held())
        client = await served.client()
        client.send(b"POST /nothing HTTP/1.1\r\nHost: gate\r\nContent-Length: 1\r\n\r\n")
        await served.until(lambda: bool(held.items))
        held.items.pop()()
        assert (await client.response()).status == 404
        client.send(b"x" + FLOOD)
        await served.until(lambda: bool(held.items))
        assert len(held.items) == 1
        held.items.pop()()
        assert (await client.response()).status == 404
        assert held.items == []


class Held(FairScheduler):
    """Nobody's turn comes."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[Callable[[], None]] = []

    def may_run(self, size: int = 0) -> bool:
        return False

    def schedule(self, owners: Owners, item: Callable[[], None]) -> None:
        self.items.append(item)


async def test_whose_last_request_was_admitted_with_a_key_waits_for_no_turn(monkeypatch):
    waited: list[Owners] = []
    schedule = FairScheduler.schedule

    def noted(scheduler: FairScheduler, owners: Owners, item: Callable[[], None]) -> None:
        waited.append(owners)
        schedule(scheduler, owners, item)

    monkeypatch.setattr(FairScheduler, "may_run", lambda _self, _size=0: False)
    monkeypatch.setattr(FairScheduler, "schedule", noted)
    time = READ.replace(b"/read", b"/time")
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        for request, turns in ((READ, 1), (READ, 1), (time, 1), (READ, 2), (READ, 2)):
            assert (await client.ask(request)).status == 200
            assert len(waited) == turns


async def test_what_is_held_behind_requests_takes_the_clients_share_of_memory():
    """As contents do: who sends a lot behind requests that take long is cut off, others are not, and all of it is given back."""
    gone = asyncio.Event()

    async def script(side: UpstreamSide, _request: Received) -> None:
        await gone.wait()
        side.send(OK)

    limits = {"body_memory_bytes": 1 << 20, "max_body_bytes": 131_072}
    async with recording_upstream(script) as upstream, serving(upstream, limits=limits) as served:
        memory = served.plane.worker.memory
        clients = [await served.client() for _ in range(4)]
        for client in clients:
            client.send(READ + READ * 1_500)
        refused = served.metrics.resource_refused
        await served.until(lambda: refused["body_memory_share"] >= 2)
        other = await served.client(local_addr=("127.0.0.2", 0))
        other.send(READ * 200)
        await served.until(lambda: len(upstream.requests) >= 3)
        gone.set()
        assert [(await other.response()).status for _ in range(200)] == [200] * 200
        for client in clients:
            await client.close()
        await served.until(lambda: memory.left == memory.size)
