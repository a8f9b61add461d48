"""Attacks by the decision endpoint: by way of a proxy that asks the gate, and forwards nothing itself."""

import asyncio
from itertools import count
from typing import Final

from deploy.signing import SigningKey, sign
from gateway.keys.ids import new_key_id
from gateway.runtime import clock
from tests.abuse.attacks import Attack, Scene, again_and_again, answer, holding

CLIENT: Final = "203.0.113.66"
"""All of an attack's, as the proxy tells it."""


def question(key: SigningKey, *, client: str, secret: str = "", key_id: str = "") -> bytes:
    """What a proxy asks for a client's signed read (forward auth).

    :param secret: another than the key's: one that does not verify
    """
    signed = sign(
        "mobee", SigningKey(key_id or key.key_id, secret or key.material), "GET", "/wallets", b"", now_ms=clock.now_ms(), nonce=""
    )
    fields = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/wallets", "X-Forwarded-For": client, **signed.headers}
    lines = ["GET /decision/forward-auth?content=dropped HTTP/1.1", "Host: gate", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def _asking(scene: Scene) -> Scene:
    """Who is asked at the ops port."""
    return scene._replace(public=scene.ops)


async def decisions_on_bad_signatures(scene: Scene, address: str) -> None:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(question(scene.key, client=CLIENT, secret="wrong"))
            await answer(reader)

    await holding(_asking(scene), address, 8, one)


async def decisions_on_unknown_keys(scene: Scene, address: str) -> None:
    """Whose look-ups would hold the proxy's connections."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(question(scene.key, client=CLIENT, secret="any", key_id=new_key_id()))
            await answer(reader)

    await holding(_asking(scene), address, 8, one)


async def decisions_of_one_account(scene: Scene, address: str) -> None:
    """Within its limits and beyond."""
    numbers = count()
    await again_and_again(_asking(scene), address, lambda: question(scene.greedy[next(numbers) % 30], client=CLIENT))


async def idle_questions(scene: Scene, address: str) -> None:
    """Which a client's slow head, or a body that does not come, would keep a proxy from ending."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (
            b"POST /decision/forward-auth?content=sent HTTP/1.1\r\nHost: gate\r\nX-Forwarded-Method: POST\r\nX-Forwarded-Uri: /orders\r\n"
        )
        writer.write(head + b"X-Forwarded-For: " + CLIENT.encode() + b"\r\nContent-Length: 1000\r\n\r\nx")
        await reader.read()

    await holding(_asking(scene), address, 60, one)


DECISION_ATTACKS: Final = (
    Attack(decisions_on_bad_signatures),
    Attack(decisions_on_unknown_keys),
    Attack(decisions_of_one_account),
    Attack(idle_questions),
)
