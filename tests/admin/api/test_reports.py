"""Leak reports: signed ones revoke at once, forged ones change nothing, and an answer says which was which."""

import asyncio
import base64
import hashlib
import io
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from admin.api.reports import _MAX_LARGE, SecretReports
from gateway.keys import reseal
from gateway.keys.vault import Vault, new_entry
from gateway.runtime import clock
from gateway.runtime.tasks import cancel, spawn
from tests.support.admin import Customer, Reply, Service, running_service, settings_for
from tests.support.issuer import Issuer
from tests.support.stack import Database, sql

KEY = generate_private_key(SECP256R1())
FORGER = generate_private_key(SECP256R1())


def pem(key: EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.fixture
async def keys_url() -> AsyncIterator[str]:
    async def keys(_request: web.Request) -> web.StreamResponse:
        document = {"public_keys": [{"key_identifier": "k1", "key": pem(KEY), "is_current": True}, {"key_identifier": "odd", "key": "x"}]}
        return web.json_response(document)

    application = web.Application()
    application.router.add_get("/keys", keys)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/keys"
    await runner.cleanup()


@pytest.fixture
async def service(issuer: Issuer, database: Database, redis_url: str, keys_url: str) -> AsyncIterator[Service]:
    async with running_service(settings_for(issuer, database.admin_dsn, redis_url, leaks={"keys_url": keys_url}), issuer) as service:
        yield service


async def report(
    service: Service,
    *items: Any,
    key: EllipticCurvePrivateKey = KEY,
    name: str = "k1",
    body: bytes | None = None,
    sent: bytes | None = None,
) -> Reply:
    data = json.dumps(list(items)).encode() if body is None else body
    signature = base64.b64encode(key.sign(data, ECDSA(SHA256()))).decode()
    headers = {"Github-Public-Key-Identifier": name, "Github-Public-Key-Signature": signature, "Content-Type": "application/json"}
    return await service.send("POST", f"{service.public}/reports/secrets", data=io.BytesIO(data if sent is None else sent), headers=headers)


def item(token: str, url: str = "https://github.com/x/y/blob/z/bot.py") -> dict[str, str]:
    return {"token": token, "type": "gerbang_secret", "url": url, "source": "content"}


async def test_a_signed_report_revokes_within_a_second_and_answers_for_each_token(alice: Customer, service: Service) -> None:
    created = (await alice.create()).body
    other = (await alice.create(label="Other")).body
    await report(service, item("warm up"))
    started = clock.monotonic_ms()
    answer = await report(service, item(created["secret"]), item("gbs_nothing"))
    shown = (await alice.call("GET", f"keys/{created['key']['id']}")).body
    assert clock.monotonic_ms() - started < 1_000
    assert (answer.status, [each["label"] for each in answer.body]) == (200, ["true_positive", "false_positive"])
    assert answer.body[0]["token_hash"] == hashlib.sha256(created["secret"].encode()).hexdigest()
    assert answer.body[0]["token_type"] == "gerbang_secret"
    assert (shown["status"], shown["revoked_reason"]) == ("revoked", "leaked")
    assert (await alice.call("GET", f"keys/{other['key']['id']}")).body["status"] == "active"
    event = next(each for each in (await alice.call("GET", "audit")).body["events"] if each["event"] == "key_revoked")
    assert (event["actor"], event["detail"]["reason"], event["client_ip"]) == ("system", "leaked", None)
    assert created["secret"] not in answer.text
    again = await report(service, item(created["secret"]))
    assert again.body[0]["label"] == "true_positive"


@pytest.mark.parametrize(
    "odd",
    [
        {"token": "x" * 10_000, "type": "gerbang_secret"},
        {"token": "x", "type": "y" * 1_000, "source": "z" * 1_000},
        {"token": "x", "type": "y", "url": "https://github.com/" + "z" * 10_000},
        {"token": "x", "type": "y", "url": "", "source": "Npm", "more": None},
        {"token": "\0", "type": "y", "url": None},
    ],
)
async def test_an_odd_finding_keeps_no_other_key_alive(alice: Customer, service: Service, odd: dict[str, Any]) -> None:
    created = (await alice.create()).body
    answer = await report(service, odd, item(created["secret"], url=odd.get("url") or "\0"))
    assert [each["label"] for each in answer.body] == ["false_positive", "true_positive"]
    assert (await alice.call("GET", f"keys/{created['key']['id']}")).body["status"] == "revoked"


async def test_a_report_may_hold_thousands(alice: Customer, service: Service) -> None:
    secrets = [(await alice.create(label=label)).body["secret"] for label in ("first", "last")]
    answer = await report(service, item(secrets[0]), *[item(f"gbs_{number}", url="") for number in range(9_000)], item(secrets[1]))
    labels = [each["label"] for each in answer.body]
    assert (labels[0], labels[-1], set(labels[1:-1])) == ("true_positive", "true_positive", {"false_positive"})


@pytest.mark.parametrize("forged", [{"key": FORGER}, {"name": "k2"}, {"name": ""}, {"sent": b"[]"}])
async def test_a_forged_report_changes_nothing(alice: Customer, service: Service, forged: dict[str, Any]) -> None:
    created = (await alice.create()).body
    refused = await report(service, item(created["secret"]), **forged)
    assert (refused.status, refused.code) == (403, "report_not_signed")
    assert created["key"]["id"] not in refused.text
    assert (await alice.call("GET", f"keys/{created['key']['id']}")).body["status"] == "active"


@pytest.mark.parametrize("forged", [{"key": FORGER}, {"name": "k2"}])
async def test_a_forged_report_is_told_apart_before_anything_in_it_is_looked_at(
    alice: Customer, service: Service, forged: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it takes as long, and says as much, whether a secret in it is known or not."""
    known = (await alice.create()).body["secret"]
    looked_at: list[object] = []
    monkeypatch.setattr("admin.api.reports.read_model", lambda *arguments: looked_at.append(arguments))
    answers = [await report(service, item(token), **forged) for token in (known, "gbs_" + "0" * len(known[4:]))]
    told = [{name: value for name, value in answer.body.items() if name != "request_id"} for answer in answers]
    assert (told[0] == told[1], told[0]["code"], looked_at) == (True, "report_not_signed", [])


async def test_reports_of_one_address_are_read_a_few_at_a_time_and_another_address_does_not_wait(service: Service) -> None:
    host, _, port = service.public.rpartition("/")[2].partition(":")
    head = (
        "POST /reports/secrets HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
        "Github-Public-Key-Identifier: k1\r\nGithub-Public-Key-Signature: AAAA\r\nConnection: close\r\n"
    )

    opened: list[asyncio.StreamWriter] = []

    async def begin(address: str, *, more: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(host, int(port), local_addr=(address, 0))
        writer.write(f"{head}{more}".encode())
        opened.append(writer)
        return reader, writer

    slow = [await begin("127.0.0.2", more="Expect: 100-continue\r\n\r\n") for _ in range(4)]
    for reader, _ in slow:
        assert b"100 Continue" in await reader.readuntil(b"\r\n\r\n"), "being read"
    waiting, _ = await begin("127.0.0.2", more="\r\n[]")
    late = spawn(waiting.read(), name="the answer that waits")
    for _ in range(3):
        other, _ = await begin("127.0.0.3", more="\r\n[]")
        assert (await other.read()).startswith(b"HTTP/1.1 403 ")
    assert not late.done(), "it came before those"
    slow[0][1].write(b"[]")
    assert (await late).startswith(b"HTTP/1.1 403 "), "in its turn"
    for writer in opened:
        writer.close()
        await writer.wait_closed()


async def test_large_reports_of_many_addresses_are_read_a_few_at_a_time_and_a_small_one_does_not_wait(service: Service) -> None:
    """Forged ones, slowly sent, must not fill the memory."""
    host, _, port = service.public.rpartition("/")[2].partition(":")
    opened: list[asyncio.StreamWriter] = []

    async def begin(address: str, length: int) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection(host, int(port), local_addr=(address, 0))
        framing = f"Content-Length: {length}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        writer.write(f"POST /reports/secrets HTTP/1.1\r\nHost: localhost\r\n{framing}".encode())
        opened.append(writer)
        return reader

    for number in range(_MAX_LARGE):
        reader = await begin(f"127.0.1.{1 + number // 4}", 100_000)
        assert b"100 Continue" in await reader.readuntil(b"\r\n\r\n"), "being read"
    waiting = await begin("127.0.2.1", 100_000)
    late = spawn(waiting.read(), name="the answer that waits")
    small = await begin("127.0.2.2", 2)
    opened[-1].write(b"[]")
    assert b"HTTP/1.1 403 " in await small.read()
    opened[-2].write(bytes(100_000))
    await asyncio.sleep(0.2)
    assert not late.done(), "it came before those"
    opened[0].write(bytes(100_000))
    assert b"HTTP/1.1 403 " in await late, "in its turn"
    for writer in opened:
        writer.close()


async def test_the_networks_of_one_ipv6_site_do_not_have_all_large_reports_that_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reading: list[str] = []

    async def never(request: Any, **_limits: object) -> bytes:
        reading.append(request.address)
        await asyncio.Event().wait()
        return b""

    monkeypatch.setattr("admin.api.reports.read_body", never)
    unused: Any = None
    handler = SecretReports(unused, unused, client_ip=lambda request: request.address, timeout_s=1)  # type: ignore[attr-defined]  # of a request of its own

    def report_from(address: str, size: int) -> asyncio.Task[Any]:
        request: Any = SimpleNamespace(address=address, content_length=size)
        return spawn(handler.handle(request), name="a report")

    tasks = [report_from(f"2001:db8:1:{network:x}::1", 100_000) for network in range(40)]
    tasks += [report_from("2001:db8:1:ffff::1", 2), report_from("2001:db8:2::1", 100_000), report_from("192.0.2.1", 100_000)]
    await asyncio.sleep(0.05)
    assert len(reading) == 8 + 3
    assert {"2001:db8:1:ffff::1", "2001:db8:2::1", "192.0.2.1"} < set(reading)
    await cancel(*tasks)


@pytest.mark.parametrize(
    "headers", [{}, {"Github-Public-Key-Identifier": "k1"}, {"Github-Public-Key-Identifier": "k1", "Github-Public-Key-Signature": "é"}]
)
async def test_a_report_without_a_whole_signature_is_refused(service: Service, headers: dict[str, str]) -> None:
    refused = await service.send("POST", f"{service.public}/reports/secrets", data=b"[]", headers=headers)
    assert refused.status == 403


@pytest.mark.parametrize(
    ("body", "status"), [(b"{}", 422), (b"[", 400), (b"[{}]", 422), (b"[1]", 422), (b'["' + b"x" * (1 << 20) + b'"]', 413)]
)
async def test_a_signed_report_that_is_none_is_refused(service: Service, body: bytes, status: int) -> None:
    assert (await report(service, body=body)).status == status


async def test_a_key_made_before_there_were_digests_is_found_once_they_are_filled_in(
    alice: Customer, service: Service, database: Database
) -> None:
    created = (await alice.create()).body
    sql(database.server, "UPDATE api_keys SET secret_digest = NULL", database.name)
    connection = await asyncpg.connect(database.admin_dsn)
    old = service.settings.vault.keys.get_secret_value()
    assert await reseal.fill_digests(connection, Vault.parse(old)) == 1
    assert await reseal.fill_digests(connection, Vault.parse(old)) == 0
    assert (await report(service, item(created["secret"]))).body[0]["label"] == "true_positive"
    await connection.close()


async def test_resealing_renews_digests_for_the_rings_first_key(alice: Customer, service: Service, database: Database) -> None:
    created = (await alice.create()).body
    connection = await asyncpg.connect(database.admin_dsn)
    anew = Vault.parse(f"{new_entry('new')} {service.settings.vault.keys.get_secret_value()}")
    await reseal.reseal(connection, anew)
    assert await connection.fetchval("SELECT secret_digest FROM api_keys") == anew.digests(created["secret"].encode())[0]
    await connection.close()


async def test_without_the_setting_there_is_no_such_endpoint(issuer: Issuer, database: Database, redis_url: str) -> None:
    async with running_service(settings_for(issuer, database.admin_dsn, redis_url), issuer) as plain:
        assert (await report(plain)).status == 404
        assert "/reports/secrets" not in (await plain.send("GET", f"{plain.public}/openapi.json")).text


async def test_the_document_describes_it(service: Service) -> None:
    document = (await service.send("GET", f"{service.public}/openapi.json")).body
    assert document["paths"]["/reports/secrets"]["post"]["security"] == []
