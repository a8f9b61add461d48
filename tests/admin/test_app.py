"""The admin service as a process: starts, says why it cannot, stops on a signal and finishes what it began."""

import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from admin.app import serving
from admin.metrics import FAMILIES
from admin.stores import SchemaOutdated
from gateway.errors import ConfigError, StoreUnavailable
from gateway.keys.vault import new_entry
from tests.support.admin import INTERNAL_TOKEN, running_service, settings_for
from tests.support.certificates import end_of, self_signed
from tests.support.issuer import Issuer
from tests.support.stack import Database, OwnPostgres, sql


def config(folder: Path, issuer: Issuer, database: Database, redis_url: str) -> Path:
    file = folder / "admin.toml"
    file.write_text(f"""
public_url = "http://127.0.0.1:8090"
[listen]
public = "127.0.0.1:0"
internal = "127.0.0.1:0"
[stores]
postgres = "{database.admin_dsn}"
redis = "{redis_url}"
[vault]
keys = "{new_entry("test")}"
[oidc]
issuer = "{issuer.url}"
audience = "gerbang"
[internal]
token = "{INTERNAL_TOKEN}"
""")
    return file


async def started(file: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", f"import sys, pathlib; from admin.app import run; sys.exit(run(pathlib.Path({str(file)!r})))",
        stderr=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."},
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_starts_and_ends_on_a_signal(
    tmp_path: Path, issuer: Issuer, database: Database, redis_url: str, number: signal.Signals
) -> None:
    process = await started(config(tmp_path, issuer, database, redis_url))
    assert process.stderr is not None
    line = b""
    while b'"ready"' not in line:
        line = await asyncio.wait_for(process.stderr.readline(), 60)
        assert line, "it ended before it was ready"
    process.send_signal(number)
    assert await asyncio.wait_for(process.wait(), 30) == 0
    assert INTERNAL_TOKEN.encode() not in line + await process.stderr.read()


async def test_a_configuration_that_cannot_be_used_is_told_with_every_problem(
    tmp_path: Path, issuer: Issuer, database: Database, redis_url: str
) -> None:
    file = config(tmp_path, issuer, database, redis_url)
    file.write_text(file.read_text().replace(f'token = "{INTERNAL_TOKEN}"', 'token = "short"').replace("[oidc]", "[oidc]\nsecret = 1"))
    process = await started(file)
    _, told = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert b"internal.token" in told
    assert b"oidc.secret" in told
    assert b"Traceback" not in told


async def test_it_waits_for_postgresql(issuer: Issuer, own_postgres: OwnPostgres, redis_url: str) -> None:
    own_postgres.stop()
    settings = settings_for(issuer, own_postgres.admin_dsn, redis_url)

    async def serve() -> str:
        async with (
            serving(settings, wait_s=60) as bound,
            aiohttp.ClientSession() as http,
            http.get(f"http://{bound.public}/ready") as answer,
        ):
            return await answer.text()

    serving_task = asyncio.get_running_loop().create_task(serve())
    done, _ = await asyncio.wait({serving_task}, timeout=0.2)
    assert not done
    own_postgres.start()
    assert "ready" in await asyncio.wait_for(serving_task, 60)


async def test_it_says_when_postgresql_does_not_come(issuer: Issuer, own_postgres: OwnPostgres, redis_url: str) -> None:
    own_postgres.stop()
    with pytest.raises(StoreUnavailable, match="PostgreSQL did not answer"):
        async with serving(settings_for(issuer, own_postgres.admin_dsn, redis_url), wait_s=0):
            pass


async def test_it_says_that_the_schema_is_missing(issuer: Issuer, database: Database, redis_url: str) -> None:
    sql(database.server, "DROP TABLE audit_events", database.name)
    with pytest.raises(SchemaOutdated, match="gerbang migrate"):
        async with serving(settings_for(issuer, database.admin_dsn, redis_url)):
            pass


async def test_a_request_under_way_is_finished_when_it_stops(issuer: Issuer, database: Database, redis_url: str) -> None:
    ready, stop = asyncio.Event(), asyncio.Event()
    urls: list[str] = []

    async def serve() -> None:
        async with serving(settings_for(issuer, database.admin_dsn, redis_url)) as bound:
            urls.append(str(bound.public))
            ready.set()
            await stop.wait()

    running = asyncio.get_running_loop().create_task(serve())
    await asyncio.wait_for(ready.wait(), 30)
    host, port = urls[0].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    token = issuer.bearer()["Authorization"]
    head = (
        "POST /api/v1/factors/totp HTTP/1.1",
        "Host: x",
        f"Authorization: {token}",
        "Content-Type: application/json",
        "Content-Length: 2",
    )
    writer.write("\r\n".join((*head, "", "{")).encode())
    await writer.drain()
    await asyncio.wait_for(issuer.keys_read.wait(), 10)  # it is being served: the token is looked at before the body is read
    stop.set()
    writer.write(b"}")
    assert b" 201 " in await asyncio.wait_for(reader.readline(), 10)
    await asyncio.wait_for(running, 30)
    writer.close()
    await writer.wait_closed()


async def test_a_balancer_has_time_to_notice_that_it_goes_and_a_second_signal_is_a_hurry(
    tmp_path: Path, issuer: Issuer, database: Database, redis_url: str
) -> None:
    file = config(tmp_path, issuer, database, redis_url)
    file.write_text(file.read_text().replace("[listen]", "[listen]\nshutdown_delay_ms = 600000"))
    process = await started(file)
    ready = await lines(process, "ready")
    async with aiohttp.ClientSession() as http:

        async def ask(path: str) -> tuple[int, str]:
            async with http.get(f"http://{ready['public']}{path}") as response:
                return response.status, await response.text()

        assert (await ask("/ready"))[0] == 200
        process.terminate()
        assert (await lines(process, "leaving"))["delay_ms"] == 600_000
        status, told = await ask("/ready")
        assert (status, json.loads(told)["missing"]) == (503, ["shutting down"])
        assert (await ask("/health"))[0] == 200
        process.send_signal(signal.SIGHUP)
        assert (await lines(process, "reload"))["outcome"] == "unchanged"
    process.terminate()
    assert await asyncio.wait_for(process.wait(), 30) == 0


async def test_it_can_be_stopped_while_it_waits_for_postgresql(
    tmp_path: Path, issuer: Issuer, own_postgres: OwnPostgres, database: Database, redis_url: str
) -> None:
    file = config(tmp_path, issuer, database, redis_url)
    own_postgres.stop()
    file.write_text(file.read_text().replace(database.admin_dsn, own_postgres.admin_dsn))
    process = await started(file)
    await lines(process, "waiting_for_postgres")
    process.send_signal(signal.SIGHUP)
    process.terminate()
    assert await asyncio.wait_for(process.wait(), 20) == 0
    assert process.stderr is not None
    assert b"Traceback" not in await process.stderr.read()


async def lines(process: asyncio.subprocess.Process, event: str) -> dict[str, Any]:
    """Read the log up to an event."""
    assert process.stderr is not None
    while line := await asyncio.wait_for(process.stderr.readline(), 60):
        told = json.loads(line)
        if told["event"] == event:
            return dict(told)
    raise AssertionError(f"it ended before {event}")


async def test_a_reload_swaps_what_it_can_refuses_the_rest_with_a_reason_and_loses_no_request(
    tmp_path: Path, issuer: Issuer, database: Database, redis_url: str
) -> None:
    file = config(tmp_path, issuer, database, redis_url)
    good = file.read_text()
    process = await started(file)
    ready = await lines(process, "ready")
    internal = f"http://{ready['internal']}"
    alice = "a" * 24

    async def ask(path: str, token: str = INTERNAL_TOKEN) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession() as http, http.get(internal + path, headers=headers) as response:
            return response.status, await response.text()

    async def reload(text: str) -> dict[str, Any]:
        file.write_text(text)
        process.send_signal(signal.SIGHUP)
        return await lines(process, "reload")

    assert (await ask("/internal/v1/keys", alice))[0] == 401
    named = good.replace("[internal]", "[internal]\ntokens = { alice = " + f'"{alice}"' + " }") + "[telemetry]\naccess_log = 1.0\n"
    applied = await reload(named)
    assert (applied["outcome"], alice in str(applied)) == ("applied", False)
    assert (await ask("/internal/v1/keys", alice))[0] == 200
    told = await lines(process, "request")
    assert (told["operator"], told["client_ip"], told["port"]) == ("alice", "127.0.0.1", "internal")
    for spoiled, path in (
        (named.replace('public = "127.0.0.1:0"', 'public = "127.0.0.1:1"'), "listen.public"),
        (named.replace(redis_url, "redis://127.0.0.1:9"), "stores.redis"),
        (named.replace("[telemetry]", "[telemetry]\ncolour = 1"), "telemetry.colour"),
    ):
        refused = await reload(spoiled)
        assert (refused["outcome"], refused["problems"][0]["path"]) == ("refused", path)
        assert (await ask("/internal/v1/keys", alice))[0] == 200
    assert (await reload(named))["outcome"] == "unchanged"
    _, metrics = await ask("/metrics")
    for sample in (
        'gerbang_admin_reloads_total{outcome="refused"} 3.0',
        'gerbang_admin_requests_total{outcome="answered",port="internal"}',
    ):
        assert sample in metrics
    assert not [family.name for family in FAMILIES if family.name not in metrics]
    process.terminate()
    assert await asyncio.wait_for(process.wait(), 30) == 0


async def test_a_reload_that_comes_just_before_the_end_fails_nothing(
    tmp_path: Path, issuer: Issuer, database: Database, redis_url: str
) -> None:
    process = await started(config(tmp_path, issuer, database, redis_url))
    await lines(process, "ready")
    for number in (signal.SIGHUP, signal.SIGTERM):
        process.send_signal(number)
    _, told = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, b"Traceback" in told, b'"error"' in told) == (0, False, False), told.decode()


async def test_a_reload_keeps_what_is_known_of_the_provider_while_it_is_away(issuer: Issuer, database: Database, redis_url: str) -> None:
    settings = settings_for(issuer, database.admin_dsn, redis_url)
    async with serving(settings) as bound, aiohttp.ClientSession() as http:

        async def status(token: str) -> int:
            async with http.get(f"http://{bound.public}/api/v1/account", headers={"Authorization": f"Bearer {token}"}) as response:
                told = await response.json()
            assert told.get("code") == {200: None, 401: "unauthenticated", 503: "identity_provider_unavailable"}[response.status]
            return response.status

        async def metrics() -> str:
            async with http.get(f"http://{bound.internal}/metrics") as response:
                return await response.text()

        assert await status(issuer.token()) == 200
        assert await status("of.nobody.here") == 401
        assert "\ngerbang_admin_provider_up 1.0\n" in await metrics()
        assert "\ngerbang_admin_provider_failures_total 0.0\n" in await metrics(), "a customer's trouble is not the provider's"
        issuer.fail_with = 500
        await bound.swap(settings.model_copy(update={"public_url": "http://localhost:1"}))
        assert await status(issuer.token()) == 200
        await bound.swap(settings.model_copy(update={"oidc": settings.oidc.model_copy(update={"timeout_ms": 1_234})}))
        assert await status(issuer.token()) == 503
        assert "\ngerbang_admin_provider_up 0.0\n" in await metrics()
        assert "\ngerbang_admin_provider_failures_total 0.0\n" not in await metrics()


async def test_when_its_certificate_ends_is_a_metric_and_a_renewed_one_is_seen(
    issuer: Issuer, database: Database, redis_url: str, tmp_path: Path
) -> None:
    certificate, key = self_signed(tmp_path, "localhost", days=3)
    tls = {"certificate": str(certificate), "key": str(key)}
    settings = settings_for(issuer, database.admin_dsn, redis_url, listen={"public": "127.0.0.1:0", "internal": "127.0.0.1:0", "tls": tls})
    async with serving(settings) as bound, aiohttp.ClientSession() as http:

        async def ends() -> float:
            async with http.get(f"http://{bound.internal}/metrics") as response:
                text = await response.text()
            return float(re.findall(r"^gerbang_admin_certificate_end_timestamp_seconds (\S+)$", text, re.MULTILINE)[0])

        assert await ends() == end_of(certificate)
        self_signed(tmp_path, "localhost", days=9)
        await bound.swap(settings)
        assert await ends() == end_of(certificate)


@pytest.mark.parametrize("left", ["keys and factors", "factors alone", "nothing"])
async def test_a_ring_that_opens_nothing_prevents_a_start_as_it_does_the_gateways(
    issuer: Issuer, database: Database, redis_url: str, left: str
) -> None:
    settings = settings_for(issuer, database.admin_dsn, redis_url)
    async with running_service(settings, issuer) as service:
        alice = service.customer("alice")
        if left != "nothing":
            await alice.enrol()
        if left == "keys and factors":
            assert (await alice.create()).status == 201
    other = settings_for(issuer, database.admin_dsn, redis_url, vault={"keys": new_entry("other")})
    if left == "nothing":
        async with serving(other):
            return
    with pytest.raises(ConfigError, match=r"vault\.keys: opens none"):
        async with serving(other):
            pass
    behind = f"{new_entry('next')} {settings.vault.keys.get_secret_value()}"
    async with serving(settings_for(issuer, database.admin_dsn, redis_url, vault={"keys": behind})):
        pass
