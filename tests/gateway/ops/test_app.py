"""The ops port: what an operator reads, from a gateway that says this or that."""

import asyncio
import json
import socket
from contextlib import AsyncExitStack, contextmanager, suppress

import pytest
from aiohttp.test_utils import TestClient, TestServer
from structlog.testing import capture_logs

from gateway.admission.verdict import refused
from gateway.config.changes import Change
from gateway.errors import ConfigProblem
from gateway.ops.app import create_app, serving
from gateway.ops.report import Effect, Readiness, ReloadReport, Traffic
from gateway.telemetry.logs import REFUSALS_PER_SECOND


class Gateway:
    """A gateway that says what the test wants."""

    says = Readiness((), (), ({"worker": 0},))
    report = ReloadReport("unchanged", "v1", "v1", (), ())
    reloads = 0

    async def readiness(self):
        return self.says

    async def metrics(self):
        return b"gerbang_workers 1.0\n"

    async def reload(self):
        self.reloads += 1
        return self.report

    async def dry_run(self):
        effect = Effect("GET /v1/wallets", 7, "admitted", "no_route")
        return ReloadReport("would_apply", "v2", "v1", (), (), Traffic(1_000, 9, 2, (effect,)))

    def configuration(self):
        return {"version": "v1"}

    def undecided(self, refusal):
        return refused(refusal)

    async def shadow(self):
        return {"enforce": "shadow", "decisions": [{"route": "", "outcome": "no_route", "count": 1}]}

    def jwks(self):
        return {"keys": []}

    def max_body_bytes(self):
        return 1_000


@pytest.fixture
def gateway():
    return Gateway()


@pytest.fixture
async def client(gateway):
    async with TestClient(TestServer(create_app(gateway))) as client:
        yield client


async def test_health_says_that_the_process_lives(client):
    async with client.get("/health") as response:
        assert (response.status, await response.json()) == (200, {"status": "alive"})


@pytest.mark.parametrize(
    ("says", "status", "word"),
    [
        (Readiness((), (), ()), 200, "ready"),
        (Readiness((), ("redis",), ()), 200, "degraded"),
        (Readiness(("worker 0: no key store",), ("redis",), ()), 503, "unready"),
    ],
)
async def test_ready_tells_what_is_missing(client, gateway, says, status, word):
    gateway.says = says
    async with client.get("/ready") as response:
        answer = await response.json()
    assert (response.status, answer["status"]) == (status, word)
    assert answer["missing"] == list(says.missing)
    assert answer["degraded"] == list(says.degraded)


async def test_metrics_are_prometheus_text(client):
    async with client.get("/metrics") as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        assert await response.text() == "gerbang_workers 1.0\n"


async def test_a_reload_tells_what_it_changed(client, gateway):
    gateway.report = ReloadReport("applied", "v2", "v1", (Change("changed", "limits.per_key", "1/second", "2/second"),), ())
    async with client.post("/reload") as response:
        assert response.status == 200
        assert await response.json() == {
            "outcome": "applied",
            "version": "v2",
            "previous_version": "v1",
            "changes": [{"kind": "changed", "path": "limits.per_key", "before": "1/second", "after": "2/second"}],
        }


async def test_a_dry_run_tells_what_would_change_and_reloads_nothing(client, gateway):
    async with client.post("/reload?dry_run=true") as response:
        assert await response.json() == {
            "outcome": "would_apply",
            "version": "v2",
            "previous_version": "v1",
            "changes": [],
            "traffic": {
                "since_ms": 1_000,
                "admitted": 9,
                "refused": 2,
                "otherwise": [{"call": "GET /v1/wallets", "requests": 7, "now": "admitted", "then": "no_route"}],
            },
        }
    async with client.post("/reload?dry_run=perhaps") as response:
        assert response.status == 400
    assert gateway.reloads == 0


async def test_a_refused_reload_tells_every_problem(client, gateway):
    gateway.report = ReloadReport(
        "refused", "v1", "v1", (), (ConfigProblem("routes[3].match", "conflicts"), ConfigProblem("", "worker 1: is gone"))
    )
    async with client.post("/reload") as response:
        assert (response.status, response.content_type) == (422, "application/problem+json")
        answer = await response.json()
    assert (answer["code"], answer["outcome"], answer["version"]) == ("reload_refused", "refused", "v1")
    assert answer["problems"] == [{"path": "routes[3].match", "message": "conflicts"}, {"path": "", "message": "worker 1: is gone"}]


async def test_what_shadow_mode_counted_is_told(client, gateway):
    async with client.get("/shadow") as response:
        assert await response.json() == await gateway.shadow()


async def test_a_web_page_cannot_make_it_reload(client, gateway):
    async with client.post("/reload", headers={"Origin": "https://evil.example"}) as response:
        assert response.status == 403
    assert gateway.reloads == 0


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nothing", 404, "not_found"), ("GET", "/reload", 405, "method_not_allowed"), ("POST", "/health", 405, "method_not_allowed")],
)
async def test_refusals_are_problems(client, method, path, status, code):
    async with client.request(method, path) as response:
        answer = await response.json()
        assert (response.status, response.content_type, answer["status"], answer["code"]) == (
            status,
            "application/problem+json",
            status,
            code,
        )
        assert ("Allow" in response.headers) == (status == 405)
        assert answer["type"] == f"urn:gerbang:problem:{code}"


async def test_a_defect_is_a_problem_too_and_tells_nothing(client, gateway):
    gateway.reload = None
    async with client.post("/reload") as response:
        answer = await response.json()
        assert (response.status, answer["code"]) == (500, "internal_error")
        assert "NoneType" not in str(answer)


async def test_public_keys_may_be_cached_for_a_moment(client):
    async with client.get("/.well-known/jwks.json") as response:
        assert await response.json() == {"keys": []}
        assert response.headers["Cache-Control"] == "public, max-age=30"


async def test_configuration_is_told(client):
    async with client.get("/config") as response:
        assert await response.json() == {"version": "v1"}


@contextmanager
def listening():
    with socket.create_server(("127.0.0.1", 0)) as opened:
        opened.setblocking(False)
        yield opened


async def sent(port, raw):
    """Everything that is answered to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    try:
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()


HEAD = b"GET /decision/nginx HTTP/1.1\r\nHost: a\r\n"
CREDENTIALS = b"Authorization: Bearer topsecret"


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (HEAD + CREDENTIALS + b"\x00\r\n\r\n", 400),
        (HEAD + CREDENTIALS + b"\r\nBad Name: x\r\n\r\n", 400),
        (HEAD + CREDENTIALS + b"\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (HEAD + CREDENTIALS + b"x" * 1_100_000 + b"\r\n\r\n", 431),
        (HEAD + CREDENTIALS + b"\r\nExpect: miracles\r\n\r\n", 417),
        (b"topsecret\r\n\r\n", 400),
    ],
    ids=lambda value: repr(value[-40:]) if isinstance(value, bytes) else "",
)
async def test_what_cannot_be_parsed_is_a_problem_that_tells_neither_credentials_nor_versions(gateway, raw, status):
    """A proxy sends its clients' header fields here."""
    with listening() as opened, capture_logs() as lines:
        async with serving(gateway, opened):
            answer = await sent(opened.getsockname()[1], raw)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status == json.loads(body)["status"]
    assert b"Server: gerbang\r\n" in head + b"\r\n"
    assert [line["event"] for line in lines] == ["request_malformed"]
    assert "topsecret" not in f"{lines} {answer}"


async def test_malformed_requests_do_not_fill_the_log(gateway):
    with listening() as opened, capture_logs() as lines:
        async with serving(gateway, opened):
            for _ in range(3 * REFUSALS_PER_SECOND):
                await sent(opened.getsockname()[1], b"nonsense\r\n\r\n")
    assert len(lines) < 3 * REFUSALS_PER_SECOND


@pytest.mark.parametrize("path", ["/health", "/nowhere", "/reload"])
async def test_no_answer_tells_a_version(client, path):
    async with client.get(path) as response:
        assert response.headers["Server"] == "gerbang"


async def test_a_question_that_never_ends_does_not_keep_the_gateway_from_ending(gateway):
    with listening() as opened:
        async with serving(gateway, opened):
            _, writer = await asyncio.open_connection(*opened.getsockname())
            writer.write(b"POST /decision/forward-auth HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx")
            await asyncio.sleep(0.1)
            started = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - started < 5
        writer.close()


async def test_a_question_that_never_ends_is_refused(gateway, monkeypatch):
    monkeypatch.setattr("gateway.ops.app._BODY_SECONDS", 0.1)
    with listening() as opened:
        async with serving(gateway, opened):
            reader, writer = await asyncio.open_connection(*opened.getsockname())
            writer.write(b"POST /decision/forward-auth HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx")
            async with asyncio.timeout(5):
                assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
            writer.close()


async def test_one_address_cannot_use_up_the_descriptors_that_workers_are_started_with(gateway, monkeypatch):
    monkeypatch.setattr("gateway.ops.app.descriptors.connections", lambda: 8)
    with listening() as opened:
        async with serving(gateway, opened), AsyncExitStack() as held:
            lines = held.enter_context(capture_logs())
            idle = []
            for _ in range(6):
                reader, writer = await asyncio.open_connection(*opened.getsockname())
                held.callback(writer.close)
                idle.append(reader)
            async with asyncio.timeout(5):
                with suppress(ConnectionError):
                    await asyncio.gather(*(reader.read() for reader in idle[4:]))  # these two are cut
            assert not any(reader.at_eof() for reader in idle[:4])
            assert [line["event"] for line in lines] == ["ops_connections_refused"] * 2


async def test_who_sends_nothing_does_not_keep_a_connection(gateway, monkeypatch):
    monkeypatch.setattr("gateway.ops.app._HEAD_SECONDS", 0.2)
    ask = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
    with listening() as opened:
        async with serving(gateway, opened):
            reader, writer = await asyncio.open_connection(*opened.getsockname())
            writer.write(ask)
            await reader.readuntil(b"}")
            with suppress(ConnectionError):
                assert await sent(opened.getsockname()[1], b"GET /hea") == b""
            await asyncio.sleep(0.3)
            writer.write(ask)
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200"), "a proxy's connection stands between its questions"
            writer.close()
