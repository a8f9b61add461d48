"""The decision endpoint, asked directly."""

import gzip
import json
from io import BytesIO
from itertools import product

import aiohttp

from deploy.signing import sign
from gateway.process.app import UNSTATED_PEERS
from gateway.runtime import clock
from tests.support.decisions import IDENTITY, TRUSTED, signed, signing_key
from tests.support.running import running


async def ask(gateway, headers, *, how="nginx?content=dropped", method="GET", data=None, peer="127.0.0.1"):
    host, port = gateway.ops
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=(peer, 0))) as session,
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
    # Binance's parameters may stand in content, whatever the method.
    outgoing = sign("binance", signing_key(key), "GET", "/wallets", b"", now_ms=clock.now_ms(), nonce="b")
    for way, told in (
        ("nginx", of("GET", outgoing.target)),
        ("forward-auth", forwarded("GET", outgoing.target)),
        (f"envoy{outgoing.target}", {}),
    ):
        _, headers, body = await ask(gate, outgoing.headers | told, how=way)
        assert headers["X-Gerbang-Code"] == "malformed_request"
        assert b"did not send the body" in body
    # Any GET may have content, too (RFC 9110 §9.3.1).
    for way, told in (("nginx", of("GET", "/wallets")), ("forward-auth", forwarded("GET", "/wallets")), ("envoy/wallets", {})):
        status, headers, _ = await ask(gate, signed(key, "GET", "/wallets") | told, how=way)
        assert (status, headers["X-Gerbang-Code"]) == (403 if way == "nginx" else 400, "malformed_request")
        if way != "envoy/wallets":
            assert (await ask(gate, signed(key, "GET", "/wallets") | told, how=f"{way}?content=dropped"))[0] == 200
    # On a public route nothing is signed, and the upstream is told that it is nobody.
    assert (await ask(gate, of("GET", "/public"), how="nginx"))[0] == 200


async def test_what_is_admitted_without_a_statement_is_counted_and_each_such_proxy_is_named_once(write, key):
    proxies = [f"127.0.0.{number}" for number in range(2, UNSTATED_PEERS + 4)]
    async with running(write('[client_ip]\ntrusted_proxies = ["127.0.0.0/8"]\n[auth]\nunseen_content = "ignore"')) as gateway:

        async def asks(way, method, target, *, peer="127.0.0.1"):
            told = of(method, target) if way.startswith("nginx") else forwarded(method, target)
            return (await ask(gateway, signed(key, method, target) | told, how=way, peer=peer))[0]

        assert await asks("forward-auth?content=dropped", "GET", "/wallets") == 200  # stated
        assert await asks("forward-auth", "GET", "/public") == 200  # nothing is signed
        assert await asks("forward-auth", "POST", "/orders") == 400  # refused
        assert await gateway.metric("gerbang_decisions_unstated_total") == 0
        for peer in (proxies[0], *proxies):
            assert await asks("nginx", "GET", "/wallets", peer=peer) == 200
        assert await gateway.metric("gerbang_decisions_unstated_total") == len(proxies) + 1
        await gateway.ask("POST", "/reload")
        await gateway.event("reload")  # all lines before it are here
        warned = [line["peer"] for line in gateway.log if line["event"] == "content_unstated"]
        assert warned == proxies[:UNSTATED_PEERS]
        assert "unseen_content" in (await gateway.event("content_unstated", level="warning"))["detail"]


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
        assert b"configuration may state" in body
    for way in ("envoy?content=dropped/wallets", "envoy?content=sent", "envoy?content=sen/wallets", "envoy"):
        status, _, body = await ask(gate, signed(key, "GET", "/wallets"), how=way)
        assert status == 400
        assert b"configuration may state content=sent after the path" in body


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


async def test_content_too_long_for_the_channel_is_refused_and_ends_no_worker(write):
    async with running(write(f"[limits]\nmax_body_bytes = {32 << 20}\n{TRUSTED}")) as gateway:
        for content, status in ((b"\0" * (16 << 20), 413), (b"\0" * (8 << 20), 401), (b"x", 401)):
            told = await ask(gateway, {}, how="envoy?content=sent/orders", method="POST", data=BytesIO(content))
            assert (told[0], len(content)) == (status, len(content))
        assert await gateway.metric("gerbang_worker_restarts_total") == 0


async def test_the_question_must_be_clear_and_come_from_a_trusted_proxy(write, key):
    async with running(write()) as gateway:
        status, told, _ = await ask(gateway, signed(key, "GET", "/wallets"))
        assert (status, told["X-Gerbang-Code"]) == (403, "malformed_request")
    async with running(write(more="")) as gateway:
        status, _, body = await ask(gateway, signed(key, "GET", "/wallets") | of("GET", "/wallets"))
        assert status == 403
        assert b"trusted_proxies" in body
