"""What is traced, by whose word, and what a span tells: through the real data plane, with spans kept in memory."""

import asyncio
import subprocess
import sys
import threading

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from gateway.config.loading import Raw
from gateway.errors import ConfigError, InvalidCredentials
from gateway.process.configuration import prepare_raw
from gateway.telemetry import tracing as module
from gateway.telemetry.tracing import Tracing
from tests.support.keys import NOW_MS
from tests.support.plane import ScriptedGate, serving
from tests.support.wire import recording_upstream

EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter.OTLPSpanExporter"
TRACE, PARENT_ID = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"
SAMPLED, UNSAMPLED = (b"00-%b-%b-%b" % (TRACE, PARENT_ID, flags) for flags in (b"01", b"00"))
TRUST = {"client_ip": {"trusted_proxies": ["127.0.0.1/32"]}}


@pytest.fixture
def exporter(monkeypatch):
    kept = InMemorySpanExporter()
    monkeypatch.setattr(EXPORTER, lambda **_how: kept)
    return kept


@pytest.fixture
async def upstream():
    async with recording_upstream() as recording:
        yield recording


async def ask(served, *fields, path="/read"):
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
    client = await served.client()
    return await client.ask(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: gate\r\n" + lines + b"\r\n")


async def spans_of(tracing, exporter):
    await asyncio.to_thread(tracing.close)
    return exporter.get_finished_spans()


async def test_a_span_says_what_was_asked_by_whom_and_how_it_ended(upstream, exporter):
    async with serving(upstream) as served:
        served.reload(tracing=(tracing := Tracing("http://collector", 1.0)))
        assert (await ask(served)).status == 200
        (request,) = served.gate.admitted
    (span,) = await spans_of(tracing, exporter)
    assert span.start_time == request.received_ms * 1_000_000
    told = dict(span.attributes)
    assert (span.name, span.kind) == ("GET /read", SpanKind.SERVER)
    assert told.pop("gerbang.upstream_ms") > 0
    assert told.pop("gerbang.admission_ms") >= 0
    assert told.pop("gerbang.request_id")
    assert told == {
        "http.request.method": "GET",
        "http.route": "/read",
        "http.response.status_code": 200,
        "client.address": "127.0.0.1",
        "gerbang.key_id": "gbk_test",
        "gerbang.account_id": "account-1",
        "gerbang.outcome": "admitted",
    }


async def test_a_span_of_an_upstream_that_is_away_tells_the_refusal(exporter):
    async with serving("http://127.0.0.1:1") as served:
        served.reload(tracing=(tracing := Tracing("http://collector", 1.0)))
        assert (await ask(served)).status == 502
    (span,) = await spans_of(tracing, exporter)
    assert span.attributes["gerbang.outcome"] == span.attributes["error.type"] == "upstream_unreachable"
    assert span.attributes["http.response.status_code"] == 502


async def test_a_refusal_has_a_span_with_its_code_and_what_was_known_by_then(exporter):
    async with serving(gate=ScriptedGate(refuse=InvalidCredentials("no", reason="unknown key"))) as served:
        served.reload(tracing=(tracing := Tracing("http://collector", 1.0)))
        assert (await ask(served, (b"traceparent", SAMPLED))).status == 401
        assert (await ask(served, path="/nowhere")).status == 404
    refused, unrouted = await spans_of(tracing, exporter)
    assert (refused.name, unrouted.name) == ("GET /read", "GET")
    assert b"%032x" % refused.context.trace_id == TRACE
    for span in (refused, unrouted):
        assert span.attributes["client.address"] == "127.0.0.1"
        assert span.attributes["gerbang.request_id"]
    told = [(span.attributes["http.response.status_code"], span.attributes["gerbang.outcome"]) for span in (refused, unrouted)]
    assert told == [(401, "invalid_credentials"), (404, "no_route")]
    assert "http.route" not in unrouted.attributes


async def test_an_answer_of_the_gates_own_has_a_span(exporter):
    async with serving() as served:
        served.reload(tracing=(tracing := Tracing("http://collector", 1.0)))
        assert (await ask(served, path="/time")).status == 200
    (span,) = await spans_of(tracing, exporter)
    assert (span.name, span.attributes["http.route"]) == ("GET /time", "/time")
    assert (span.attributes["http.response.status_code"], span.attributes["gerbang.outcome"]) == (200, "admitted")


async def test_a_request_takes_its_turn_in_the_share_once_whatever_becomes_of_it(exporter):
    """Of five requests every other one is traced, though each is asked about when it is forwarded, or fails, or both."""
    async with serving("http://127.0.0.1:1") as served:
        served.reload(tracing=(tracing := Tracing("http://collector", 0.5)))
        for path in ("/read/1", "/read/2", "/nowhere", "/time", "/read/3", "/read/4"):
            await ask(served, path=path)
    outcomes = [span.attributes["gerbang.outcome"] for span in await spans_of(tracing, exporter)]
    assert outcomes == ["upstream_unreachable", "admitted", "upstream_unreachable"]


async def test_a_refusal_whose_content_still_comes_has_one_span(exporter):
    async with serving(gate=ScriptedGate()) as served:
        served.reload(tracing=(tracing := Tracing("http://collector", 1.0)))
        client = await served.client()
        assert (await client.ask(b"POST /nowhere HTTP/1.1\r\nHost: gate\r\nContent-Length: 2\r\n\r\n")).status == 404
        await client.close()
        await served.until(lambda: served.metrics.connections == 0)
    assert len(await spans_of(tracing, exporter)) == 1


async def test_nothing_secret_is_in_a_span(upstream, exporter):
    async with serving(upstream) as served:
        served.reload(tracing=(tracing := Tracing("http://collector", 1.0)))
        await ask(served, (b"X-Request-Signature", b"hidden-1"), (b"Authorization", b"hidden-2"), path="/read/hidden-3?signature=hidden-4")
    (span,) = await spans_of(tracing, exporter)
    assert "hidden" not in span.to_json()


@pytest.mark.parametrize(
    ("trust", "sent", "share", "traced"),
    [
        ({}, SAMPLED, 0.0001, False),
        ({}, UNSAMPLED, 1.0, True),
        (TRUST, SAMPLED, 0.0001, True),
        (TRUST, UNSAMPLED, 1.0, False),
        (TRUST, b"nonsense", 0.0001, False),
        (TRUST, b"nonsense", 1.0, True),
    ],
)
async def test_only_a_trusted_proxys_flag_decides(upstream, exporter, trust, sent, share, traced):  # noqa: PLR0917 - a table's columns
    async with serving(upstream, **trust) as served:
        served.reload(tracing=(tracing := Tracing("http://collector", share)))
        await ask(served, (b"traceparent", sent))
    assert len(await spans_of(tracing, exporter)) == traced
    assert (upstream.requests[0].values(b"traceparent") != [sent]) == traced


@pytest.mark.parametrize(
    "sent",
    [
        (),
        (b"",),
        (b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01",),
        (b"00-" + TRACE + b"-" + b"0" * 16 + b"-01",),
        (SAMPLED + b"-more",),
        (SAMPLED + b"x",),
        (b"ff" + SAMPLED[2:],),
        (b"cc" + SAMPLED[2:] + b"x",),
        (SAMPLED.upper(),),
        (SAMPLED, SAMPLED),
    ],
)
async def test_a_context_that_is_none_is_replaced_with_its_state(upstream, exporter, sent):
    async with serving(upstream) as served:
        served.reload(tracing=(tracing := Tracing("http://collector", 1.0)))
        await ask(served, *((b"traceparent", value) for value in sent), (b"tracestate", b"a=b"))
    (span,) = await spans_of(tracing, exporter)
    assert span.parent is None
    (passed_on,) = upstream.requests[0].values(b"traceparent")
    assert passed_on == b"00-%032x-%016x-01" % (span.context.trace_id, span.context.span_id)
    assert TRACE not in passed_on
    assert upstream.requests[0].values(b"tracestate") == []


@pytest.mark.parametrize("sent", [SAMPLED, UNSAMPLED, b"cc" + SAMPLED[2:], b"cc" + SAMPLED[2:] + b"-what-comes-later"])
async def test_a_valid_context_is_continued_with_its_state(upstream, exporter, sent):
    async with serving(upstream) as served:
        served.reload(tracing=(tracing := Tracing("http://collector", 1.0)))
        await ask(served, (b"traceparent", sent), (b"tracestate", b"a=b"))
    (span,) = await spans_of(tracing, exporter)
    assert b"%032x" % span.context.trace_id == TRACE
    assert b"%016x" % span.parent.span_id == PARENT_ID
    assert upstream.requests[0].values(b"tracestate") == [b"a=b"]


def test_the_share_is_kept_whatever_clients_send_and_whatever_the_environment_says(monkeypatch, exporter):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    tracing = Tracing("http://collector", 0.25)
    headers = ((b"traceparent", SAMPLED),)
    for _ in range(100):
        if tracing.wants(headers, lambda: False):
            tracing.begin("GET /", headers, {}, start_ms=NOW_MS).end()
    tracing.close()
    assert len(exporter.get_finished_spans()) == 25


def test_an_end_does_not_wait_for_a_collector_that_hangs(monkeypatch, exporter):
    hanging, entered = threading.Event(), threading.Event()
    monkeypatch.setattr(exporter, "export", lambda _spans: (entered.set(), hanging.wait(60)))
    monkeypatch.setattr(module, "FLUSH_MS", 50)
    tracing = Tracing("http://collector", 1.0)
    tracing.begin("GET /", (), {}, start_ms=NOW_MS).end()
    tracing.close()
    assert entered.wait(60)
    (ending,) = (thread for thread in threading.enumerate() if thread.name == "end of tracing")
    hanging.set()
    ending.join(60)


def test_a_missing_extra_is_told_with_how_to_install_it(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"telemetry\.traces.*pip install gerbang\[traces\]"):
        prepare_raw(Raw("gateway.toml", {"telemetry": {"traces": "http://127.0.0.1:4318/v1/traces"}}, []))


@pytest.mark.parametrize(
    "program",
    [
        "import sys, gateway.telemetry.tracing; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))",
        "import sys; sys.modules['opentelemetry'] = None; import gateway.process.app, gateway.process.worker",
    ],
    ids=["by the module", "by the rest"],
)
def test_nothing_of_it_is_needed_when_it_is_off(program):
    """The Redis client imports it by itself where it is installed, so the second looks at a place where it is not."""
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0
