"""WebSocket tunnels: bytes in both directions with backpressure, closed with either end or when the key is revoked.

Pings and the contents of frames are left to the endpoints. The gate follows frame boundaries only, so that its own Close frame
is never sent inside another frame.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import structlog

from gateway.errors import Overloaded
from gateway.forward.ports import UpstreamEnd
from gateway.net.addresses import most_of_site, owners, owners_with_key
from gateway.net.tally import Owners, Tally
from gateway.runtime import clock
from gateway.runtime.tasks import spawn
from gateway.runtime.ticker import NEVER
from gateway.telemetry import Metrics
from gateway.websocket.frames import FRAMES_PER_SECOND, GOING_AWAY, POLICY_VIOLATION, FrameBudget, FrameTracker, close_frame

if TYPE_CHECKING:
    from gateway.config.settings import Limits

_log = structlog.get_logger(__name__)

IDLE_CHECK_MS = 5_000
"""Interval between checks for idle tunnels."""
FRAME_END_MS = 400
"""How long a Close frame waits for the current frame to end before the connection is aborted without one."""
_CHECKED_AT_ONCE, _PAUSE_SECONDS = 100, 0.5
"""Keys that are looked up at once when all are checked, and the pause before those that could not be confirmed are looked up again."""
_BEGUN_AT_ONCE = 10
"""Look-ups of changed keys that are begun in one turn of the event loop."""


class Downstream(Protocol):
    """The client's side of a tunnel."""

    def write(self, data: bytes) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def set_authenticated(self, authenticated: bool) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class Tunnel:
    """A client connection and an upstream connection, joined."""

    __slots__ = (
        "_budget",
        "_closing",
        "_down",
        "_downstream",
        "_registry",
        "_up",
        "_upstream",
        "active_ms",
        "deadline_ms",
        "expires_ms",
        "key_ids",
        "place",
    )  # fmt: skip

    def __init__(self, downstream: Downstream, upstream: UpstreamEnd, registry: "Tunnels") -> None:
        self._downstream = downstream
        self._upstream = upstream
        self._registry = registry
        self._down = FrameTracker()
        self._up = FrameTracker()
        self._budget = FrameBudget()
        """Limits the client's frames per second."""
        self._closing = b""
        self.key_ids: tuple[str, ...] = ()
        """The keys that use it; maintained by the registry."""
        self.expires_ms: int | None = None
        """When the first of its keys expires, in Unix milliseconds."""
        self.deadline_ms = NEVER
        self.active_ms = registry.now_ms
        """When data was last received from either end, in ticker time."""
        self.place: Place | None = None
        """Its place, held until it is closed."""

    # -- from the client

    def client_data(self, data: bytes) -> None:
        self.active_ms = self._registry.now_ms
        if not self._closing:
            up = self._up
            up.follow(data)
            self._upstream.write(data)
            frames, up.frames = up.frames, 0
            if not self._budget.spend(frames, self.active_ms):
                self.close(POLICY_VIOLATION, f"more than {FRAMES_PER_SECOND} frames per second", now_ms=self.active_ms)

    def client_full(self) -> None:
        self._upstream.pause()

    def client_drained(self) -> None:
        self._upstream.resume()

    def client_closed(self) -> None:
        self._ended("client")
        self._upstream.tunnel = None
        self._upstream.close()

    # -- from the upstream

    def upstream_data(self, data: bytes) -> None:
        self.active_ms = self._registry.now_ms
        if not self._closing:
            self._down.follow(data)
            self._downstream.write(data)
            return
        rest = self._down.until_frame_end(data)
        self._downstream.write(data[:rest])
        if self._down.between_frames:
            self._finish()

    def upstream_full(self) -> None:
        self._downstream.pause_reading()

    def upstream_drained(self) -> None:
        self._downstream.resume_reading()

    def upstream_closed(self) -> None:
        self._ended("upstream")
        self._downstream.close()

    # -- from the gate

    def close(self, code: int, reason: str, *, now_ms: int) -> None:
        """Send a Close frame in both directions once the current frame has ended, then close.

        :param now_ms: ticker time
        """
        if self._closing:
            return
        self._ended(reason)
        self._closing = close_frame(code, reason)
        if self._up.between_frames:
            self._upstream.write(close_frame(code, reason, mask=secrets.token_bytes(4)))
        if self._down.between_frames:
            self._finish()
        else:
            self._end_by(now_ms + FRAME_END_MS)

    def shut_down(self, *, now_ms: int) -> None:
        """Close with 1001, because the gate is shutting down."""
        self.close(GOING_AWAY, "shutting down", now_ms=now_ms)

    def deadline_passed(self) -> None:
        """Abort both connections: the current frame did not end in time."""
        self._upstream.abandon()
        self._downstream.abort()

    def _finish(self) -> None:
        self._registry.ending.discard(self)
        self._upstream.tunnel = None
        self._upstream.close()
        self._downstream.write(self._closing)
        self._downstream.close()

    def _end_by(self, deadline_ms: int) -> None:
        """Abort the tunnel at this time."""
        self.deadline_ms = deadline_ms
        self._registry.ending.add(self)

    def _ended(self, reason: str) -> None:
        self._registry.ending.discard(self)
        self._registry.remove(self, reason)


class Place:
    """A place for one tunnel, taken before its handshake is forwarded and released when it is closed."""

    __slots__ = ("_key_id", "_tunnels", "owners")

    def __init__(self, tunnels: "Tunnels", whose: Owners, key_id: str) -> None:
        self._tunnels: Tunnels | None = tunnels
        self.owners = whose
        """The network that it counts against and, of IPv6, the site."""
        self._key_id = key_id

    def release(self) -> None:
        """Release the place. Idempotent."""
        tunnels, self._tunnels = self._tunnels, None
        if tunnels is not None:
            tunnels.release(self.owners, self._key_id)


class Tunnels:
    """All tunnels of a worker, by the keys that use them: the key that opened the tunnel, or those of a session's messages.

    :param still_valid: whether a key is still valid (exists, not frozen, not expired); may raise if no store answers
    """

    def __init__(self, still_valid: Callable[[str], Awaitable[bool]], metrics: Metrics) -> None:
        self.ending: set[Tunnel] = set()
        self._still_valid = still_valid
        self._metrics = metrics
        self._all: set[Tunnel] = set()
        self._by_key: dict[str, set[Tunnel]] = {}
        self._expiring: set[Tunnel] = set()
        self._changed: dict[str, None] = {}
        """Keys to be checked because they have changed."""
        self._to_check: dict[str, None] = {}
        """Keys to be checked since any may have changed."""
        self._is_checking = False
        self._by_owner, self._per_key = Tally(), Tally()
        """Their places."""
        self._idle_check_ms = 0
        self.now_ms = clock.monotonic_ms()
        """Ticker time."""

    def place(self, limits: "Limits", address: str, key_id: str) -> Place:
        """Take a place for one more tunnel.

        :param address: the client IP, as determined by the gate
        :param key_id: the key that opens it; ``""`` on a public route
        :raises Overloaded: there are too many, in total, of this client, of its site, or of this key
        """
        if self._by_owner.total >= limits.max_tunnels:
            raise Overloaded("too many WebSocket connections are open; try again later", resource="tunnels")
        whose, of_one = owners_with_key(address) if key_id else owners(address), limits.max_tunnels_per_address
        of_site = most_of_site(of_one, limits.max_tunnels)
        if self._by_owner.room(whose, of_one, of_site) <= 0:
            full = f"{of_one} WebSocket connections are already open from your IP address: close some"
            if self._by_owner.room(whose[-1:], of_one, of_site) > 0:
                full = f"{of_site} WebSocket connections are already open from your network, {owners(address)[0]}: close some"
            raise Overloaded(full, resource="tunnels_address")
        if key_id and self._per_key.counts.get(key_id, 0) >= limits.max_tunnels_per_key:
            raise Overloaded(
                f"{limits.max_tunnels_per_key} WebSocket connections are already open for this key: close some", resource="tunnels_key"
            )
        self._by_owner.add(whose)
        if key_id:
            self._per_key.add((key_id,))
        return Place(self, whose, key_id)

    def used_percent(self, limits: "Limits") -> dict[str, int]:
        """The percentage of the worker's tunnels in use."""
        return {"tunnels": 100 * self._by_owner.total // limits.max_tunnels}

    def release(self, whose: Owners, key_id: str) -> None:
        """Release a place, for :meth:`Place.release`."""
        self._by_owner.remove(whose)
        if key_id:
            self._per_key.remove((key_id,))

    def may_use(self, tunnel: Tunnel, key_id: str, limits: "Limits") -> bool:
        """Whether one more tunnel may use this key, in a session, whose keys are named by its messages."""
        return key_id in tunnel.key_ids or len(self._by_key.get(key_id, ())) < limits.max_tunnels_per_key

    def add(self, tunnel: Tunnel, key_id: str | None, expires_ms: int | None, place: Place) -> None:
        """Add an open tunnel, and the key that opened it, if any: see :meth:`use`."""
        tunnel.place = place
        self._all.add(tunnel)
        self._metrics.tunnels += 1
        if key_id is not None:
            self.use(tunnel, key_id, expires_ms)

    def use(self, tunnel: Tunnel, key_id: str, expires_ms: int | None) -> None:
        """Register the tunnel for changes of this key; a change made since the key was read is checked.

        :param expires_ms: when the key expires, in Unix milliseconds
        """
        if tunnel not in self._all or key_id in tunnel.key_ids:
            return
        tunnel.key_ids = (*tunnel.key_ids, key_id)
        self._by_key.setdefault(key_id, set()).add(tunnel)
        if expires_ms is not None:
            tunnel.expires_ms = expires_ms if tunnel.expires_ms is None else min(tunnel.expires_ms, expires_ms)
            self._expiring.add(tunnel)
        spawn(self._check(key_id, certain=False), name="check the key of a tunnel")

    def remove(self, tunnel: Tunnel, reason: str) -> None:
        if tunnel not in self._all:
            return
        self._all.discard(tunnel)
        self._expiring.discard(tunnel)
        if tunnel.place is not None:
            tunnel.place.release()
        for key_id in tunnel.key_ids:
            group = self._by_key[key_id]
            group.discard(tunnel)
            if not group:
                del self._by_key[key_id]
        self._metrics.tunnels -= 1
        self._metrics.tunnels_closed[reason] += 1

    def invalidated(self, key_id: str | None) -> None:
        """Check again a key that has changed (``None``: any may have), and close the tunnels of keys that are no longer valid.

        One that has changed and cannot be confirmed is closed; one that may have is checked until it is confirmed.
        """
        if key_id is None:
            self._to_check = dict.fromkeys(self._by_key)
            if not self._is_checking:
                self._is_checking = True
                spawn(self._check_all(), name="check the keys of all tunnels")
        elif key_id in self._by_key:
            if not self._changed:
                spawn(self._check_changed(), name="check the keys that have changed")
            self._changed[key_id] = None

    def close_key(self, key_id: str, *, reason: str = "key no longer valid") -> None:
        """Close the tunnels of a key, with 1008."""
        for tunnel in list(self._by_key.get(key_id, ())):
            tunnel.close(POLICY_VIOLATION, reason, now_ms=clock.monotonic_ms())

    def close_all(self) -> None:
        """Close all tunnels, because the gate is shutting down."""
        for tunnel in list(self._all):
            tunnel.shut_down(now_ms=clock.monotonic_ms())

    def sweep(self, now_ms: int, idle_timeout_ms: int) -> None:
        """Close tunnels that have expired or been idle for too long; abort those that did not close in time."""
        self.now_ms = now_ms
        if now_ms >= self._idle_check_ms:
            self._idle_check_ms = now_ms + min(idle_timeout_ms // 8, IDLE_CHECK_MS)
            for tunnel in [tunnel for tunnel in self._all if now_ms - tunnel.active_ms >= idle_timeout_ms]:
                tunnel.close(GOING_AWAY, "idle", now_ms=now_ms)
        for tunnel in [tunnel for tunnel in self.ending if tunnel.deadline_ms <= now_ms]:
            self.ending.discard(tunnel)
            tunnel.deadline_passed()
        if self._expiring:
            now = clock.now_ms()
            for tunnel in [tunnel for tunnel in self._expiring if tunnel.expires_ms is not None and tunnel.expires_ms <= now]:
                tunnel.close(POLICY_VIOLATION, "key expired", now_ms=now_ms)

    async def _check_changed(self) -> None:
        """Begin the checks over several turns of the event loop, of thousands of keys that were revoked at once. None waits for another."""
        while some := list(islice(self._changed, _BEGUN_AT_ONCE)):
            for key_id in some:
                del self._changed[key_id]
                spawn(self._check(key_id, certain=True), name="check tunnels of a key")
            await asyncio.sleep(0)

    async def _check_all(self) -> None:
        are_told = False
        while some := list(islice(self._to_check, _CHECKED_AT_ONCE)):
            for key_id in some:
                del self._to_check[key_id]
            outcomes = await asyncio.gather(*map(self._confirm, some), return_exceptions=True)
            again = {key_id: None for key_id, error in zip(some, outcomes, strict=True) if error is not None and key_id in self._by_key}
            if again:
                if not are_told:
                    _log.warning("tunnel_keys_unconfirmed", error=str(next(filter(None, outcomes))))
                are_told = True
                self._to_check |= again
                await asyncio.sleep(_PAUSE_SECONDS)
        self._is_checking = False

    async def _check(self, key_id: str, *, certain: bool) -> None:
        try:
            await self._confirm(key_id)
        except Exception as error:  # noqa: BLE001 - whatever the reason, the key could not be confirmed
            _log.warning("tunnel_key_unconfirmed", key_id=key_id, error=str(error))
            if certain:
                self.close_key(key_id)

    async def _confirm(self, key_id: str) -> None:
        """Look a key up, and close its tunnels if it is no longer valid."""
        if not await self._still_valid(key_id):
            self.close_key(key_id)
