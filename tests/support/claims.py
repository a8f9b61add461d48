"""Claims at the replay guard that a test can await."""

import asyncio

from gateway.admission.replay import ReplayGuard
from gateway.errors import Refusal


def claim(
    guard: ReplayGuard, key_id: str, signature: bytes, *, ttl_ms: int = 60_000, outage: str = "deny", shared: bool = False
) -> "asyncio.Future[None]":
    """As :meth:`ReplayGuard.ask`: resolves if it is the first, else fails with the refusal. It may be cancelled at any time."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def answered(refusal: Refusal | None) -> None:
        if future.done():
            return
        if refusal is None:
            future.set_result(None)
        else:
            future.set_exception(refusal)

    guard.ask(key_id, signature, answered, ttl_ms=ttl_ms, outage=outage, shared=shared)
    return future
