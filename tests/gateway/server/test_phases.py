"""Every row of the tables in ``phases`` and ``states`` is driven, and leads where the table says."""

import asyncio
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.errors import NoRoute, RequestTimeout, UpstreamUnreachable
from gateway.forward.tunnel import Tunnels
from gateway.http1.body import Memory
from gateway.http1.framing import Framing
from gateway.http1.message import Request
from gateway.http1.response import ResponseHead
from gateway.net.tally import Owners
from gateway.runtime.ticker import NEVER, Ticker
from gateway.server import phases, states
from gateway.server.client_lines import ClientLines
from gateway.server.connection import ClientConnection, ConnectionTracker
from gateway.server.exchange import Exchange
from gateway.server.ports import ClientEnd
from gateway.server.serving import Serving
from gateway.server.states import LINGER_MS
from gateway.server.worker_state import WorkerState
from gateway.telemetry import AccessLog, Metrics
from tests.support import inside
from tests.support.in_memory import AtOnce, NoQueue, Wire
from tests.support.plane import ScriptedGate, settings

LIMITS = {"header_timeout_ms": 1_001, "body_timeout_ms": 1_002, "idle_timeout_ms": 1_003, "max_body_bytes": 100_000}
HEAD = ResponseHead(200, [], 2, b"content-length: 2\r\n", frozenset(), keep_alive=True, dated=False, limited=False, upgrade=b"")


def table(docstring: str | None, columns: int) -> list[list[str]]:
    """The rows of a table whose columns are as wide as the ``=`` above them."""
    lines = (docstring or "").split("\n")
    rules = [index for index, line in enumerate(lines) if re.fullmatch(r"=+( =+)+", line)]
    spans = [match.span() for match in re.finditer(r"=+", lines[rules[0]])]
    assert len(spans) == columns
    rows = [[line[begin:end].strip() for begin, end in spans] for line in lines[rules[1] + 1 : rules[2]]]
    return [row for row in rows if row[0]]


class Client(ClientEnd):
    """Does nothing and remembers it."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.lines = ClientLines()
        self.shared = False

    def write(self, data: bytes) -> None: ...
    def needs_own_turn(self) -> bool:
        return False

    def finish(self, keep_alive: bool, authenticated: bool) -> None:
        self.did.append("finish")

    def upgrade(self, upgraded: object) -> None:
        self.did.append("upgrade")

    def close(self) -> None:
        self.did.append("close")

    def abort(self) -> None:
        self.did.append("abort")

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def pause_content(self) -> None: ...
    def resume_content(self) -> None: ...
    def set_authenticated(self, authenticated: bool) -> None: ...


class Upstream:
    """A pool with one server, on which every request waits for a connection for ever."""

    name = "spot"
    identity_lines = SimpleNamespace(at=lambda _identity, _now_ms: b"")

    def choose(self, _tried: object) -> Any:
        return SimpleNamespace(
            active=0, take=lambda _certain: None, open_for=lambda _call, _certain, _fresh: True, forget=lambda _call: None,
            release_share=lambda _call: None,
        )  # fmt: skip


async def _valid(_key_id: str) -> bool:
    return True


def worker_with(gate: Any, pools: Any) -> WorkerState:
    made = settings({}, limits=LIMITS)
    ticker, metrics = Ticker(), Metrics()
    worker = WorkerState(
        Serving(made, gate, pools, access=AccessLog(0.0)),
        memory=Memory(1 << 20), outbox=AtOnce(), tunnels=Tunnels(_valid, metrics), ticker=ticker, metrics=metrics,
    )  # fmt: skip
    worker.scheduler = NoQueue()
    return worker


class Stage:
    """One exchange, and what a test does to it."""

    def __init__(self) -> None:
        self.gate = ScriptedGate(claim_result=None)
        self.client = Client()
        self.worker = worker_with(self.gate, {"spot": Upstream()})

    def begin(self, path: bytes, length: int = 0) -> Exchange:
        request = Request(b"POST", path, path, None, (), b"", "127.0.0.1", False, 0, "id")
        framing = Framing(length, keep_alive=True, http10=False, host=b"gate")
        self.exchange = Exchange(self.worker, self.worker.serving, self.client, request, framing)
        self.exchange.start()
        return self.exchange

    # -- to a phase

    def receiving(self) -> None:
        self.begin(b"/trade", 4)
        self.exchange.content(b"a", last=False)

    def deciding(self) -> None:
        self.gate.claim_result = asyncio.get_running_loop().create_future()
        self.begin(b"/trade")

    def forwarded(self) -> None:
        self.begin(b"/public", 90_000)

    def responding(self) -> None:
        self.forwarded()
        self.exchange.response_head(HEAD)

    def discarding(self) -> None:
        self.begin(b"/nowhere", 4)

    # -- what happens

    async def more(self) -> None:
        self.exchange.content(b"a", last=False)

    async def end(self) -> None:
        self.exchange.content(b"a", last=True)

    async def claim_first(self) -> None:
        self.gate.claim_result = asyncio.get_running_loop().create_future()
        await self.end()

    async def key_needed(self) -> None:
        self.gate.unknown_at_head = 1
        self.begin(b"/trade", 4)

    async def key_found(self) -> None:
        await self.key_needed()
        self.gate.looked_up.set()
        for _ in range(3):
            await asyncio.sleep(0)

    async def built_in(self) -> None:
        if self.gate.claim_result is None:
            self.begin(b"/time", 4)
            await self.end()
        else:
            self.gate.routes[b"time"] = self.gate.routes[b"time"].__class__("GET /time", scope="read", builtin="time")
            self.begin(b"/time")
            await self.claimed()

    async def refused_at_the_end(self) -> None:
        self.gate.refuse = NoRoute("no")
        await self.end()

    async def refused_at_the_head(self) -> None:
        self.begin(b"/nowhere", 4)

    async def claimed(self) -> None:
        assert self.gate.claim_result is not None
        self.gate.claim_result.set_result(None)
        await asyncio.sleep(0)

    async def not_claimed(self) -> None:
        assert self.gate.claim_result is not None
        self.gate.claim_result.set_exception(NoRoute("no"))
        await asyncio.sleep(0)

    async def out_of_time(self) -> None:
        self.exchange.fail(RequestTimeout("late", close=True))

    async def interim(self) -> None:
        self.exchange.response_interim(HEAD)

    async def switched(self) -> None:
        place = self.worker.tunnels.place(self.worker.serving.limits, "127.0.0.1", "")
        self.exchange._place = place  # noqa: SLF001  # as a handshake has it
        self.exchange.response_switched(HEAD, SimpleNamespace(tunnel=None), b"")  # type: ignore[arg-type]

    async def head(self) -> None:
        self.exchange.response_head(HEAD)

    async def no_response(self) -> None:
        self.exchange.content(bytes(90_000 - 1), last=True)
        self.exchange.response_failed(UpstreamUnreachable("no"))

    async def response_end(self) -> None:
        self.exchange.response_end(b"")

    async def broken(self) -> None:
        self.exchange.response_broken()

    async def gone(self) -> None:
        self.exchange.client_gone()


DRIVERS: dict[tuple[str, str], Callable[[Stage], Any]] = {
    ("RECEIVING", "the content is incomplete"): Stage.more,
    ("RECEIVING", "admitted"): Stage.end,
    ("RECEIVING", "admitted, and answered by the gate itself"): Stage.built_in,
    ("RECEIVING", "a key is looked up, or a signature claimed"): Stage.claim_first,
    ("RECEIVING", "a key is looked up before the content"): Stage.key_needed,
    ("DECIDING", "the key is known, content is accepted"): Stage.key_found,
    ("RECEIVING", "refused"): Stage.refused_at_the_end,
    ("RECEIVING", "refused, little content is still to come"): Stage.refused_at_the_head,
    ("DECIDING", "admitted"): Stage.claimed,
    ("DECIDING", "admitted, and answered by the gate itself"): Stage.built_in,
    ("DECIDING", "refused"): Stage.not_claimed,
    ("FORWARDED", "an interim response"): Stage.interim,
    ("FORWARDED", "a switch of protocols"): Stage.switched,
    ("FORWARDED", "the response's head"): Stage.head,
    ("FORWARDED", "no response"): Stage.no_response,
    ("FORWARDED", "content too slow or too large"): Stage.out_of_time,
    ("RESPONDING", "the response's end"): Stage.response_end,
    ("RESPONDING", "the response breaks off"): Stage.broken,
    ("RESPONDING", "content too slow or too large"): Stage.out_of_time,
    ("DISCARDING", "more of the content"): Stage.more,
    ("DISCARDING", "the content's end"): Stage.end,
    ("DISCARDING", "content too slow"): Stage.out_of_time,
}
NAMES = ["RECEIVING", "DECIDING", "FORWARDED", "RESPONDING", "DISCARDING", "OVER"]
ROWS = [row for row in table(phases.__doc__, 3) if row[0] != "any"]


def test_the_table_is_the_whole_story() -> None:
    assert {(row[0], row[1]) for row in ROWS} == DRIVERS.keys()
    assert [getattr(phases, name) for name in NAMES] == list(range(6))


@pytest.mark.parametrize(("begin", "event", "then"), ROWS)
async def test_a_phase_is_followed_by_the_one_in_the_table(begin: str, event: str, then: str) -> None:
    stage = Stage()
    getattr(stage, begin.lower())()
    assert NAMES[stage.exchange.phase] == begin
    await DRIVERS[begin, event](stage)
    assert NAMES[stage.exchange.phase] == then


@pytest.mark.parametrize("begin", NAMES[:-1])
async def test_a_client_may_go_at_any_time(begin: str) -> None:
    stage = Stage()
    getattr(stage, begin.lower())()
    await stage.gone()
    assert NAMES[stage.exchange.phase] == "OVER"
    assert stage.worker.memory.left == 1 << 20
    assert stage.worker.metrics.aborted == (begin != "DISCARDING")
    if stage.gate.claim_result is not None:
        await stage.claimed()
        assert stage.client.did == []


class Anybody(ConnectionTracker):
    def opened(self, connection: ClientConnection) -> str:
        return ""

    def owners(self, connection: ClientConnection) -> Owners:
        return (connection.peer,)

    def closed(self, connection: ClientConnection) -> None: ...


STATES = ["HEAD", "IDLE", "BODY", "WAITING", "TUNNEL", "ENDING"]


class Talk:
    """One connection whose requests wait for ever, or are refused."""

    def __init__(self) -> None:
        self.gate = ScriptedGate(unknown_keys=99)
        self.worker = worker_with(self.gate, {"spot": Upstream()})
        self.wire = Wire()
        self.connection = ClientConnection(self.worker, Anybody())
        self.connection.connection_made(self.wire)  # type: ignore[arg-type]

    @property
    def state(self) -> str:
        return STATES[inside.state(self.connection)]

    @property
    def limit_ms(self) -> int:
        """What is left until the deadline; 0: there is none."""
        return self.connection.deadline_ms - self.worker.ticker.now_ms if self.connection.deadline_ms != NEVER else 0

    def to(self, state: str) -> None:
        feed = self.connection.data_received
        if state == "IDLE":
            feed(b"GET /nowhere HTTP/1.1\r\nHost: gate\r\n\r\n")
        elif state == "BODY":
            feed(b"POST /trade HTTP/1.1\r\nHost: gate\r\nContent-Length: 9\r\n\r\n1")
        elif state == "WAITING":
            feed(b"GET /read HTTP/1.1\r\nHost: gate\r\n\r\n")
        elif state == "TUNNEL":
            self.to("WAITING")
            self.connection.upgrade(SimpleNamespace(client_data=None, client_full=lambda: None))  # type: ignore[arg-type]
        elif state == "ENDING":
            self.to("IDLE")
            self.connection.close()
        assert self.state == state


LIMIT_OF = {"HEAD": 1_001, "IDLE": 1_003, "BODY": 1_002, "WAITING": 0, "TUNNEL": 0, "ENDING": LINGER_MS}


def test_every_state_is_in_the_table() -> None:
    assert [row[0] for row in table(states.__doc__, 4)] == STATES == list(LIMIT_OF)
    assert [getattr(states, name) for name in STATES] == list(range(6))


@pytest.mark.parametrize("state", STATES)
async def test_a_state_has_its_time_limit(state: str) -> None:
    talk = Talk()
    talk.to(state)
    assert talk.limit_ms == LIMIT_OF[state]


@pytest.mark.parametrize(("state", "limit_ms"), [("BODY", 1_003), ("WAITING", 1_003)])
async def test_a_client_that_does_not_read_has_a_limit_of_its_own_until_it_reads(state: str, limit_ms: int) -> None:
    talk = Talk()
    talk.to(state)
    talk.connection.pause_writing()
    assert talk.limit_ms == limit_ms
    talk.connection.resume_writing()
    assert talk.limit_ms == LIMIT_OF[state]


async def test_content_that_the_upstream_does_not_take_has_no_limit_until_it_does() -> None:
    talk = Talk()
    talk.to("BODY")
    talk.connection.pause_content()
    assert talk.limit_ms == 0
    talk.connection.resume_content()
    assert talk.limit_ms == LIMIT_OF["BODY"]


async def test_only_the_first_byte_of_a_later_head_begins_its_time() -> None:
    talk = Talk()
    talk.to("IDLE")
    talk.connection.data_received(b"GET ")
    assert (talk.state, talk.limit_ms) == ("HEAD", 1_001)
    talk.worker.ticker.now_ms += 500
    talk.connection.data_received(b"/")
    assert talk.limit_ms == 501


@pytest.mark.parametrize(
    ("state", "counted", "answered"),
    [("HEAD", {"idle": 1}, []), ("IDLE", {"idle": 1}, []), ("BODY", {"body": 1}, [b"408"]), ("ENDING", {}, [])],
)
async def test_a_limit_that_has_passed_ends_the_connection(state: str, counted: dict[str, int], answered: list[bytes]) -> None:
    talk = Talk()
    talk.to(state)
    before = len(talk.wire.written)
    talk.connection.expired()
    assert (talk.state, talk.wire.ended) == ("ENDING", True)
    assert talk.wire.written[before:].split(b" ")[1:2] == answered
    assert dict(talk.worker.metrics.timeouts) == counted


async def test_a_connection_lingers_from_when_all_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk()
    talk.to("ENDING")
    left = iter([9_000, 8_000, 0])
    talk.wire.ended = False
    monkeypatch.setattr("gateway.server.lingering.unsent", lambda _transport: next(left, 0))
    for _ in range(3):  # each look finds that the client has read some more
        talk.worker.ticker.now_ms += LINGER_MS
        talk.connection.expired()
        assert (talk.wire.ended, talk.limit_ms) == (False, LINGER_MS)
    talk.connection.expired()
    assert talk.wire.ended
    assert dict(talk.worker.metrics.timeouts) == {}


async def test_a_client_that_reads_nothing_of_the_end_is_dropped_after_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk()
    talk.to("ENDING")
    talk.wire.ended = False
    monkeypatch.setattr("gateway.server.lingering.unsent", lambda _transport: 9_000)
    talk.connection.expired()
    talk.worker.ticker.now_ms += LIMITS["idle_timeout_ms"] - 1
    talk.connection.expired()
    assert not talk.wire.ended
    talk.worker.ticker.now_ms += 1
    talk.connection.expired()
    assert talk.wire.ended
    assert dict(talk.worker.metrics.timeouts) == {"write": 1}


async def test_a_head_that_has_begun_is_answered_408() -> None:
    talk = Talk()
    talk.connection.data_received(b"GET /")
    talk.connection.expired()
    assert talk.wire.written.startswith(b"HTTP/1.1 408 ")
    assert dict(talk.worker.metrics.timeouts) == {"header": 1}


@pytest.mark.parametrize("state", ["BODY", "WAITING"])
async def test_a_client_that_never_reads_again_is_dropped_without_a_word(state: str) -> None:
    talk = Talk()
    talk.to(state)
    before = talk.wire.written
    talk.connection.pause_writing()
    talk.connection.expired()
    assert talk.wire.ended
    assert talk.wire.written == before
    assert dict(talk.worker.metrics.timeouts) == {"write": 1}
