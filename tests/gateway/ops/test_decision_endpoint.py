"""The decision endpoint, asked directly, by a real nginx and by a real Envoy."""

import asyncio
import gzip
import importlib.util
import json
import os
import re
import shutil
import socket
from contextlib import asynccontextmanager, suppress
from itertools import product
from pathlib import Path

import aiohttp
import asyncpg
import pytest
import yaml

from deploy.signing import SigningKey, sign
from gateway.admission.dialects import CREDENTIAL_FIELDS
from gateway.keys.vault import Vault, new_entry
from gateway.runtime import clock
from tests.support.keys import add_key
from tests.support.running import configuration, running
from tests.support.wire import RawClient, answering, recording_upstream

DEPLOY = Path(__file__).parents[3] / "deploy"
VAULT = new_entry("k1")
ROUTES = "GET /wallets read spot\nPOST /orders trade spot\nDELETE /orders/{id} trade spot\nGET /public public spot"
SESSION = (
    '[[routes]]\nmatch = "GET /ws"\nscope = "public"\nupstream = "spot"\nwebsocket = "mobee"\nmethods = "m"\n'
    '[methods.m]\n"subscribe MK" = { scope = "public" }\n'
)
STREAM = '[[routes]]\nmatch = "GET /stream"\nscope = "public"\nupstream = "spot"\nwebsocket = true\n'
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
        path.write_text(configuration(**values, routes=ROUTES, more=more) + STREAM + SESSION)
        return path

    return written


@pytest.fixture
async def gate(write):
    async with running(write()) as gateway:
        yield gateway


def signing_key(key):
    return SigningKey(key.key_id, key.secret.reveal().decode())


def signed(key, method, target, body=b""):
    outgoing = sign("mobee", signing_key(key), method, target, body, now_ms=clock.now_ms(), nonce="n")
    return dict(outgoing.headers)


async def ask(gateway, headers, *, how="nginx?content=dropped", method="GET", data=None):
    host, port = gateway.ops
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"http://{host}:{port}/decision/{how}", headers=headers, data=data) as answer,
    ):
        return answer.status, answer.headers, await answer.read()


def of(method, uri):
    return {"X-Original-Method": method, "X-Original-URI": uri, "X-Forwarded-For": "203.0.113.9"}


def forwarded(method, uri):
    return {"X-Forwarded-Method": method, "X-Forwarded-Uri": uri}


async def test_a_signed_request_may_pass_and_the_upstream_is_told_who_it_is_from(write, key):
    async with running(write()) as gateway:
        status, headers, body = await ask(gateway, signed(key, "GET", "/wallets") | of("GET", "/wallets"))
        assert (status, body) == (200, b"")
        assert headers["X-Account-Id"] == key.account_id
        assert headers["X-Key-Id"] == key.key_id
        assert headers["X-Client-IP"] == "203.0.113.9"
        assert headers["X-Gateway-Assertion"].count(".") == 2
        assert int(headers["RateLimit-Remaining"]) > 0


async def test_a_session_cannot_be_decided_once_for_all(write):
    async with running(write()) as gateway:
        status, headers, body = await ask(gateway, forwarded("GET", "/ws"), how="forward-auth?content=dropped")
        assert (status, headers["X-Gerbang-Code"]) == (404, "no_route")
        assert "each message of this session is admitted individually" in json.loads(body)["detail"]


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
        status, told, body = await ask(gateway, headers, how="forward-auth?content=sent")
        assert (status, told["Content-Type"]) == (404, "application/problem+json")
        assert b"no_route" in body
        status, _, _ = await ask(gateway, signed(key, "GET", "/wallets"), how="envoy?content=sent/wallets")
        assert status == 200


async def test_a_trade_is_decided_once(write, key):
    async with running(write()) as gateway:
        body = b'{"price":"1"}'
        headers = signed(key, "POST", "/orders", body) | {"X-Forwarded-Method": "POST", "X-Forwarded-Uri": "/orders"}
        first, second = [await ask(gateway, headers, how="forward-auth", method="POST", data=body) for _ in range(2)]
        assert (first[0], second[0]) == (200, 409)


UNWANTED = (
    "X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Method", "X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix",
    "True-Client-IP", "Client-IP", "X-Envoy-Original-Path", "X_Account_Id", "X-Account_Id", "X_Forwarded_For", "X_Original_Anything",
    "X.Account.Id",
)  # fmt: skip


async def test_a_field_that_the_gate_would_not_forward_is_refused_whoever_asks(gate, key):
    """The gate cannot take it out of what another proxy forwards."""
    ways = {
        "nginx?content=dropped": of("GET", "/wallets"),
        "forward-auth?content=dropped": forwarded("GET", "/wallets"),
        "envoy?content=sent/wallets": {},
    }
    for name in UNWANTED:
        for way, told in ways.items():
            if way.startswith("envoy") and name.startswith("X-Envoy"):
                continue  # Envoy removes those of clients, and adds its own
            status, headers, body = await ask(gate, signed(key, "GET", "/wallets") | told | {name: "DELETE"}, how=way)
            assert (status, headers["X-Gerbang-Code"]) == (403 if way.startswith("nginx") else 400, "malformed_request"), (name, way)
            assert name.lower().encode() in body
    # What one proxy tells the method by is nothing that another's client may send.
    told = ways["forward-auth?content=dropped"] | {"X-Original-URI": "/orders"}
    status, _, body = await ask(gate, signed(key, "GET", "/wallets") | told, how="forward-auth?content=dropped")
    assert status == 400
    assert b"x-original-uri" in body


async def test_content_that_was_not_seen_is_not_let_through_on_a_signature_over_none(gate, key):
    """A proxy whose configuration says nothing of it may forward some."""
    calls = [("POST", "/orders"), ("DELETE", "/orders/1")]
    for number, (dialect, (method, target)) in enumerate(product(("mobee", "rfc9421", "binance"), calls)):
        for way, asked in (("forward-auth", "GET"), ("forward-auth", method), ("nginx", "GET"), ("envoy", method)):
            outgoing = sign(dialect, signing_key(key), method, target, b"", now_ms=clock.now_ms(), nonce=f"{way}{asked}{method}")
            told = {"nginx": of, "forward-auth": forwarded}.get(way, lambda *_: {})(method, outgoing.target)
            told["X-Forwarded-For"] = f"203.0.113.{number}"  # few refusals of one address are explained
            how = f"envoy{outgoing.target}" if way == "envoy" else way
            status, headers, body = await ask(gate, outgoing.headers | told, how=how, method=asked)
            assert (status, headers["X-Gerbang-Code"]) == (403 if way == "nginx" else 400, "malformed_request"), (dialect, method, way)
            assert b"did not send the body" in body
    # Content of a GET means nothing (RFC 9110 §9.3.1), and nothing is changed by one that reads.
    for way, told in (("nginx", of("GET", "/wallets")), ("forward-auth", forwarded("GET", "/wallets")), ("envoy/wallets", {})):
        assert (await ask(gate, signed(key, "GET", "/wallets") | told, how=way))[0] == 200
    # On a public route nothing is signed, and the upstream is told that it is nobody.
    assert (await ask(gate, of("GET", "/public"), how="nginx"))[0] == 200


async def test_a_proxy_states_in_its_configuration_what_becomes_of_the_content(gate, key):
    """Behind the path, where no client can."""
    for way in ("nginx?content=dropped", "forward-auth?content=dropped", "forward-auth?content=sent"):
        for method, target in (("POST", "/orders"), ("GET", "/wallets")):
            told = of(method, target) if way.startswith("nginx") else forwarded(method, target)
            nonce = f"{way}{method}".replace("?", "-")
            outgoing = sign("rfc9421", signing_key(key), method, target, b"", now_ms=clock.now_ms(), nonce=nonce)
            assert (await ask(gate, outgoing.headers | told, how=way))[0] == 200
    for way in ("nginx?content=sent", "forward-auth?content=droppe", "forward-auth?content=dropped&x=1"):
        told = of("POST", "/orders") if way.startswith("nginx") else forwarded("POST", "/orders")
        _, headers, body = await ask(gate, signed(key, "POST", "/orders") | told, how=way)
        assert headers["X-Gerbang-Code"] == "malformed_request"
        assert b"configuration may say" in body
    for way in ("envoy?content=dropped/wallets", "envoy?content=sent", "envoy?content=sen/wallets", "envoy"):
        status, _, body = await ask(gate, signed(key, "GET", "/wallets"), how=way)
        assert status == 400
        assert b"configuration may say content=sent behind the path" in body


async def test_envoys_prefix_stands_before_whatever_the_client_sent(gate, key):
    at = "/wallets?x=content=sent"
    outgoing = sign("rfc9421", signing_key(key), "GET", at, b"", now_ms=clock.now_ms(), nonce="n")
    assert (await ask(gate, outgoing.headers, how=f"envoy?content=sent{at}"))[0] == 200
    outgoing = sign("rfc9421", signing_key(key), "DELETE", "/orders/1?x=content=sent", b"", now_ms=clock.now_ms(), nonce="d")
    asked = await ask(gate, outgoing.headers, how="envoy/orders/1?x=content=sent", method="DELETE")
    assert asked[0] == 400  # the client says it, not the configuration


async def test_what_was_sent_is_taken_as_it_was_sent_and_only_whole(gate, key):
    body = b'{"price":"1"}'
    partial = signed(key, "POST", "/orders", body) | {"x-envoy-auth-partial-body": "true"}
    assert (await ask(gate, partial, how="envoy?content=sent/orders", method="POST", data=body))[0] == 400
    body = gzip.compress(body)  # signed as it is, and not to be decoded here
    headers = signed(key, "POST", "/orders", body) | {"Content-Encoding": "gzip"}
    assert (await ask(gate, headers, how="envoy/orders", method="POST", data=body))[0] == 200  # what came whole is seen


async def test_a_question_may_be_as_large_as_the_gate_takes_a_request(gate, key):
    asked = signed(key, "GET", "/wallets") | of("GET", "/wallets")
    assert (await ask(gate, asked | {"X-Note": "a" * 15_000}))[0] == 200
    assert (await ask(gate, asked | {f"X-Note-{number}": "a" for number in range(300)}))[0] == 200
    status, headers, body = await ask(gate, asked | {"X-Note": "a" * 16_500})
    assert (status, headers["X-Gerbang-Code"], headers["X-Gerbang-Status"]) == (403, "headers_too_large", "431")
    assert json.loads(body)["limit"] == 16_384
    assert json.loads(headers["X-Gerbang-Body"]) == json.loads(body)  # nginx throws bodies away


async def test_the_question_must_be_clear_and_come_from_a_trusted_proxy(write, key):
    async with running(write()) as gateway:
        status, told, _ = await ask(gateway, signed(key, "GET", "/wallets"))
        assert (status, told["X-Gerbang-Code"]) == (403, "malformed_request")
    async with running(write(more="")) as gateway:
        status, _, body = await ask(gateway, signed(key, "GET", "/wallets") | of("GET", "/wallets"))
        assert status == 403
        assert b"trusted_proxies" in body


@asynccontextmanager
async def raw_client(host, port):
    client = RawClient(*await asyncio.open_connection(host, port))
    try:
        yield client
    finally:
        await client.close()


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
    for shown, real in (("8080", gateway.public[1]), ("8081", gateway.ops[1]), ("8092", upstream_port), ("8088", port)):
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
            assert int(answer.headers["RateLimit-Remaining"]) > 0
            await check_refusals(session, url, key)
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
            for data in (body, in_chunks(body)):
                async with session.get(f"{url}/wallets", data=data, headers=signed(key, "GET", "/wallets")) as answer:
                    assert answer.status == 200
            assert [request.body for request in upstream.requests] == [b""] * 5
            assert b"someone-else" not in upstream.raw
            await check_what_the_gate_answers_itself(session, url, upstream)


async def check_refusals(session, url, key):
    """Each reaches the client as the gate wrote it: status, type, body and fields."""
    async with session.get(f"{url}/wallets") as answer:
        assert (answer.status, answer.content_type) == (401, "application/problem+json")
        problem = await answer.json(content_type=None)
        assert (problem["code"], problem["status"], problem["dialects"][0]) == ("missing_credentials", 401, "mobee")
    async with session.get(f"{url}/nowhere", headers=signed(key, "GET", "/nowhere")) as answer:
        assert (answer.status, (await answer.json(content_type=None))["code"]) == (404, "no_route")
    async with session.put(f"{url}/wallets", headers=signed(key, "PUT", "/wallets")) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    async with session.get(f"{url}/wallets", headers={"X-MBX-APIKEY": key.key_id}) as answer:
        assert (answer.status, answer.content_type) == (401, "application/json")
        assert (await answer.json())["gerbang"]["code"] == "missing_credentials"


async def check_what_the_gate_answers_itself(session, url, upstream):
    async with session.get(f"{url}/gateway/v1/ip") as answer:
        assert (await answer.json())["family"] == "ipv4"
    upstream.script = answering(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
    async with raw_client("127.0.0.1", int(url.rpartition(":")[2])) as client:
        client.send(
            b"GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert (await client.head())[0] == 101
    assert any(request.line.startswith(b"GET /stream ") for request in upstream.requests)


async def test_a_real_caddy_asks_for_reading_calls_and_leaves_the_others_to_the_gate(write, key, upstream, tmp_path):
    if shutil.which("caddy") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("caddy is not here: apt-get install caddy")
    port = free_port()
    async with running(write()) as gateway:
        file = tmp_path / "Caddyfile"
        file.write_text(placed((DEPLOY / "caddy" / "decision.Caddyfile").read_text(), gateway, upstream, port))
        command = ["env", f"HOME={tmp_path}", "caddy", "run", "--config", str(file), "--adapter", "caddyfile"]
        async with proxy(command, port, tmp_path / "log") as url, aiohttp.ClientSession() as session:
            forged = dict.fromkeys((*IDENTITY, *ADDRESS, "X-Gateway-Assertion", "X-Forwarded-Uri", "X-Forwarded-Method"), "someone-else")
            async with session.get(f"{url}/wallets", headers=signed(key, "GET", "/wallets") | forged) as answer:
                assert answer.status == 200
                assert int(answer.headers["RateLimit-Remaining"]) > 0
            assert re.search(rb"(?i)x-account-id: " + key.account_id.encode() + rb"\r\n", upstream.raw)
            assert re.search(rb"(?i)x-client-ip: 127\.0\.0\.1\r\n", upstream.raw)
            # Content that no signature covers does not go on, even a GET's, and nobody's identity is nobody's.
            for data in (b"x=1", in_chunks(b"x=1")):
                async with session.get(f"{url}/wallets", data=data, headers=signed(key, "GET", "/wallets")) as answer:
                    assert (answer.status, (await answer.json(content_type=None))["code"]) == (401, "invalid_credentials")
            async with session.get(f"{url}/public", headers=forged) as answer:
                assert answer.status == 200
            async with session.head(f"{url}/wallets", headers=signed(key, "HEAD", "/wallets")) as answer:
                assert answer.status == 200
            assert [request.body for request in upstream.requests] == [b"", b"", b""]
            assert b"someone-else" not in upstream.raw
            assert not re.search(rb"(?i)x-request-signature|x-forwarded-(uri|method)", upstream.raw)
            await check_refusals(session, url, key)
            body = b'{"price":"1"}'
            headers = signed(key, "POST", "/orders") | {"X-Forwarded-Method": "GET"}
            async with session.post(f"{url}/orders", data=body, headers=headers) as answer:
                assert (answer.status, (await answer.json(content_type=None))["code"]) == (401, "invalid_credentials")
            async with session.post(f"{url}/orders", data=body, headers=signed(key, "POST", "/orders", body)) as answer:
                assert answer.status == 200
            assert [request.body for request in upstream.requests[3:]] == [body]
            await check_what_the_gate_answers_itself(session, url, upstream)


def test_traefiks_configuration_has_what_the_decision_relies_on():
    """Its binary is nowhere to be had from a package here, so this looks at the file alone."""
    configuration = yaml.safe_load((DEPLOY / "traefik" / "decision.yaml").read_text())["http"]
    decision = configuration["middlewares"]["gerbang-decision"]["forwardAuth"]
    assert decision["address"].endswith("/decision/forward-auth?content=sent")
    assert (decision["forwardBody"], decision["preserveRequestMethod"], decision["trustForwardHeader"]) == (True, True, False)
    assert {name.lower() for name in decision["authResponseHeaders"]} == {
        "x-account-id", "x-key-id", "x-key-scopes", "x-client-ip", "x-request-id", "x-gateway-assertion",
    }  # fmt: skip
    stripped = configuration["middlewares"]["gerbang-strip"]["headers"]["customRequestHeaders"]
    assert {name.decode() for name in CREDENTIAL_FIELDS} <= {name.lower() for name in stripped}
    assert set(stripped.values()) == {""}
    trading = configuration["routers"]["trading"]
    assert trading["middlewares"] == ["gerbang-decision", "gerbang-strip"]
    assert trading["priority"] < configuration["routers"]["gateway"]["priority"]
    assert {router["service"] for router in configuration["routers"].values()} == set(configuration["services"])


@pytest.mark.parametrize("file", ["nginx/decision.conf", "envoy/decision.yaml", "caddy/decision.Caddyfile", "traefik/decision.yaml"])
def test_every_field_of_credentials_is_taken_out_by_each_proxy(file):
    text = (DEPLOY / file).read_text().lower()
    assert [name for name in CREDENTIAL_FIELDS if name.decode() not in text] == []


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
            for data in (body, in_chunks(body)):  # a GET's content is seen, too
                async with session.get(f"{url}/wallets", data=data, headers=signed(key, "GET", "/wallets")) as answer:
                    assert (answer.status, (await answer.json(content_type=None))["code"]) == (401, "invalid_credentials")
            async with session.delete(f"{url}/orders/1", headers=signed(key, "DELETE", "/orders/1")) as answer:
                assert answer.status == 200  # without content there is none to see
            assert upstream.requests.pop().line.startswith(b"DELETE ")
            assert len(upstream.requests) == 1
            forged = dict.fromkeys((*IDENTITY, "X-Real-IP", "X-Forwarded-Host", "Forwarded"), "someone-else")
            async with session.get(f"{url}/public", headers=forged) as answer:
                assert answer.status == 200
            assert len(upstream.requests) == 2
            assert b"someone-else" not in upstream.raw
            await check_refusals(session, url, key)
            await check_what_the_gate_answers_itself(session, url, upstream)
