"""The decision endpoint, asked directly, by a real nginx and by a real Envoy."""

import asyncio
import importlib.util
import os
import re
import shutil
import socket
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from deploy.signing import SigningKey, sign
from gateway.keys.vault import Vault, new_entry
from gateway.runtime import clock
from tests.support.keys import add_key
from tests.support.running import configuration, running
from tests.support.wire import recording_upstream

DEPLOY = Path(__file__).parents[3] / "deploy"
VAULT = new_entry("k1")
ROUTES = "GET /wallets read spot\nPOST /orders trade spot\nGET /public public spot"
IDENTITY = ("X-Account-Id", "X-Key-Id", "X-Key-Scopes")
ADDRESS = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Forwarded")
TRUSTED = '[client_ip]\ntrusted_proxies = ["127.0.0.1/32"]'


@pytest.fixture
async def upstream():
    async with recording_upstream() as recording:
        yield recording


@pytest.fixture
async def key(database):
    connection = await asyncpg.connect(database.owner_dsn)
    yield await add_key(connection, Vault.parse(VAULT))
    await connection.close()


@pytest.fixture
def write(tmp_path, database, redis_url, upstream):
    """Writes the configuration and returns its path."""

    def written(more=TRUSTED):
        path = tmp_path / "gateway.toml"
        values = {"postgres": database.gateway_dsn, "redis": redis_url, "vault": VAULT, "upstreams": {"spot": upstream.url}}
        path.write_text(configuration(**values, routes=ROUTES, more=more))
        return path

    return written


def signed(key, method, target, body=b""):
    outgoing = sign("mobee", SigningKey(key.key_id, key.secret.reveal().decode()), method, target, body, now_ms=clock.now_ms(), nonce="n")
    return dict(outgoing.headers)


async def ask(gateway, headers, *, how="nginx", method="GET", data=None):
    host, port = gateway.ops
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"http://{host}:{port}/decision/{how}", headers=headers, data=data) as answer,
    ):
        return answer.status, answer.headers, await answer.read()


def of(method, uri):
    return {"X-Original-Method": method, "X-Original-URI": uri, "X-Forwarded-For": "203.0.113.9"}


async def test_a_signed_request_may_pass_and_the_upstream_is_told_who_it_is_from(write, key):
    async with running(write()) as gateway:
        status, headers, body = await ask(gateway, signed(key, "GET", "/wallets") | of("GET", "/wallets"))
        assert (status, body) == (200, b"")
        assert headers["X-Account-Id"] == key.account_id
        assert headers["X-Key-Id"] == key.key_id
        assert headers["X-Client-IP"] == "203.0.113.9"
        assert headers["X-Gateway-Assertion"].count(".") == 2
        assert int(headers["RateLimit-Remaining"]) > 0


async def test_on_a_public_route_the_upstream_is_told_that_it_is_nobody(write):
    async with running(write()) as gateway:
        status, headers, _ = await ask(gateway, of("GET", "/public"))
        assert status == 200
        assert [headers[name] for name in IDENTITY] == ["", "", ""]  # a proxy that copies them puts them over what the client sent


async def test_refusals_are_those_of_the_gate(write, key):
    async with running(write()) as gateway:
        cases = [
            (of("GET", "/wallets"), 401, "missing_credentials"),
            (signed(key, "GET", "/wallets") | of("GET", "/wallet"), 403, "no_route"),
            (signed(key, "GET", "/wallets") | of("GET", "/wallets/"), 403, "no_route"),
            (signed(key, "GET", "/wallets") | of("GET", "/x/..//wallets"), 403, "ambiguous_path"),
            (signed(key, "POST", "/orders") | of("GET", "/wallets"), 401, "invalid_credentials"),
            (signed(key, "GET", "/gateway/v1/key") | of("GET", "/gateway/v1/key"), 403, "no_route"),
        ]
        for headers, status, code in cases:
            answered, told, _ = await ask(gateway, headers)
            assert (answered, told["X-Gerbang-Code"]) == (status, code)


async def test_other_proxies_are_told_the_real_status(write, key):
    async with running(write()) as gateway:
        headers = signed(key, "GET", "/wallets") | {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/nowhere"}
        status, told, body = await ask(gateway, headers, how="forward-auth")
        assert (status, told["Content-Type"]) == (404, "application/problem+json")
        assert b"no_route" in body
        status, _, _ = await ask(gateway, signed(key, "GET", "/wallets"), how="envoy/wallets")
        assert status == 200


async def test_a_trade_is_decided_once(write, key):
    async with running(write()) as gateway:
        body = b'{"price":"1"}'
        headers = signed(key, "POST", "/orders", body) | {"X-Forwarded-Method": "POST", "X-Forwarded-Uri": "/orders"}
        first, second = [await ask(gateway, headers, how="forward-auth", method="POST", data=body) for _ in range(2)]
        assert (first[0], second[0]) == (200, 409)


async def test_the_question_must_be_clear_and_come_from_a_trusted_proxy(write, key):
    async with running(write()) as gateway:
        status, told, _ = await ask(gateway, signed(key, "GET", "/wallets"))
        assert (status, told["X-Gerbang-Code"]) == (403, "malformed_request")
    async with running(write(more="")) as gateway:
        status, _, body = await ask(gateway, signed(key, "GET", "/wallets") | of("GET", "/wallets"))
        assert status == 403
        assert b"trusted_proxies" in body


async def in_chunks(body):
    """Content whose length is not told beforehand."""
    yield body


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@asynccontextmanager
async def proxy(command, port, log):
    """A proxy that answers on its port; ended at the end."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output)
    try:
        async with asyncio.timeout(30):
            while True:
                assert process.returncode is None, log.read_text()
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    break
        yield f"http://127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def placed(text, gateway, upstream, port):
    """One of our example configurations with the ports of this test."""
    upstream_port = upstream.url.rpartition(":")[2]
    for shown, real in (("8081", gateway.ops[1]), ("8092", upstream_port), ("8088", port)):
        text = re.sub(rf"\b{shown}\b", str(real), text)
    return text


def nginx_command(gateway, upstream, port, folder):
    folder.mkdir()
    text = placed((DEPLOY / "nginx" / "decision.conf").read_text(), gateway, upstream, port)
    temporary = "".join(f"{kind}_temp_path {folder};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    head = f"daemon off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}"
    (folder / "nginx.conf").write_text(head + text + "\n}\n")
    return ["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]


async def test_a_real_nginx_asks_by_auth_request(write, key, upstream, tmp_path):
    if shutil.which("nginx") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("nginx is not here: apt-get install nginx")
    port = free_port()
    async with running(write()) as gateway:
        command = nginx_command(gateway, upstream, port, tmp_path / "nginx")
        async with proxy(command, port, tmp_path / "log") as url, aiohttp.ClientSession() as session:
            forged = {"X-Account-Id": "someone-else", "X-Forwarded-For": "8.8.8.8"}
            async with session.get(f"{url}/wallets", headers=signed(key, "GET", "/wallets") | forged) as answer:
                assert answer.status == 200
            assert len(upstream.requests) == 1
            seen = upstream.raw
            assert b"someone-else" not in seen
            assert re.search(rb"(?i)x-client-ip: 127\.0\.0\.1\r\n", seen)
            assert re.search(rb"(?i)x-account-id: " + key.account_id.encode() + rb"\r\n", seen)
            assert not re.search(rb"(?i)x-request-signature", seen)
            async with session.get(f"{url}/wallets") as answer:
                assert (answer.status, answer.headers["X-Gerbang-Code"]) == (401, "missing_credentials")
            async with session.get(f"{url}/nowhere", headers=signed(key, "GET", "/nowhere")) as answer:
                assert (answer.status, answer.headers["X-Gerbang-Code"]) == (403, "no_route")
            body = b'{"price":"1"}'
            async with session.post(f"{url}/orders", data=body, headers=signed(key, "POST", "/orders", body)) as answer:
                # nginx keeps the body to itself, so what the signature covers is not there: refused, never let through.
                assert (answer.status, answer.headers["X-Gerbang-Code"]) == (401, "invalid_credentials")
            assert len(upstream.requests) == 1
            # Nobody has checked a body that the signature does not cover, nor what a client says of its address: neither goes on.
            for data in (body, in_chunks(body)):
                headers = signed(key, "POST", "/orders") | dict.fromkeys(ADDRESS, "someone-else")
                async with session.post(f"{url}/orders", data=data, headers=headers) as answer:
                    assert answer.status == 200
            assert [request.body for request in upstream.requests] == [b"", b"", b""]
            assert b"someone-else" not in upstream.raw


async def test_a_real_envoy_asks_by_ext_authz_with_the_body(write, key, upstream, tmp_path):
    spec = importlib.util.find_spec("envoy")
    assert spec is not None
    assert spec.origin is not None
    envoy = Path(spec.origin).parent / "_bin" / "envoy"
    port = free_port()
    async with running(write()) as gateway:
        file = tmp_path / "envoy.yaml"
        file.write_text(placed((DEPLOY / "envoy" / "decision.yaml").read_text(), gateway, upstream, port))
        command = [str(envoy), "-c", str(file), "--concurrency", "1", "--log-level", "error", "--base-id", str(port)]
        async with proxy(command, port, tmp_path / "log") as url, aiohttp.ClientSession() as session:
            body = b'{"price":"1"}'
            headers = signed(key, "POST", "/orders", body) | {"X-Account-Id": "someone-else"}
            async with session.post(f"{url}/orders", data=body, headers=headers) as answer:
                assert answer.status == 200
            assert len(upstream.requests) == 1
            seen = upstream.raw
            assert seen.endswith(body)
            assert b"someone-else" not in seen
            assert not re.search(rb"(?i)x-request-signature", seen)
            async with session.post(f"{url}/orders", data=body, headers=headers) as answer:
                assert (answer.status, (await answer.json(content_type=None))["code"]) == (409, "replayed_request")
            async with session.post(f"{url}/orders", data=body + b" ", headers=signed(key, "POST", "/orders", body)) as answer:
                assert (answer.status, (await answer.json(content_type=None))["code"]) == (401, "invalid_credentials")
            assert len(upstream.requests) == 1
            forged = dict.fromkeys((*IDENTITY, "X-Real-IP", "X-Forwarded-Host", "Forwarded"), "someone-else")
            async with session.get(f"{url}/public", headers=forged) as answer:
                assert answer.status == 200
            assert len(upstream.requests) == 2
            assert b"someone-else" not in upstream.raw
