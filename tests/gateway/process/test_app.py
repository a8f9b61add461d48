"""One worker, wired: what the rooms do together in a real gateway."""

import asyncio
import json
import signal
import ssl
from base64 import urlsafe_b64decode

import pytest
import redis.asyncio

from deploy.signing import SigningKey, sign
from gateway.keys import usage_store
from gateway.keys.vault import new_entry
from gateway.runtime import clock
from tests.support.certificates import end_of, self_signed
from tests.support.running import RunningGateway, running
from tests.support.wire import RawClient

ROUTES = "GET /wallets read spot\nPOST /orders trade spot\nGET /public public spot"


@pytest.fixture
def write(write_configuration):
    """Writes the configuration and returns its path."""
    return lambda **changes: write_configuration(**{"routes": ROUTES, **changes})


def signed(key, method, path, body=b"", *, extra=b""):
    """A request as a bot sends it."""
    outgoing = sign("mobee", SigningKey(key.key_id, key.secret.reveal().decode()), method, path, body, now_ms=clock.now_ms(), nonce="n")
    fields = b"".join(f"{name}: {value}\r\n".encode() for name, value in outgoing.headers.items())
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return b"%b %b HTTP/1.1\r\nHost: gate\r\n%b%b%b\r\n%b" % (method.encode(), outgoing.target.encode(), fields, length, extra, body)


async def connect(gateway, **how):
    return RawClient(*await asyncio.open_connection(*gateway.public, **how))


async def test_a_signed_request_reaches_its_upstream_with_who_it_is_from(write, upstream, key):
    async with running(write()) as gateway:
        client = await connect(gateway)
        assert (await client.ask(signed(key, "GET", "/wallets"))).status == 200
        assert (await client.ask(signed(key, "POST", "/orders", b'{"side":"buy"}'))).status == 200
        read, trade = upstream.requests
        assert read.values(b"x-account-id") == [b"alice"]
        assert trade.values(b"x-key-id") == [key.key_id.encode()]
        await client.close()


async def test_use_and_refusals_of_a_key_are_there_to_read(write, redis_url, key):
    async with running(write()) as gateway:
        client = await connect(gateway)
        assert (await client.ask(signed(key, "GET", "/wallets"))).status == 200
        order = signed(key, "POST", "/orders", b"{}")
        assert (await client.ask(order)).status == 200
        assert (await client.ask(order)).status == 409
        await client.close()
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0
    async with redis.asyncio.Redis.from_url(redis_url) as reader:
        now_ms = clock.now_ms()
        hours = await usage_store.read_hours(reader, key.key_id, now_ms=now_ms)
        last = await usage_store.read_last_use(reader, [key.key_id])
        refusals = await usage_store.read_refusals(reader, key.key_id)
    assert (hours[-1].admitted, hours[-1].refused) == (2, {"replayed_request": 1})
    assert last[key.key_id].client_ip == "127.0.0.1"
    assert 0 <= now_ms - last[key.key_id].at_ms < 3_600_000
    assert [(refusal.code, refusal.client_ip) for refusal in refusals] == [("replayed_request", "127.0.0.1")]


async def test_a_renewed_certificate_is_used_after_a_reload_without_a_restart(write, tmp_path):
    certificate, _key = self_signed(tmp_path / "tls", "127.0.0.1")
    more = '[listen.tls]\ncertificate = "tls/certificate.pem"\nkey = "tls/key.pem"'
    async with running(write(more=more)) as gateway:
        await served(gateway, certificate)
        ends = "gerbang_certificate_end_timestamp_seconds"
        assert await gateway.metric(ends) == end_of(certificate)
        open_connection = await connect(gateway, ssl=trusting(certificate))
        self_signed(tmp_path / "tls", "127.0.0.1", days=9)
        _status, report = await gateway.ask("POST", "/reload")
        assert report["outcome"] == "applied"
        assert await gateway.metric(ends) == end_of(certificate)
        await served(gateway, certificate)
        assert (await open_connection.ask(b"GET /public HTTP/1.1\r\nHost: gate\r\n\r\n")).status == 200
        await open_connection.close()


async def test_a_certificate_that_does_not_fit_its_key_is_refused_by_a_reload(write, tmp_path):
    certificate, _key = self_signed(tmp_path / "tls", "127.0.0.1")
    good = certificate.read_bytes()
    async with running(write(more='[listen.tls]\ncertificate = "tls/certificate.pem"\nkey = "tls/key.pem"')) as gateway:
        other, _key = self_signed(tmp_path / "other", "127.0.0.1")
        certificate.write_bytes(other.read_bytes())
        status, report = await gateway.ask("POST", "/reload")
        assert (status, report["problems"][0]["path"]) == (422, "listen.tls")
        certificate.write_bytes(good)
        await served(gateway, certificate)


def trusting(certificate):
    return ssl.create_default_context(cafile=certificate)


async def served(gateway, certificate):
    """A new connection is served under exactly this certificate."""
    client = await connect(gateway, ssl=trusting(certificate))
    assert (await client.ask(b"GET /public HTTP/1.1\r\nHost: gate\r\n\r\n")).status == 200
    await client.close()


async def test_a_renewed_authority_of_an_upstream_is_trusted_after_a_reload(write, upstream, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def renew():
        context.load_cert_chain(*self_signed(tmp_path / "upstream", "127.0.0.1"))
        for side in upstream.sides:
            side.close()

    renew()
    await upstream.stop()
    await upstream.start(context)
    secure = f"https://127.0.0.1:{upstream.port}"
    more = f'[upstreams.safe]\nservers = ["{secure}"]\ntls = {{ ca = "upstream/certificate.pem" }}'
    ask = b"GET /safe HTTP/1.1\r\nHost: gate\r\n\r\n"
    async with running(write(more=more, routes="GET /safe public safe")) as gateway:
        client = await connect(gateway)
        assert (await client.ask(ask)).status == 200
        renew()
        assert (await client.ask(ask)).status == 502
        _status, report = await gateway.ask("POST", "/reload")
        assert report["outcome"] == "applied"
        assert (await client.ask(ask)).status == 200
        await client.close()


async def test_trusted_proxies_change_by_a_reload(write, key):
    forwarded = b"X-Forwarded-For: 8.8.8.8\r\n"
    async with running(write()) as gateway:
        client = await connect(gateway)
        ask = b"GET /gateway/v1/ip HTTP/1.1\r\nHost: gate\r\n" + forwarded + b"\r\n"
        assert json.loads((await client.ask(ask)).body)["client_ip"] == "127.0.0.1"
        write(more='[client_ip]\ntrusted_proxies = ["127.0.0.0/8"]')
        await gateway.ask("POST", "/reload")
        assert json.loads((await client.ask(ask)).body)["client_ip"] == "8.8.8.8"
        await client.close()


async def test_a_new_issuer_is_asserted_from_the_next_request_on(write, upstream):
    async with running(write()) as gateway:
        client = await connect(gateway)
        ask = b"GET /public HTTP/1.1\r\nHost: gate\r\n\r\n"
        await client.ask(ask)
        write(more='[assertion]\nissuer = "another"')
        await gateway.ask("POST", "/reload")
        await client.ask(ask)
        await client.close()
    issuers = [claims_of(request.values(b"x-gateway-assertion")[0])["iss"] for request in upstream.requests]
    assert issuers == ["gerbang", "another"]


def claims_of(token):
    return json.loads(urlsafe_b64decode(token.split(b".")[1] + b"=="))


async def test_readiness_tells_what_is_away_and_that_it_came_back(write, own_redis, own_postgres, key):
    path = write(redis=own_redis.url, postgres=own_postgres.gateway_dsn)
    async with running(path) as gateway:
        assert (await gateway.ask("GET", "/ready"))[1]["status"] == "ready"
        own_redis.stop()
        _status, ready = await gateway.ask("GET", "/ready")
        assert "redis" in ready["degraded"]
        own_postgres.stop()
        status, ready = await gateway.ask("GET", "/ready")
        assert (status, ready["missing"]) == (503, ["worker 0: no key store answers"])
        before = len(gateway.log)
        own_redis.start()
        own_postgres.start()
        for channel in ("redis", "postgres"):
            await gateway.event("invalidation_channel_up", after=before, channel=channel)
        status, ready = await gateway.ask("GET", "/ready")
        assert status == 200
        assert not {"redis", "postgres"} & set(ready["degraded"])


async def test_a_vault_that_opens_no_stored_secret_prevents_the_start(write, key):
    gateway = RunningGateway(write(vault=new_entry("k1")))
    await gateway.start()
    assert await gateway.ended() == 1
    assert "vault.keys: opens none of the stored secrets" in gateway.told()
    await gateway.close()
