"""A data plane in this process, with a gate that admits by script: server and upstream side are under test, not who may pass."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from gateway.admission.gate import Answered, Gate
from gateway.admission.outcome import Admitted, Claim, KeyNeeded
from gateway.config.settings import GatewaySettings
from gateway.errors import NoRoute, Refusal
from gateway.forward.tunnel import Tunnels
from gateway.forward.upstreams import Upstreams
from gateway.http1.message import Answer, Identity, Request
from gateway.runtime.ticker import Ticker
from gateway.server.plane import Plane
from gateway.server.serving import Serving
from gateway.telemetry import AccessLog, Metrics
from tests.support.wire import TIMEOUT, RawClient, RecordingUpstream

IDENTITY = Identity("account-1", "gbk_test", ("read", "trade"))


@dataclass(frozen=True)
class ScriptedRoute:
    """What the server looks at of a route."""

    pattern: str
    scope: str = "read"
    upstream: str = "spot"
    websocket: bool = False
    builtin: str = ""
    session: str = ""


@dataclass
class ScriptedGate:
    """Routes by the first path segment; says yes unless told otherwise."""

    refuse: Refusal | None = None
    refuse_at_head: Refusal | None = None
    unknown_at_head: int = 0
    begun: list[Request] = field(default_factory=list)
    unknown_keys: int = 0
    """How many times a key has to be looked up before it is in memory."""
    claim_result: "asyncio.Future[None] | None" = None
    expires_ms: int | None = None
    answer_headers: bytes = b"ratelimit-limit: 10\r\n"
    asked: tuple[bytes, bytes] = (b"", b"")
    """Of the last refusal of what could not be framed."""
    told: Callable[[Refusal], object] | None = None
    """Called with each refusal that is rendered."""
    routed: list[Request] = field(default_factory=list)
    admitted: list[Request] = field(default_factory=list)
    looked_up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when look-ups may end."""
    routes: dict[bytes, ScriptedRoute] = field(
        default_factory=lambda: {
            b"read": ScriptedRoute("GET /read"),
            b"trade": ScriptedRoute("POST /trade", scope="trade"),
            b"public": ScriptedRoute("POST /public", scope="public"),
            b"ws": ScriptedRoute("GET /ws", websocket=True),
            b"time": ScriptedRoute("GET /time", scope="public", builtin="time"),
            b"other": ScriptedRoute("GET /other", upstream="other"),
        }
    )

    def route(self, head: Request) -> Any:
        self.routed.append(head)
        route = self.routes.get(head.path.split(b"/")[1])
        if route is None:
            raise NoRoute("no such route")
        return route

    def client(self, request: Request) -> tuple[str, ...]:
        lines = request.field_lines(b"x-forwarded-for")
        return (lines[0].decode() if lines else request.peer,)

    def begin(self, request: Request, route: Any) -> tuple[str, ...]:
        self.begun.append(request)
        if self.unknown_at_head:
            self.unknown_at_head -= 1
            raise KeyNeeded("gbk_test")
        if self.refuse_at_head is not None and route.scope != "public":
            raise self.refuse_at_head
        return (request.peer,)

    def decide(self, request: Request, route: Any) -> Admitted:
        return self.admit(request, route)

    def admit(self, request: Request, route: Any) -> Admitted:
        if self.unknown_keys:
            self.unknown_keys -= 1
            raise KeyNeeded("gbk_test")
        if self.refuse is not None:
            raise self.refuse
        self.admitted.append(request)
        public = route.scope == "public"
        return Admitted(
            route=route,
            identity=None if public else IDENTITY,
            client_ip=request.peer,
            answer_headers=b"" if public else self.answer_headers,
            replay=Claim("gbk_test", b"signature", 1_000, outage="deny") if self.claim_result is not None else None,
            expires_ms=self.expires_ms,
        )

    async def resolve(self, _needed: Any) -> None:
        await self.looked_up.wait()

    def still_valid(self, _admitted: Admitted) -> bool:
        return True

    def claim(self, _admitted: Admitted, answered: Answered) -> "asyncio.Future[None]":
        assert self.claim_result is not None

        def done(claim: "asyncio.Future[None]") -> None:
            if not claim.cancelled():
                answered(claim.exception(), True)

        self.claim_result.add_done_callback(done)
        return self.claim_result

    def answer(self, _admitted: Admitted, _request: Request) -> Answer:
        return Answer(200, ((b"content-type", b"application/json"),), b'{"time_ms":1}')

    def render(self, refusal: Refusal, _request: Request | None, _request_id: str = "", asked: tuple[bytes, bytes] = (b"", b"")) -> Answer:
        self.asked = asked
        if self.told is not None:
            self.told(refusal)
        return Answer(refusal.status, ((b"content-type", b"application/problem+json"), *refusal.headers), refusal.code.encode())


class StaticSigner:
    """An assertion that can be recognised."""

    def assertion(self, identity: Identity | None, audience: str, now_ms: int) -> bytes:
        return f"proof.{identity.key_id if identity else 'nobody'}.{audience}".encode()


@dataclass
class Served:
    """A plane that serves, with what a test wants to reach."""

    plane: Plane
    gate: ScriptedGate
    upstreams: Upstreams
    tunnels: Tunnels
    metrics: Metrics
    settings: GatewaySettings
    port: int
    valid_keys: set[str]
    stores_away: asyncio.Event
    """Set while no key can be confirmed."""
    clients: list[RawClient]
    ssl: Any = None

    def reload(self, *, gate: Any = None, access: AccessLog | None = None, tracing: Any = None, **sections: Any) -> None:
        """Use another version of the configuration from the next request on: what is not given stays."""
        self.settings = GatewaySettings.model_validate(self.settings.model_dump(exclude_unset=True) | sections)
        self.upstreams.commit(self.upstreams.prepare(self.settings.upstreams))
        now = self.plane.worker.serving
        self.plane.apply(
            self.settings,
            Serving(
                self.settings, gate or now.gate, self.upstreams.pools, access=access or now.access, tracing=tracing or now.tracing
            ),
        )  # fmt: skip

    async def client(self, *, receive_bytes: int = 0, local_addr: tuple[str, int] | None = None, **how: Any) -> RawClient:
        """:param receive_bytes: how much its kernel takes while it does not read, about"""
        sock = socket.socket()
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        if local_addr is not None:
            sock.bind(local_addr)
        sock.setblocking(False)
        async with asyncio.timeout(TIMEOUT):
            try:
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
            except OSError:
                sock.close()
                raise
            client = RawClient(*await asyncio.open_connection(sock=sock, limit=1 << 22, **how))
        self.clients.append(client)
        return client

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the event loop brings about."""
        async with asyncio.timeout(TIMEOUT):
            while not condition():  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.002)


def settings(upstreams: dict[str, Any], **sections: Any) -> GatewaySettings:
    """Complete settings around what a test cares for."""
    return GatewaySettings.model_validate(
        {"stores": {"postgres": "unused", "redis": "unused"}, "vault": {"keys": "unused"}, "upstreams": upstreams, **sections}
    )


@asynccontextmanager
async def serving(
    *servers: RecordingUpstream | str, spot: dict[str, Any] | None = None, gate: ScriptedGate | None = None, **sections: Any
) -> AsyncIterator[Served]:
    """A plane on a free port.

    :param servers: those of the upstream ``spot``, whose other settings are in ``spot``
    """
    urls = tuple(server if isinstance(server, str) else server.url for server in servers)
    made = settings({"spot": {"servers": urls, **(spot or {})}} if urls else {}, **sections)
    valid_keys, stores_away = {IDENTITY.key_id}, asyncio.Event()

    async def still_valid(key_id: str) -> bool:
        if stores_away.is_set():
            raise ConnectionError
        return key_id in valid_keys

    gate = gate or ScriptedGate()
    metrics, ticker = Metrics(), Ticker()
    upstreams = Upstreams(signer=StaticSigner(), assertion_period_ms=30_000, ticker=ticker, metrics=metrics)
    tunnels = Tunnels(still_valid, metrics)
    upstreams.commit(upstreams.prepare(made.upstreams))
    serving = Serving(made, cast("Gate", gate), upstreams.pools, access=AccessLog(0.0))
    plane = Plane(made, serving, outbox=upstreams.outbox, tunnels=tunnels, ticker=ticker, metrics=metrics)
    ticker.start()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        await plane.serve([listening])
        served = Served(plane, gate, upstreams, tunnels, metrics, made, listening.getsockname()[1], valid_keys, stores_away, [])
        try:
            yield served
        finally:
            ticker.stop()
            plane.close()
            upstreams.close()
            for client in served.clients:
                await client.close()
            await asyncio.sleep(0)
