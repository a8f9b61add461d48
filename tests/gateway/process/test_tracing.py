"""Traces: a span for each request, the client's context carried on, a collector that gets it all, and none of it when off."""

import asyncio
import gzip
import signal

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.keys.vault import new_entry
from tests.support.running import configuration, running
from tests.support.wire import RawClient, recording_upstream

PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ASK = b"GET /public/x?secret=1 HTTP/1.1\r\nHost: gate\r\nTraceparent: " + PARENT + b"\r\nTracestate: a=b\r\n\r\n"


@pytest.fixture
async def collector():
    """Keeps every span that is sent to it; ``url`` is its endpoint."""
    spans = []

    async def take(request):
        body = await request.read()
        sent = ExportTraceServiceRequest.FromString(gzip.decompress(body) if request.headers.get("Content-Encoding") == "gzip" else body)
        spans.extend(span for resource in sent.resource_spans for scope in resource.scope_spans for span in scope.spans)
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    async with TestServer(app) as server:
        yield str(server.make_url("/v1/traces")), spans


@pytest.fixture
async def upstream():
    async with recording_upstream() as recording:
        yield recording


@pytest.fixture
def write(tmp_path, database, redis_url, upstream):
    vault = new_entry("k1")

    def written(more):
        path = tmp_path / "gateway.toml"
        stores = {"postgres": database.gateway_dsn, "redis": redis_url, "vault": vault, "upstreams": {"spot": upstream.url}}
        path.write_text(configuration(**stores, routes="GET /public/{name} public spot", more=more))
        return path

    return written


async def ask(gateway):
    client = RawClient(*await asyncio.open_connection(*gateway.public))
    assert (await client.ask(ASK)).status == 200
    await client.close()


def attributes(span):
    return {attribute.key: attribute.value.string_value or attribute.value.int_value for attribute in span.attributes}


async def test_a_span_continues_the_clients_trace_and_the_upstream_continues_the_span(write, collector, upstream):
    endpoint, spans = collector
    async with running(write(f'[telemetry]\ntraces = "{endpoint}"\ntrace_share = 1.0')) as gateway:
        await ask(gateway)
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0
    (span,) = spans
    (passed_on,) = upstream.requests[0].values(b"traceparent")
    assert span.trace_id.hex() == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert span.parent_span_id.hex() == "00f067aa0ba902b7"
    assert passed_on.decode() == f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01"
    assert upstream.requests[0].values(b"tracestate") == [b"a=b"]
    assert span.name == "GET /public/{name}"
    told = attributes(span)
    assert (told["http.route"], told["http.response.status_code"]) == ("/public/{name}", 200)


async def test_without_tracing_the_context_passes_through_as_it_came(write, upstream):
    async with running(write("")) as gateway:
        await ask(gateway)
    assert upstream.requests[0].values(b"traceparent") == [PARENT]


async def test_a_collector_that_is_away_costs_no_request(write, upstream):
    async with running(write('[telemetry]\ntraces = "http://127.0.0.1:1/v1/traces"\ntrace_share = 1.0')) as gateway:
        for _ in range(3):
            await ask(gateway)
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0


async def test_a_refusal_is_told_to_the_collector_too(write, collector):
    endpoint, spans = collector
    async with running(write(f'[telemetry]\ntraces = "{endpoint}"\ntrace_share = 1.0')) as gateway:
        client = RawClient(*await asyncio.open_connection(*gateway.public))
        assert (await client.ask(ASK.replace(b"/public/x", b"/nowhere"))).status == 404
        await client.close()
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0
    (span,) = spans
    told = attributes(span)
    assert (span.name, told["gerbang.outcome"], told["http.response.status_code"]) == ("GET", "no_route", 404)


async def test_what_opentelemetry_refuses_refuses_the_reload_and_ends_no_worker(write, collector, upstream):
    """Its variables are read when tracing is set up: before the new version is in use, not after."""
    more = f'[telemetry]\ntraces = "{collector[0]}"\ntrace_share = 1.0'
    async with running(write(""), environment={"OTEL_BSP_MAX_QUEUE_SIZE": "100"}) as gateway:
        pids = await gateway.worker_pids()
        write(more)
        status, told = await gateway.ask("POST", "/reload")
        assert status == 422
        assert "telemetry.traces: OpenTelemetry cannot be set up" in told["problems"][0]["message"]
        await ask(gateway)
        assert await gateway.worker_pids() == pids


async def test_a_reload_begins_and_ends_tracing(write, collector, upstream):
    endpoint, spans = collector
    more = f'[telemetry]\ntraces = "{endpoint}"\ntrace_share = 1.0'
    async with running(write("")) as gateway:
        for text in (more, ""):
            write(text)
            assert (await gateway.ask("POST", "/reload"))[1]["outcome"] == "applied"
            await ask(gateway)
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0
    assert len(spans) == 1
