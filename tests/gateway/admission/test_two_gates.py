"""What two gates on two ports, which share a Redis, promise together."""

import asyncio
from collections import Counter

import asyncpg
import pytest

from deploy.signing import SigningKey, sign
from gateway.keys.ids import new_key_id
from gateway.keys.vault import Vault, new_entry
from gateway.runtime import clock
from tests.support.keys import add_key
from tests.support.running import configuration, running
from tests.support.wire import RawClient, recording_upstream

VAULT = new_entry("k1")
ROUTES = "GET /wallets read spot\nPOST /orders trade spot"


@pytest.fixture
async def keys(database):
    """Thirty of one account."""
    connection = await asyncpg.connect(database.owner_dsn)
    vault = Vault.parse(VAULT)
    records = [await add_key(connection, vault, key_id=new_key_id()) for _ in range(30)]
    await connection.close()
    return [SigningKey(record.key_id, record.secret.reveal().decode()) for record in records]


@pytest.fixture
def key(keys):
    return keys[0]


@pytest.fixture
async def gates(request, tmp_path, database, redis_url):
    """Two gates with the limits that the test is parametrized with, and what stands behind them."""
    async with recording_upstream() as upstream:
        text = configuration(
            postgres=database.gateway_dsn,
            redis=redis_url,
            vault=VAULT,
            upstreams={"spot": upstream.url},
            routes=ROUTES,
            more=f"[limits]\n{request.param}",
        )
        path = tmp_path / "gateway.toml"
        path.write_text(text)
        async with running(path) as one, running(path) as other:
            yield one, other, upstream


async def connect(gate) -> RawClient:
    return RawClient(*await asyncio.open_connection(*gate.public))


def signed(key: SigningKey, method: str, path: str, body: bytes, number: int) -> bytes:
    sent = sign("rfc9421", key, method, path, body, now_ms=clock.now_ms(), nonce=f"n-{number}")
    fields = "".join(f"{name}: {value}\r\n" for name, value in sent.headers.items()).encode()
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return b"%b %b HTTP/1.1\r\nHost: gate\r\n%b%b\r\n%b" % (method.encode(), path.encode(), fields, length, body)


@pytest.mark.parametrize("gates", ['per_key = "1000000/minute"'], indirect=True)
async def test_of_two_identical_requests_at_once_exactly_one_passes_a_thousand_times(gates, key):
    one, other, upstream = gates
    clients = [await connect(one), await connect(other)]
    outcomes: Counter[tuple[int, ...]] = Counter()
    for number in range(1_000):
        order = signed(key, "POST", "/orders", b'{"side":"buy"}', number)
        answers = await asyncio.gather(*(client.ask(order) for client in clients))
        outcomes[tuple(sorted(answer.status for answer in answers))] += 1
    for client in clients:
        await client.close()
    assert outcomes == {(200, 409): 1_000}
    assert len(upstream.requests) == 1_000


async def hammer(gates, *keys: SigningKey, connections: int, each: int) -> Counter[int]:
    """So many connections at once, by turns to either gate; how often each status was answered."""
    outcomes: Counter[int] = Counter()

    async def send(gate, key: SigningKey, first: int) -> None:
        client = await connect(gate)
        for number in range(first, first + each):
            outcomes[(await client.ask(signed(key, "GET", "/wallets", b"", number))).status] += 1
        await client.close()

    await asyncio.gather(*(send(gates[place % 2], keys[place % len(keys)], each * place) for place in range(connections)))
    return outcomes


@pytest.mark.parametrize("gates", ['per_key = "1200/minute"'], indirect=True)
async def test_one_key_at_two_gates_has_one_limit(gates, key):
    outcomes = await hammer(gates, key, connections=8, each=250)
    assert set(outcomes) == {200, 429}
    assert 1_200 <= outcomes[200] <= 1_260


@pytest.mark.parametrize("gates", ['per_key = "50/hour"'], indirect=True)
async def test_a_small_limit_is_exact_however_many_ask_at_once(gates, key):
    assert await hammer(gates, key, connections=60, each=5) == {200: 50, 429: 250}


@pytest.mark.parametrize("gates", ['per_key = "600/minute"\nper_account = "600/minute"'], indirect=True)
async def test_thirty_keys_of_an_account_at_two_gates_have_its_one_limit_to_5_percent(gates, keys):
    outcomes = await hammer(gates, *keys, connections=30, each=40)
    assert set(outcomes) == {200, 429}
    assert 600 <= outcomes[200] <= 630


@pytest.mark.parametrize("gates", ['per_key = "100/minute"'], indirect=True)
async def test_a_flood_of_replays_costs_their_owner_nothing(gates, key):
    one, other, upstream = gates
    clients = [await connect(gate) for gate in (one, other) for _ in range(10)]
    order = signed(key, "POST", "/orders", b'{"side":"buy"}', 0)
    assert (await clients[0].ask(order)).status == 200
    for _ in range(20):
        answers = await asyncio.gather(*(client.ask(order) for client in clients))
        assert {answer.status for answer in answers} == {409}
    assert len(upstream.requests) == 1
    reads = Counter([(await clients[number % 20].ask(signed(key, "GET", "/wallets", b"", 1 + number))).status for number in range(98)])
    for client in clients:
        await client.close()
    assert reads == {200: 98}
