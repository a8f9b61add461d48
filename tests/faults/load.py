"""Clients of several kinds that never stop asking while something breaks, and a record of every answer."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from deploy.signing import SigningKey, sign
from gateway.keys.record import KeyRecord
from gateway.runtime import clock
from tests.support.running import PATIENCE, RunningGateway
from tests.support.wire import RawClient

PAUSE = 0.01
"""Seconds between an answer and the next request of the same client: bounds the load on the machine."""


class Seen(NamedTuple):
    """One request's end: the kind of client, ``200`` or the refusal's code or ``lost``, when it was sent and answered (ms)."""

    kind: str
    outcome: str
    sent_ms: int
    answered_ms: int


class Client(NamedTuple):
    """What one kind of client sends."""

    kind: str
    method: str
    path: str
    key: KeyRecord
    forged: bool = False
    """Signs with another secret."""
    now_ms: Callable[[], int] = clock.now_ms
    """The clock that it signs by."""
    repeats: bytes = b""
    """Sends these bytes again and again; nothing is signed."""


class Load:
    """Runs clients against a gateway. ``async with Load(gateway, clients) as load``; scenarios wait for what they must see."""

    def __init__(self, gateway: RunningGateway, clients: list[Client]) -> None:
        self.seen: list[Seen] = []
        self._gateway = gateway
        self._clients = clients
        self._more = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = False

    async def __aenter__(self) -> "Load":
        clients, self._clients = self._clients, []
        for client in clients:
            self.add(client)
        for client in clients:
            if not client.forged:
                await self.until(client.kind, "200")
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    def add(self, client: Client) -> None:
        """Let one more client ask."""
        self._clients.append(client)
        self._tasks.append(asyncio.get_running_loop().create_task(self._run(client)))

    async def until(self, kind: str, *outcomes: str) -> Seen:
        """Wait for a request of this kind, sent from now on, that ends in one of these ways."""
        return (await self.some(kind, 1, *outcomes))[0]

    async def some(self, kind: str, count: int, *outcomes: str) -> list[Seen]:
        """Wait for that many requests of this kind, sent from now on, with these outcomes (any, when none are named)."""
        now_ms, earlier = clock.monotonic_ms(), len(self.seen)

        def found() -> list[Seen]:
            return [
                one
                for one in self.seen[earlier:]
                if one.kind == kind and one.sent_ms >= now_ms and (not outcomes or one.outcome in outcomes)
            ]

        async with self._more:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._more.wait_for(lambda: len(found()) >= count)
            except TimeoutError:
                raise AssertionError(f"{kind} never ended in {outcomes or 'anything'}: {self.table()}\n{self._gateway.told()}") from None
        return found()[:count]

    async def until_counted(self, sample: str, *, more_than: float = 0) -> float:
        """Wait until a metric of the gateway is above a number."""
        try:
            async with asyncio.timeout(PATIENCE):
                while (value := await self._gateway.metric(sample)) <= more_than:
                    await self.some(self._clients[0].kind, 1)
        except TimeoutError:
            raise AssertionError(f"{sample} stayed at {value}: {self.table()}\n{self._gateway.told()}") from None
        return value

    def outcomes(self, kind: str) -> Counter[str]:
        """How requests of a kind ended."""
        return Counter(one.outcome for one in self.seen if one.kind == kind)

    def admitted_after(self, kind: str, moment_ms: int) -> int:
        """For how many milliseconds after this moment requests of a kind were let through."""
        return max([0, *(one.sent_ms - moment_ms for one in self.seen if one.kind == kind and one.outcome == "200")])

    def slowest_ms(self, kind: str) -> int:
        """The longest that a request of a kind took."""
        return max(one.answered_ms - one.sent_ms for one in self.seen if one.kind == kind)

    def row(self, what: str, note: str) -> str:
        """One line of the table that ``tests/faults/run`` prints."""
        passed = sum(one.outcome == "200" for one in self.seen)
        lost = sum(one.outcome == "lost" for one in self.seen)
        wrong = self.outcomes("forged")["200"]
        refused = len(self.seen) - passed - lost
        counts = f"sent {len(self.seen):5}, passed {passed:5}, refused {refused:5}, lost {lost}, wrongly passed {wrong}"
        return f"{what:31} {counts}{note and f', {note}'}"

    def table(self) -> str:
        """All outcomes, in one line for each kind."""
        kinds = dict.fromkeys(client.kind for client in self._clients)
        return "; ".join(
            f"{kind}: {', '.join(f'{outcome} {count}' for outcome, count in sorted(self.outcomes(kind).items()))}" for kind in kinds
        )

    async def _run(self, client: Client) -> None:
        connection: RawClient | None = None
        number, at = 0, ("", 0)
        while not self._stop:
            number += 1
            if connection is not None and at != self._gateway.public:  # a balancer has taken this machine out
                await connection.close()
                connection = None
            sent_ms = clock.monotonic_ms()
            try:
                if connection is None:
                    at = self._gateway.public
                    connection = RawClient(*await asyncio.open_connection(*at))
                response = await connection.ask(client.repeats or request_of(client, number))
                outcome = "200" if response.status == 200 else _code(response)
                if response.header("connection") == "close":
                    await connection.close()
                    connection = None
            except (asyncio.IncompleteReadError, OSError):
                outcome = "lost"
                if connection is not None:
                    await connection.close()
                connection = None
            self.seen.append(Seen(client.kind, outcome, sent_ms, clock.monotonic_ms()))
            async with self._more:
                self._more.notify_all()
            await asyncio.sleep(PAUSE)
        if connection is not None:
            with suppress(OSError):
                await connection.close()


async def ask_once(address: tuple[str, int], request: bytes) -> str:
    """One request on a connection of its own: ``200`` or the refusal's code."""
    connection = RawClient(*await asyncio.open_connection(*address))
    response = await connection.ask(request)
    await connection.close()
    return "200" if response.status == 200 else _code(response)


def request_of(client: Client, number: int = 0) -> bytes:
    """A client's request, signed now; each number makes another one."""
    assert client.key.secret is not None
    secret = client.key.secret.reveal().decode()
    key = SigningKey(client.key.key_id, secret[::-1] if client.forged else secret)
    # Every order is another one: the replay guard admits the same bytes once.
    body = b'{"n":"%b-%d"}' % (client.kind.encode(), number) if client.method == "POST" else b""
    outgoing = sign("mobee", key, client.method, client.path, body, now_ms=client.now_ms(), nonce=str(number))
    fields = {**outgoing.headers, "Host": "gate"} | ({"Content-Length": str(len(body))} if body else {})
    lines = [f"{client.method} {outgoing.target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode() + body


def _code(response: Any) -> str:
    start = response.body.find(b'"code":"')
    return response.body[start + 8 : response.body.find(b'"', start + 8)].decode() if start >= 0 else str(response.status)
