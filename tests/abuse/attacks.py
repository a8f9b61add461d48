"""What attackers send: each a coroutine that goes on until it is cancelled, from loopback addresses of its own."""

import asyncio
import secrets
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from itertools import count
from typing import Final, NamedTuple

from deploy.signing import SigningKey, sign
from gateway.keys.ids import new_key_id
from gateway.runtime import clock

PAUSE: Final = 0.005
"""Seconds between two requests of one attacking connection: bounds the load on the machine."""
sent: Counter[str] = Counter()
"""``bytes`` that this process has sent."""
OPENING: Final = 0.015
"""Seconds between two connections that an address opens to hold them."""
BODY: Final = (1 << 20) - 1


class Scene(NamedTuple):
    """Whom an attack is made on, and by whose keys."""

    public: tuple[str, int]
    key: SigningKey
    """An honest customer's: of it attackers know the id, which is no secret, and what they have seen sent."""
    greedy: list[SigningKey]
    """Thirty keys of the attacker's own account."""
    certificate: str = ""
    """Of the gate, when it ends TLS: a file."""
    ops: tuple[str, int] = ("", 0)
    """Where it decides for proxies."""

    @property
    def tls(self) -> ssl.SSLContext | None:
        return trusting(self.certificate) if self.certificate else None


@lru_cache
def trusting(certificate: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    return context


class Attack(NamedTuple):
    """What is sent, and from how many addresses."""

    send: Callable[[Scene, str], Awaitable[None]]
    """``(scene, address to come from)``."""
    addresses: int = 4
    beside_the_bot: bool = False
    """From the bot's own address, as behind a carrier's NAT."""

    @property
    def name(self) -> str:
        return self.send.__name__

    def from_addresses(self, number: int) -> list[str]:
        """Where it comes from.

        :param number: tells attacks apart
        """
        return ["127.0.0.1"] * 4 if self.beside_the_bot else [f"127.0.{10 + number}.{each + 1}" for each in range(self.addresses)]


async def connect(scene: Scene, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection from that address, whose bytes are counted."""
    reader, writer = await asyncio.open_connection(*scene.public, local_addr=(address, 0), ssl=scene.tls)
    write = writer.write

    def counted(data: bytes) -> None:
        sent["bytes"] += len(data)
        write(data)

    writer.write = counted  # type: ignore[method-assign,assignment]
    return reader, writer


@asynccontextmanager
async def connected(scene: Scene, address: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """The same, closed at the end."""
    reader, writer = await connect(scene, address)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def again_and_again(scene: Scene, address: str, request: Callable[[], bytes]) -> None:
    """One request after the other, on a new connection whenever one is closed."""
    while True:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with connected(scene, address) as (reader, writer):
                while True:
                    writer.write(request())
                    await answer(reader)
                    await asyncio.sleep(PAUSE)
        await asyncio.sleep(PAUSE)


async def whole_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and content of the next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    return int(head[9:12]), await reader.readexactly(length)


async def answer(reader: asyncio.StreamReader) -> int:
    """The status of the next answer."""
    return (await whole_answer(reader))[0]


def signed(key: SigningKey, method: str, path: str, body: bytes = b"", *, secret: str = "", key_id: str = "") -> bytes:
    """A request on the wire; with another secret or key id, one that does not verify."""
    key = SigningKey(key_id or key.key_id, secret or key.material)
    sent = sign("mobee", key, method, path, body, now_ms=clock.now_ms(), nonce="")
    lines = [f"{sent.method} {sent.target} HTTP/1.1", "Host: gate", *(f"{name}: {value}" for name, value in sent.headers.items())]
    if sent.body or method == "POST":
        lines.append(f"Content-Length: {len(sent.body)}")
    return "\r\n".join([*lines, "", ""]).encode() + sent.body


async def bad_signatures(scene: Scene, address: str) -> None:
    await again_and_again(scene, address, lambda: signed(scene.key, "GET", "/wallets", secret="wrong"))


async def unknown_keys(scene: Scene, address: str) -> None:
    await again_and_again(scene, address, lambda: signed(scene.key, "GET", "/wallets", key_id=new_key_id(), secret="any"))


async def costly_signature_input(scene: Scene, address: str) -> None:
    junk = ";".join(f"p{number}=1" for number in range(1_500))
    value = f'a=("@method");keyid="{scene.key.key_id}";{junk}'
    head = f"GET /wallets HTTP/1.1\r\nHost: gate\r\nSignature: a=:AAAA:\r\nSignature-Input: {value}\r\n\r\n"
    await again_and_again(scene, address, head.encode)


async def replays(scene: Scene, address: str) -> None:
    """Of an order of the bot's own: its limits are the bot's."""
    captured = signed(scene.key, "POST", "/orders", b"pair=BTC-IDR")
    await again_and_again(scene, address, lambda: captured)


async def one_account_with_thirty_keys(scene: Scene, address: str) -> None:
    numbers = count()
    await again_and_again(scene, address, lambda: signed(scene.greedy[next(numbers) % 30], "GET", "/wallets"))


async def requests_without_keys(scene: Scene, address: str) -> None:
    await again_and_again(scene, address, lambda: b"GET /wallets HTTP/1.1\r\nHost: gate\r\n\r\n")


async def public_requests(scene: Scene, address: str) -> None:
    await again_and_again(scene, address, lambda: b"GET /ticker HTTP/1.1\r\nHost: gate\r\n\r\n")


async def requests_by_other_names(scene: Scene, address: str) -> None:
    """Whatever a client chooses is another each time: labels of metrics, and tables by them, must not grow by it."""

    def request() -> bytes:
        word = secrets.token_hex(8)
        return (
            f"GET /{word}/{word}?{word}={word} HTTP/1.1\r\nHost: {word}.example\r\nX-API-Key: {word}\r\n{word}: {word}\r\n"
            f"User-Agent: {word}\r\nOrigin: https://{word}.example\r\nX-Request-Id: {word}\r\n\r\n"
            f"{word.upper()} /wallets HTTP/1.1\r\nHost: {word}.example\r\n\r\n"
        ).encode()  # fmt: skip

    await again_and_again(scene, address, request)


async def holding(
    scene: Scene, address: str, number: int, one: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> None:
    async def hold(place: int) -> None:
        await asyncio.sleep(place * OPENING)
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                async with connected(scene, address) as (reader, writer):
                    await one(reader, writer)
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as group:
        for place in range(number):
            group.create_task(hold(place))


async def large_bodies_without_credentials(scene: Scene, address: str) -> None:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /orders HTTP/1.1\r\nHost: gate\r\nContent-Length: %d\r\n\r\n" % (BODY + 1) + bytes(BODY))
        await reader.read()

    await holding(scene, address, 16, one)


async def slow_heads(scene: Scene, address: str) -> None:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in b"GET /wallets HTTP/1.1\r\nHost: gate\r\nX-Padding: " + b"x" * 1_000:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.2)
        await reader.read()

    await holding(scene, address, 50, one)


async def slow_bodies(scene: Scene, address: str) -> None:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, _, _ = signed(scene.greedy[1], "POST", "/orders", b"x" * 1_000).partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        for _ in range(999):
            writer.write(b"x")
            await asyncio.sleep(0.2)
        await reader.read()

    await holding(scene, address, 50, one)


async def chunked_dribbles(scene: Scene, address: str) -> None:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, _, _ = signed(scene.greedy[2], "POST", "/orders").partition(b"Content-Length")
        writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"1\r\nx\r\n")
            await asyncio.sleep(0.02)
        await reader.read()

    await holding(scene, address, 20, one)


async def streamed_uploads(scene: Scene, address: str) -> None:
    """A byte now and then of content that is passed on as it comes: each holds a connection to the service meanwhile."""
    await _upload(scene, address, b"Content-Length: 1000000\r\n\r\nx", b"x")


async def streamed_chunks(scene: Scene, address: str) -> None:
    """The same in chunks, of which nobody knows how many will come."""
    await _upload(scene, address, b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", b"1\r\nx\r\n")


async def _upload(scene: Scene, address: str, begin: bytes, piece: bytes) -> None:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /upload HTTP/1.1\r\nHost: gate\r\n" + begin)
        while not (writer.is_closing() or reader.at_eof()):
            await asyncio.sleep(1)
            writer.write(piece)

    await holding(scene, address, 128, one)


async def pipelined_floods(scene: Scene, address: str) -> None:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(b"GET /wallets HTTP/1.1\r\nHost: gate\r\n\r\n" * 20)
            for _ in range(20):
                await answer(reader)
            await asyncio.sleep(0.2)

    await holding(scene, address, 4, one)


async def floods_of_connections(scene: Scene, address: str) -> None:
    async def one(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    await holding(scene, address, 100, one)


async def slow_public_requests(scene: Scene, address: str) -> None:
    """The service takes its time for them: they hold connections to it."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /slow HTTP/1.1\r\nHost: gate\r\n\r\n")
        await answer(reader)

    await holding(scene, address, 40, one)


async def hoarded_requests(scene: Scene, address: str) -> None:
    """A quarter of a megabyte behind each request that the service takes its time for: 20 MB, which would be held until then."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /slow HTTP/1.1\r\nHost: gate\r\n\r\n" + b"GET /wallets HTTP/1.1\r\nHost: gate\r\n\r\n" * 6_500)
        await reader.read()

    await holding(scene, address, 20, one)


async def answers_unread(scene: Scene, address: str) -> None:
    """Requests by the thousand, of whose refusals nothing is read."""

    async def one(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():  # what comes is read until asyncio's buffer is full
            writer.write(b"GET /wallets HTTP/1.1\r\nHost: gate\r\n\r\n" * 100)
            await writer.drain()
            await asyncio.sleep(0.1)

    await holding(scene, address, 4, one)


ATTACKS: tuple[Attack, ...] = (
    Attack(bad_signatures, beside_the_bot=True),
    Attack(unknown_keys, beside_the_bot=True),
    Attack(costly_signature_input, beside_the_bot=True),
    Attack(replays),
    Attack(one_account_with_thirty_keys),
    Attack(requests_without_keys),
    Attack(public_requests),
    Attack(requests_by_other_names),
    Attack(large_bodies_without_credentials),
    Attack(slow_heads),
    Attack(slow_bodies),
    Attack(chunked_dribbles),
    Attack(streamed_uploads),
    Attack(streamed_chunks),
    Attack(pipelined_floods),
    Attack(floods_of_connections),
    Attack(slow_public_requests),
    Attack(hoarded_requests),
    Attack(answers_unread),
)
