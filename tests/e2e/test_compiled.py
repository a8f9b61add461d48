"""A compiled and an interpreted gate get the same bytes: both give the same answers and send the same requests on.

Without a current wheel both are interpreted, and what is left of the test is that no bytes make a gate fail.
"""

import asyncio
import random  # noqa: TID251  # the same cases each time
import re
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest

from deploy.signing import SigningKey, sign
from gateway.keys.vault import Vault, new_entry
from gateway.runtime import clock
from tests.support import wheel
from tests.support.keys import add_key
from tests.support.running import PATIENCE, RunningGateway, configuration, running
from tests.support.wire import Received, UpstreamSide, recording_upstream

VAULT = new_entry("k1")
ROUTES = "GET /read read spot\nPOST /search read spot\nGET /free/{name} public spot\nPOST /free/{name} public spot"
MORE = """
[limits]
per_key = "100000000/minute"
per_ip_failures = "100000000/minute"
header_timeout_ms = 1000
body_timeout_ms = 1000
idle_timeout_ms = 1000

[auth]
clock_window_ms = 60000

[client_ip]
trusted_proxies = ["127.1.0.0/16"]
"""
CASES, AT_ONCE = 600, 100
FIELDS = [
    b"X-A: \xff\xfe", b"X-Empty:", b"X_Account_Id: e", b"x-account-id: e", b"Connection: keep-alive, x-a", b"Connection: close",
    b"Expect: x", b"Expect: 100-continue", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Content-Length: 5",
    b"Content-Length: +1", b"Content-Length: 9223372036854775808", b"Host: b", b"Upgrade: websocket", b" fold", b"X : y",
    b"Accept: a\t ", b"X-L: " + b"v" * 9000, b"X-API-Key: other", b"Signature: s=::", b"X-Request-Timestamp: 9223372036854775808",
    b"X-Forwarded-For: 192.0.2.1, junk", b"X-Forwarded-For: ::1", b"\r\nGET /free/x HTTP/1.1\r\nHost: c",
]  # fmt: skip
PATHS = [b"//read", b"/./read", b"/read;a", b"/%2e/read", b"http://a/read", b"/read?a=1#b", b"/read?recvWindow=9223372036854775808", b"*"]
BEHIND = [b"", b"", b"0\r\n\r\n", b"5\r\nabcde\r\n0\r\n\r\n", b"FFFFFFFFFFFFFFFF\r\n", b"GET /free/x HTTP/1.1\r\nHost: a\r\n\r\n"]
OF_THE_MOMENT = [
    (re.compile(rb"(?i)(date|x-request-id|x-gateway-assertion|ratelimit|ratelimit-[a-z]+|x-mbx-[a-z0-9-]+|content-length): [^\r]*"), b""),
    (re.compile(rb"(?i)\r\nhost: 127[^\r]*"), b""),
    (re.compile(rb'"(request_id|server_time_ms|skew_ms)": ?"?[^",}]*'), b""),
    (re.compile(rb"-?\d+ ms"), b""),
]
"""What two gates may rightly say differently of the same bytes."""


async def echo(side: UpstreamSide, request: Received) -> None:
    """What the upstream got is the answer."""
    got = b"\r\n".join([request.line, *(name + b": " + value for name, value in request.headers), request.body])
    side.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(got) + got)


CALLS = [("GET", "/read", b""), ("GET", "/free/x?a=1", b""), ("POST", "/search", b'{"a":1}'), ("POST", "/free/x", b"ab")]
SWAPS = [(b"HTTP/1.1", b"HTTP/1.0"), (b"GET", b"HEAD"), (b"GET", b"TRACE"), (b" ", b"  ")]


def a_request(key: SigningKey, chance: random.Random) -> bytes:
    """One request, mostly spoiled in some way."""
    (method, target, body), dialect = chance.choice(CALLS), chance.choice(["mobee", "binance", "rfc9421"])
    outgoing = sign(dialect, key, method, target, body, now_ms=clock.now_ms(), nonce=f"{chance.random()}")
    fields = [f"{name}: {value}".encode() for name, value in outgoing.headers.items()]
    fields += [b"Content-Length: %d" % len(outgoing.body)] if outgoing.body else []
    lines = [f"{method} {outgoing.target} HTTP/1.1".encode(), b"Host: a", *fields]
    for _ in range(chance.choice([0, 1, 1, 2])):
        match chance.randrange(4):
            case 0:
                lines.insert(chance.randrange(1, len(lines) + 1), chance.choice(FIELDS))
            case 1:
                lines[0] = lines[0].replace(target.encode(), chance.choice(PATHS), 1)
            case 2:
                lines[0] = lines[0].replace(
                    *chance.choice([(b"HTTP/1.1", b"HTTP/1.0"), (b"GET", b"HEAD"), (b"GET", b"TRACE"), (b" ", b"  ")]), 1
                )
            case _:
                line = chance.randrange(len(lines))
                at = chance.randrange(len(lines[line]))
                lines[line] = lines[line][:at] + bytes([chance.randrange(256)]) + lines[line][at + chance.randrange(2) :]
    return b"\r\n".join([*lines, b"", outgoing.body]) + chance.choice(BEHIND)


async def answer(gateway: RunningGateway, data: bytes, cut: int, number: int) -> bytes:
    """All that the gate says to these bytes, which come in two pieces, until it closes.

    :param number: whose address they come from: of one address only so many refusals a second are explained
    """
    reader, writer = await asyncio.open_connection(*gateway.public, local_addr=(f"127.1.{number // 200}.{number % 200 + 1}", 0))
    try:
        writer.write(data[:cut])
        await asyncio.sleep(0)
        writer.write(data[cut:])
        async with asyncio.timeout(PATIENCE):
            return await reader.read()
    except ConnectionResetError:
        return b"reset"
    finally:
        writer.transport.abort()


def lasting(said: bytes) -> bytes:
    for pattern, instead in OF_THE_MOMENT:
        said = pattern.sub(instead, said)
    return said


@pytest.mark.timeout(180)
async def test_compiled_and_interpreted_gates_do_the_same(database, redis_url, tmp_path):
    connection = await asyncpg.connect(database.owner_dsn)
    record = await add_key(connection, Vault.parse(VAULT))
    await connection.close()
    key = SigningKey(record.key_id, record.secret.reveal().decode())
    async with AsyncExitStack() as stack:
        gateways = []
        for name, program in (("wheel", wheel.program("python")), ("checkout", Path(sys.executable))):
            upstream = await stack.enter_async_context(recording_upstream(echo))
            path = tmp_path / f"{name}.toml"
            path.write_text(
                configuration(
                    postgres=database.gateway_dsn, redis=redis_url, vault=VAULT, upstreams={"spot": upstream.url}, routes=ROUTES, more=MORE
                )
            )
            gateways.append(await stack.enter_async_context(running(path, program=program)))
            assert (await gateways[-1].event("ready"))["compiled"] is (name == "wheel" and wheel.is_current())
        chance = random.Random(20261125)
        for _ in range(CASES // AT_ONCE):
            batch = [a_request(key, chance) for _ in range(AT_ONCE)]
            cuts = [chance.randrange(len(data)) for data in batch]
            said = [
                await asyncio.gather(*(answer(gateway, *one) for one in zip(batch, cuts, range(AT_ONCE), strict=True)))
                for gateway in gateways
            ]
            for number, (data, *both) in enumerate(zip(batch, *said, strict=True)):
                compiled, interpreted = both
                if lasting(compiled) != lasting(interpreted):  # of a hundred at once one may be late for a time limit: alone it is not
                    compiled, interpreted = [await answer(gateway, data, cuts[number], number) for gateway in gateways]
                assert lasting(compiled) == lasting(interpreted), data
                assert compiled, data
                assert b" 500 " not in compiled[:16], data
