"""Shadow mode, with a real gateway: every question is answered 200, nobody is vouched for falsely, and the gate's own port enforces."""

import asyncio
import json
import os
import signal

import aiohttp
import pytest
from click.testing import CliRunner

from deploy.cli import main
from deploy.signing import SigningKey, sign
from gateway.runtime import clock
from tests.support.running import running
from tests.support.wire import RawClient

ROUTES = "GET /wallets read spot\nPOST /orders trade spot\nGET /public public spot"
SHADOW = '[client_ip]\ntrusted_proxies = ["127.0.0.1/32"]\n[auth]\nenforce = "shadow"\n'
ENFORCED = SHADOW.replace('"shadow"', '"always"')
IDENTITY = ("X-Account-Id", "X-Key-Id", "X-Key-Scopes", "X-Gateway-Assertion")
CLIENT = "203.0.113.9"


@pytest.fixture
def write(write_configuration):
    return lambda more=SHADOW: write_configuration(routes=ROUTES, more=more)


def signed(key, method, target, body=b""):
    signing = SigningKey(key.key_id, key.secret.reveal().decode())
    return dict(sign("mobee", signing, method, target, body, now_ms=clock.now_ms(), nonce="n").headers)


async def decision(gateway, path, headers, *, method="GET", data=None):
    """Status, fields and content of the answer to a question of Envoy's kind."""
    url = "http://{}:{}/decision/envoy?content=sent{}".format(*gateway.ops, path)
    fields = {"X-Forwarded-For": CLIENT, **headers}
    async with aiohttp.ClientSession() as session, session.request(method, url, headers=fields, data=data) as answer:
        return answer.status, answer.headers, await answer.read()


def nobody(headers):
    return [headers.get(name) for name in IDENTITY] == [""] * len(IDENTITY)


async def test_everything_passes_and_only_what_is_proven_has_an_identity(write, key):
    body = b'{"side":"buy"}'
    async with running(write("[limits]\nmax_body_bytes = 1000\n" + SHADOW)) as gateway:
        forged = {**signed(key, "GET", "/wallets"), "X-Account-Id": "mallory", "X-Request-Signature": "AAAA"}
        cases = [
            ("GET", "/wallets", {}, None, "missing_credentials"),
            ("GET", "/wallets", forged, None, "invalid_credentials"),
            ("GET", "/nowhere", {}, None, "no_route"),
            ("GET", "/gateway/v1/key", {}, None, "no_route"),
            ("POST", "/orders", signed(key, "POST", "/orders", b"other"), body, "invalid_credentials"),
            ("POST", "/public", {}, b"x" * 2_000, "body_too_large"),
            ("GET", "/public", {"X_Account_Id": "mallory"}, None, "malformed_request"),
        ]
        for method, path, headers, data, code in cases:
            status, told, content = await decision(gateway, path, headers, method=method, data=data)
            assert (status, content, told.get("X-Gerbang-Shadow")) == (200, b"", code)
            assert nobody(told), (code, dict(told))
        trade = signed(key, "POST", "/orders", body)
        status, told, _ = await decision(gateway, "/orders", trade, method="POST", data=body)
        assert (status, told["X-Account-Id"], told.get("X-Gerbang-Shadow")) == (200, key.account_id, None)
        status, told, _ = await decision(gateway, "/orders", trade, method="POST", data=body)
        assert (status, told["X-Gerbang-Shadow"], nobody(told)) == (200, "replayed_request", True)

        status, ready = await gateway.ask("GET", "/ready")
        assert (status, ready["status"]) == (200, "degraded")
        assert any("auth.enforce is shadow" in reason for reason in ready["degraded"])
        assert await gateway.metric("gerbang_shadow") == 1
        assert await gateway.metric('gerbang_shadow_decisions_total{outcome="invalid_credentials",route="GET /wallets"}') == 1
        assert await gateway.metric('gerbang_requests_refused_total{code="invalid_credentials"}') == 0
        line = await gateway.event("shadow_refused", outcome="replayed_request")
        assert (line["route"], line["key_id"], line["path"]) == ("POST /orders", key.key_id, "/orders")
        await gateway.event("shadow_mode")

        ops = "http://{}:{}".format(*gateway.ops)
        printed = await asyncio.to_thread(CliRunner().invoke, main, ["shadow", "report", "--ops", ops, "--json"])
        report = json.loads(printed.stdout)
        assert report["would_pass"] == 1
        assert {(each["code"], each["route"]): each["count"] for each in report["would_refuse"]} == {
            ("missing_credentials", "GET /wallets"): 1,
            ("invalid_credentials", "GET /wallets"): 1,
            ("no_route", ""): 1,
            ("no_route", "GET /gateway/v1/key"): 1,
            ("invalid_credentials", "POST /orders"): 1,
            ("body_too_large", ""): 1,
            ("malformed_request", "GET /public"): 1,
            ("replayed_request", "POST /orders"): 1,
        }
        text = await asyncio.to_thread(CliRunner().invoke, main, ["shadow", "report", "--ops", ops])
        assert "1 would pass, 8 would be refused" in text.stderr


async def test_a_question_passes_when_no_worker_answers_and_when_a_stranger_asks(write):
    async with running(write(SHADOW.replace("127.0.0.1/32", "192.0.2.1/32"))) as gateway:
        status, told, _ = await decision(gateway, "/public", {})
        assert (status, told["X-Gerbang-Shadow"]) == (200, "ip_not_allowed")
        workers = await gateway.worker_pids()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        status, told, _ = await decision(gateway, "/public", {})
        assert (status, told["X-Gerbang-Shadow"], nobody(told)) == (200, "overloaded", True)
        for pid in workers:
            os.kill(pid, signal.SIGCONT)


async def test_the_gates_own_port_enforces_whatever_passed_in_shadow_and_a_reload_ends_it(write, upstream):
    async with running(write('[limits]\nper_ip_failures = "1/hour"\n' + SHADOW)) as gateway:
        client = RawClient(*await asyncio.open_connection(*gateway.public))
        wrong = {"X-API-Key": "nobody's", "X-Request-Signature": "AAAA", "X-Request-Timestamp": str(clock.now_ms() // 1000)}
        head = b"GET /wallets HTTP/1.1\r\nHost: gate\r\nX-Forwarded-For: %b\r\n" % CLIENT.encode()
        head += b"".join(f"{name}: {value}\r\n".encode() for name, value in wrong.items()) + b"\r\n"
        for _ in range(3):
            assert (await decision(gateway, "/wallets", wrong))[0] == 200
        told = await client.ask(head)
        assert (told.status, json.loads(told.body)["code"]) == (401, "invalid_credentials"), "shadow holds no address back"
        assert upstream.requests == []
        write(ENFORCED)
        _status, report = await gateway.ask("POST", "/reload")
        assert report["outcome"] == "applied"
        assert (await decision(gateway, "/wallets", {}))[0] == 401
        _status, ready = await gateway.ask("GET", "/ready")
        assert ready["degraded"] == []
        assert await gateway.metric("gerbang_shadow") == 0
        await client.close()
