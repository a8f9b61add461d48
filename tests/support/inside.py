"""Private state of the product, for what has no outward sign: bounds of memory, back-pressure, the sockets behind a connection.

Tests ask these functions instead of reaching in; Ruff allows private access in this module alone (SLF001).
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

from admin.api.limiter import Limiter
from admin.identity.provider import Provider
from admin.identity.tokens import TokenVerifier
from gateway.admission.hints import Hints
from gateway.admission.limits import KeyLimiter
from gateway.admission.replay import ReplayGuard
from gateway.forward.fair_queue import FairQueue
from gateway.forward.identity import IdentityLines
from gateway.forward.tunnel import Tunnels
from gateway.http1 import request_head, response
from gateway.http1.body import Memory
from gateway.http1.shape import Shape
from gateway.keys.cache import NEVER_MS, KeyCache
from gateway.keys.invalidation import InvalidationListener
from gateway.keys.lookup import KeyLookup
from gateway.keys.trust import Trust
from gateway.keys.usage import UsageCounts
from gateway.net.client_ip import ClientIpRule
from gateway.net.preamble import PreambleListener
from gateway.net.tally import Tally
from gateway.process.fleet import Workers
from gateway.server.connection import ClientConnection
from gateway.server.plane import Plane
from gateway.server.session import Session
from gateway.telemetry.recent import Recent
from tests.support.plane import Served

# -- memory, whose bounds nobody sees who only uses it

_TABLES = {
    Limiter: "_tats", Hints: "_by_key", KeyLimiter: "_shares", ReplayGuard: "_replayed", IdentityLines: "_cache", Tunnels: "_by_key",
    FairQueue: "_held", Memory: "_held", UsageCounts: "_entries", ClientIpRule: "direct", Plane: "_by_owner", Recent: "_counts",
    TokenVerifier: "_userinfo_cache", Shape: "_sizes",
}  # fmt: skip


def remembered(owner: object) -> Any:
    """The table, or the list, of what ``owner`` remembers."""
    table = getattr(owner, _TABLES[type(owner)])
    return table.counts if isinstance(table, Tally) else table


REQUEST_LINES: dict[bytes, Any] = request_head._lines
"""Request lines that are remembered."""
PLAIN_FIELDS, SPECIAL_FIELDS = request_head._plain, request_head._special
"""Field lines that are remembered, and those of them that concern framing."""
RESPONSE_HEADS, RESPONSE_FIELDS = response.KNOWN_HEADS, response._memo
MEMOS: Sequence[dict[bytes, Any]] = (RESPONSE_HEADS, RESPONSE_FIELDS, request_head._lines, PLAIN_FIELDS, SPECIAL_FIELDS)


def cache(lookup: KeyLookup[Any]) -> KeyCache[Any]:
    return lookup.cache


def changes_known(trust: Trust, key_id: str) -> tuple[int, ...]:
    """The transactions by which a key has changed, as far as they are remembered."""
    return trust.changes._of[key_id]


def keys_changed(trust: Trust) -> list[str]:
    """The keys whose changes are remembered."""
    return list(trust.changes._of)


def sizes(lookup: KeyLookup[Any]) -> dict[str, int]:
    """Numbers of keys and absent ids in memory, and of look-ups in progress."""
    return {"present": len(lookup.cache.present), "absent": len(lookup.cache.absent), "flights": len(lookup._flights)}


def is_in_doubt(lookup: KeyLookup[Any], key_id: str) -> bool:
    """Whether a key in memory may have changed unnoticed."""
    entry = lookup.cache.present.get(key_id)
    return entry is not None and (entry.epoch != lookup.cache.epoch or entry.until_ms != NEVER_MS)


def unrecorded(guard: ReplayGuard) -> object:
    """Signatures that passed and that Redis does not know; false when there are none."""
    return guard._unrecorded


def places(tunnels: Tunnels) -> int:
    """How many tunnels there is room kept for, opened or not."""
    return tunnels._by_owner.total


# -- the feed of changes, read when a test says so


async def read_feed(listener: InvalidationListener, connection: Any) -> None:
    await listener._read(connection)


def receive(listener: InvalidationListener, data: bytes) -> None:
    """A message of Redis comes."""
    listener._on_message(data)


async def keep(workers: Workers, worker: Any) -> None:
    """Wait until a worker has ended, and start it again."""
    await workers._keep(worker)


# -- the identity provider, whose documents are read in the background


def attempt(provider: Provider) -> "asyncio.Task[None] | None":
    """The attempt to read them that is under way."""
    return provider._refreshing


def attempted_ms(provider: Provider) -> int | None:
    """When the last one ended."""
    return provider._attempted_ms


# -- settlements of limits, which a task of the limiter times


def pressing(limiter: KeyLimiter) -> bool:
    """Whether a settlement is asked for before the next beat."""
    return limiter._wake.is_set()


def in_a_hurry(limiter: KeyLimiter) -> bool:
    """Whether it does not even wait for company."""
    return limiter._urgent.is_set()


def due(limiter: KeyLimiter, *, pressing: bool = False) -> list[Any]:
    """Shares that are to be settled."""
    return list(limiter._due_now if pressing else limiter._due)


def has_waiters(limiter: KeyLimiter) -> bool:
    """Whether requests wait for a settlement that has not begun."""
    return bool(limiter._waiting)


async def settle(limiter: KeyLimiter, shares: list[Any]) -> None:
    await limiter._settle(shares)


async def settle_once(limiter: KeyLimiter) -> None:
    """One step of its task."""
    await limiter._settle_once()


# -- connections, which the product lists nowhere


def connections(served: Served) -> list[ClientConnection]:
    """Those of clients."""
    return list(served.plane._connections)


def preambles(served: Served) -> dict[str, int]:
    """Preambles in progress, by owner."""
    (listener,) = served.plane._servers
    assert isinstance(listener, PreambleListener)
    assert listener._opening.total == sum(not task.done() for task in listener._pending)
    return dict(listener._opening.counts)


def listening(served: Served) -> tuple[PreambleListener, socket.socket]:
    """The listener of the preambles, and its socket."""
    (listener,) = served.plane._servers
    assert isinstance(listener, PreambleListener)
    return listener, listener._listening


def read_head(connection: ClientConnection, data: bytes) -> None:
    """It has received the head of a request, in its turn."""
    connection._read_head(data)


def upstream_connections(served: Served) -> list[Any]:
    """Those to the first server of the upstream ``spot``."""
    return list(served.upstreams.pools["spot"].servers[0]._connections)


def fair_queue(served: Served) -> FairQueue:
    """Who waits for one of them."""
    return served.upstreams.pools["spot"].servers[0]._queue


def has_received(connection: Any) -> bool:
    """Whether an upstream connection has got part of a response."""
    return not connection._untouched


def state(connection: ClientConnection) -> int:
    return connection._state


def answers(connection: ClientConnection) -> bool:
    """Whether an exchange is under way on it."""
    return connection._exchange is not None


# -- tunnels and sessions


def tunnels(served: Served) -> list[Any]:
    return list(served.tunnels._all)


def sweep_anew(tunnels: Tunnels) -> None:
    """Let the next sweep look at every tunnel, as it otherwise does once in a while."""
    tunnels._idle_check_ms = 0


def is_read(session: Session) -> bool:
    """Whether its client's socket is read."""
    return not session._downstream._input.paused  # type: ignore[attr-defined]  # a client's connection


def service_is_full(session: Session) -> bool:
    return session._service_full


def waiting(session: Session) -> int:
    """Messages that are not decided yet."""
    return session._queue.undecided


def ahead(session: Session) -> int:
    """Messages that wait for what the first of them waits for, decided or not."""
    return session._queue.begun


def unsent(session: Session) -> int:
    """Bytes of the gate's frames that wait for a message of the service to end."""
    return len(session._gateway_frames)
