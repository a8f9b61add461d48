"""Reload, as operators do it: all workers or none, everything told, nothing half applied. One gateway serves all these tests."""

import asyncio
import json
import os
import signal

import pytest
import pytest_asyncio

from gateway.assertion import verify
from gateway.keys.vault import new_entry
from gateway.runtime import clock
from tests.support.running import configuration, running
from tests.support.stack import fresh_database
from tests.support.wire import RawClient, recording_upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

VAULT = new_entry("k1")
ROUTES = "GET /public/{name} public spot"
ASK = b"GET /public/x HTTP/1.1\r\nHost: gate\r\n\r\n"


@pytest.fixture(scope="module")
def database(postgres):
    with fresh_database(postgres) as fresh:
        yield fresh


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream():
    async with recording_upstream() as recording:
        yield recording


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory, database, redis_server, upstream):
    """A gateway of two workers, and what writes its configuration."""
    path = tmp_path_factory.mktemp("reload") / "gateway.toml"

    def write(routes=ROUTES, *, workers=2, more='[assertion]\nkeys = "signing"'):
        path.write_text(
            configuration(
                postgres=database.gateway_dsn,
                redis=redis_server.url,
                vault=VAULT,
                upstreams={"spot": upstream.url},
                routes=routes,
                workers=workers,
                more=more,
            )
        )

    write()
    async with running(path) as gateway:
        yield gateway, write


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(served):
    """The gateway, on the first version again."""
    gateway, write = served
    write()
    _status, report = await gateway.ask("POST", "/reload")
    assert report["outcome"] in ("applied", "unchanged")
    return gateway


@pytest.fixture
def write(served):
    """Writes the next version."""
    return served[1]


async def connect(gateway):
    return RawClient(*await asyncio.open_connection(*gateway.public))


async def test_a_reload_changes_the_next_request_of_an_open_connection(gateway, write):
    applied = await gateway.metric('gerbang_reloads_total{outcome="applied"}')
    clients = [await connect(gateway) for _ in range(8)]
    for client in clients:
        assert (await client.ask(ASK)).status == 200
    write("GET /elsewhere public spot")
    status, report = await gateway.ask("POST", "/reload")
    assert (status, report["outcome"]) == (200, "applied")
    assert [(change["kind"], change["path"]) for change in report["changes"]] == [
        ("removed", "routes[GET /public/{name}]"),
        ("added", "routes[GET /elsewhere]"),
    ]
    for client in clients:
        assert (await client.ask(ASK)).status == 404
        await client.close()
    _status, configured = await gateway.ask("GET", "/config")
    assert configured["version"] == report["version"]
    assert await gateway.metric(f'gerbang_config_info{{version="{report["version"]}"}}') == 1
    assert await gateway.metric('gerbang_reloads_total{outcome="applied"}') == applied + 1


async def test_a_dry_run_names_recent_requests_that_would_be_decided_otherwise_and_changes_nothing(gateway, write, upstream):
    client = await connect(gateway)
    _status, before = await gateway.ask("POST", "/reload?dry_run=true")
    for _ in range(3):
        assert (await client.ask(ASK)).status == 200
    for _ in range(2):
        assert (await client.ask(ASK.replace(b"/public/x", b"/new"))).status == 404
    write("GET /new public spot")
    status, told = await gateway.ask("POST", "/reload?dry_run=true")
    assert (status, before["outcome"], told["outcome"], told["previous_version"]) == (200, "unchanged", "would_apply", before["version"])
    assert [(change["kind"], change["path"]) for change in told["changes"]] == [
        ("removed", "routes[GET /public/{name}]"),
        ("added", "routes[GET /new]"),
    ]
    found = {effect["call"]: (effect["now"], effect["then"], effect["requests"]) for effect in told["traffic"]["otherwise"]}
    assert found["GET /new"] == ("no_route", "admitted", 2)
    assert found["GET /public/{name}"][:2] == ("admitted", "no_route")
    assert found["GET /public/{name}"][2] >= 3
    assert (await client.ask(ASK)).status == 200, "nothing was changed"
    write(workers=3)
    status, told = await gateway.ask("POST", "/reload?dry_run=true")
    assert (status, told["outcome"], told["problems"][0]["path"]) == (422, "refused", "listen.workers")
    write()
    await client.close()


async def test_a_route_is_closed_and_opened_again_by_reload_in_the_form_of_its_dialect(gateway, write, upstream):
    text = "Closed until 10:00 WIB"
    routes = "".join(
        f'[[routes]]\nmatch = "{match}"\nscope = "{scope}"\nupstream = "spot"\nmaintenance = "{text}"\nmaintenance_retry_ms = 90500\n'
        for match, scope in (("GET /public/{name}", "public"), ("POST /api/v3/order", "trade"))
    )
    client = await connect(gateway)
    assert (await client.ask(ASK)).status == 200
    write("GET /open public spot", more=routes)
    _status, report = await gateway.ask("POST", "/reload")
    assert report["outcome"] == "applied"
    before = len(upstream.requests)
    problem = await client.ask(ASK)
    assert (problem.status, problem.header("retry-after"), problem.header("content-type")) == (503, "91", "application/problem+json")
    told = json.loads(problem.body)
    assert (told["code"], told["detail"], told["retry_after_ms"]) == ("maintenance", text, 90_500)
    order = await client.ask(b"POST /api/v3/order HTTP/1.1\r\nHost: gate\r\nContent-Length: 3\r\n\r\na=1")
    assert (order.status, order.header("retry-after")) == (503, "91")
    told = json.loads(order.body)
    assert (told["code"], told["msg"], told["gerbang"]["code"]) == (-1001, f"System is under maintenance. {text}", "maintenance")
    assert len(upstream.requests) == before
    assert (await client.ask(ASK.replace(b"/public/x", b"/open"))).status == 200, "other routes are open, on the same connection"
    assert await gateway.metric('gerbang_requests_refused_total{code="maintenance"}') == 2
    write()
    await gateway.ask("POST", "/reload")
    assert (await client.ask(ASK)).status == 200
    await client.close()


async def test_a_bad_file_is_refused_whole_with_every_problem(gateway, write):
    write("GET /a read spot\nGET /{b} read spot\nGET /c public nowhere")
    status, report = await gateway.ask("POST", "/reload")
    assert (status, report["code"]) == (422, "reload_refused")
    assert {problem["path"] for problem in report["problems"]} == {"routes[1].match", "routes[2].match", "routes[2].upstream"}
    client = await connect(gateway)
    assert (await client.ask(ASK)).status == 200
    await client.close()


async def test_what_needs_a_restart_is_named_and_nothing_else_is_applied(gateway, write):
    write("GET /elsewhere public spot", workers=3)
    status, report = await gateway.ask("POST", "/reload")
    assert status == 422
    assert report["problems"] == [{"path": "listen.workers", "message": "cannot change without a restart"}]
    client = await connect(gateway)
    assert (await client.ask(ASK)).status == 200
    await client.close()


async def test_the_same_file_changes_nothing(gateway):
    status, report = await gateway.ask("POST", "/reload")
    assert (status, report["outcome"], report["changes"]) == (200, "unchanged", [])


async def test_sighup_reloads_and_logs_the_difference(gateway, write):
    write(more='[assertion]\nkeys = "signing"\n[limits]\nper_key = "7/second"')
    before = len(gateway.log)
    gateway.signal(signal.SIGHUP)
    line = await gateway.event("reload", after=before, outcome="applied")
    assert line["changes"] == [{"kind": "changed", "path": "limits.per_key", "before": "1200/minute", "after": "7/second"}]


async def test_a_worker_that_cannot_apply_keeps_all_on_the_old_version(gateway, write):
    frozen, _other = await gateway.worker_pids()
    os.kill(frozen, signal.SIGSTOP)
    write("GET /elsewhere public spot")
    status, report = await gateway.ask("POST", "/reload")
    os.kill(frozen, signal.SIGCONT)
    assert status == 422
    assert [problem["message"] for problem in report["problems"]] == ["worker 0: did not answer prepare within 3000 ms"]
    for client in [await connect(gateway) for _ in range(8)]:
        assert (await client.ask(ASK)).status == 200
        await client.close()
    status, report = await gateway.ask("POST", "/reload")
    assert (status, report["outcome"]) == (200, "applied")


async def test_a_worker_that_dies_comes_back_with_the_version_in_force(gateway, write):
    write("GET /elsewhere public spot")
    _status, report = await gateway.ask("POST", "/reload")
    before = len(gateway.log)
    os.kill((await gateway.worker_pids())[0], signal.SIGKILL)
    await gateway.event("worker_restarted", after=before)
    _status, ready = await gateway.ask("GET", "/ready")
    assert [worker["version"] for worker in ready["workers"]] == [report["version"]] * 2


async def test_an_upstream_verifies_the_assertion_by_the_public_keys(gateway, upstream):
    client = await connect(gateway)
    await client.ask(ASK)
    await client.close()
    _status, jwks = await gateway.ask("GET", "/.well-known/jwks.json")
    (token,) = upstream.requests[-1].values(b"x-gateway-assertion")
    known = {"expected_issuer": "gerbang", "jwks": jwks, "now_ms": clock.now_ms(), "allow_anonymous": True}
    verify(token, expected_audience="spot", **known)
    assert len(list((gateway.path.parent / "signing").iterdir())) == 1


async def test_nothing_secret_is_told_by_config_or_log(gateway, database):
    await gateway.ask("POST", "/reload")
    _status, configured = await gateway.ask("GET", "/config")
    told = json.dumps(configured) + gateway.told()
    assert VAULT.partition(":")[2] not in told
    assert database.gateway_dsn not in told
    assert not {"stores", "vault"} & configured["settings"].keys()
