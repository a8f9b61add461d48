"""The gateway's wall clock steps forward and back: who signs by the true time is refused meanwhile, and nobody else gains by it."""

import base64
import json

import pytest

from gateway.runtime import clock
from tests.faults.load import Client, Load, Seen, request_of
from tests.faults.steps import SteppedClock
from tests.support.wire import Received

pytestmark = pytest.mark.xdist_group("faults")

HOUR_MS = 3_600_000
WINDOW_MS = 5_000
RECOVERED_MS = 2_000
ROUNDING_MS = 10
TRADES = ("trade 1", "trade 2")
WRONG_TIME = "timestamp_out_of_window"
FORWARD_AND_BACK = pytest.mark.parametrize("step_ms", [HOUR_MS, -HOUR_MS], ids=["an hour forward", "an hour back"])


@pytest.fixture
def stepped(tmp_path) -> SteppedClock:
    return SteppedClock(tmp_path / "clock")


def wrong(load: Load, kind: str, stepped: SteppedClock, expected) -> list[Seen]:
    """Requests of a kind that ended as they should not have. One that was under way during a step may have met either time."""
    return [
        one
        for one in load.seen
        if one.kind == kind and (offset_ms := stepped.during(one)) is not None and one.outcome != expected(offset_ms)
    ]


def issued_ms(request: Received) -> int:
    """When the assertion that an upstream got was made, by the gateway's word."""
    (assertion,) = request.values(b"x-gateway-assertion")
    payload = assertion.split(b".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))["iat"] * 1000


@FORWARD_AND_BACK
async def test_the_clock_steps_and_comes_back(start, load, stepped, key, *, upstream, tell, step_ms):
    more = f"[auth]\nclock_window_ms = {WINDOW_MS}\n[cache]\nlocal_ttl_ms = 500"
    async with start(environment=stepped.environment, more=more) as gateway, load(gateway) as running:
        running.add(Client("by the gate's clock", "GET", "/wallets", key, now_ms=stepped.now_ms))
        for kind, method, path in (("old read", "GET", "/wallets"), ("old trade", "POST", "/orders")):
            old = Client(kind, method, path, key, now_ms=lambda: clock.now_ms() - WINDOW_MS // 2)
            running.add(old._replace(repeats=request_of(old)))
            await running.until(kind, "200", "replayed_request")
        too_old_ms = clock.monotonic_ms() + WINDOW_MS // 2 + ROUNDING_MS
        stepped.step(step_ms)
        for kind in ("read", *TRADES, "forged", "old read", "old trade"):
            await running.some(kind, 20, WRONG_TIME)
        # The feed goes by another clock: it is still read.
        reads = await gateway.metric("gerbang_key_feed_reads_total")
        await running.until_counted("gerbang_key_feed_reads_total", more_than=reads + 2)
        back_ms = stepped.step(0)
        first_ms = max([(await running.until(kind, "200")).answered_ms for kind in ("read", *TRADES, "by the gate's clock")])
        issued_back_ms = issued_ms(upstream.requests[-1])
        for kind in ("old read", "old trade"):
            await running.until(kind, WRONG_TIME)
        assert await gateway.metric("gerbang_worker_restarts_total") == 0
    for kind in ("read", *TRADES):
        assert not wrong(running, kind, stepped, lambda offset_ms: WRONG_TIME if offset_ms else "200"), running.table()
    assert not wrong(running, "forged", stepped, lambda offset_ms: WRONG_TIME if offset_ms else "invalid_credentials"), running.table()
    assert not wrong(running, "by the gate's clock", stepped, lambda _offset_ms: "200"), running.table()
    assert running.outcomes("old trade")["200"] == 1, running.table()
    assert running.admitted_after("old read", too_old_ms) == 0, running.table()
    assert abs(clock.now_ms() - issued_back_ms) < 60_000
    assert first_ms - back_ms < RECOVERED_MS
    tell(f"clock {'forward' if step_ms > 0 else 'back'} by an hour", running, first_ms - back_ms)


@FORWARD_AND_BACK
async def test_no_key_outlives_its_expiry_by_the_wall_clock(start, load, stepped, new_key, *, tell, step_ms):
    now_ms = clock.now_ms()
    expiries = {"expires within the hour": now_ms + HOUR_MS // 2, "expires soon": now_ms + 5_000}
    keys = {kind: await new_key(expires_ms=expires_ms) for kind, expires_ms in expiries.items()}
    async with start(environment=stepped.environment) as gateway, load(gateway) as running:
        running.add(Client("expires within the hour", "GET", "/wallets", keys["expires within the hour"], now_ms=stepped.now_ms))
        await running.until("expires within the hour", "200")
        stepped.step(step_ms)
        # First seen while the clock is wrong: what is remembered of it then must not count later.
        running.add(Client("expires soon", "GET", "/wallets", keys["expires soon"], now_ms=stepped.now_ms))
        for kind in expiries:
            await running.some(kind, 20, "key_expired" if step_ms > 0 else "200")
        stepped.step(0)
        await running.some("expires within the hour", 20, "200")
        await running.some("expires soon", 20, "key_expired")
    ahead_ms = clock.now_ms() - clock.monotonic_ms()
    for kind, expires_ms in expiries.items():
        for one in (one for one in running.seen if one.kind == kind):
            offset_ms = stepped.during(one)
            if offset_ms is not None:
                sent_ms, answered_ms = (moment_ms + ahead_ms + offset_ms for moment_ms in (one.sent_ms, one.answered_ms))
                assert one.outcome == "200" or (one.outcome == "key_expired" and answered_ms >= expires_ms - ROUNDING_MS), one
                assert one.outcome == "key_expired" or sent_ms < expires_ms + ROUNDING_MS, one
    tell(f"expiry, clock {'forward' if step_ms > 0 else 'back'}", running)


async def test_limits_go_on_while_the_clock_steps(start, stepped, key, tell):
    limit = 20
    async with start(environment=stepped.environment, per_key=f"{limit}/second") as gateway:
        bots = [Client("bot", "GET", "/wallets", key, now_ms=stepped.now_ms)] * 3
        async with Load(gateway, bots) as running:
            for offset_ms in (HOUR_MS, -HOUR_MS, 0):
                stepped.step(offset_ms)
                await running.until("bot", "rate_limited")
                await running.some("bot", limit + 5, "200")
    assert set(running.outcomes("bot")) <= {"200", "rate_limited", WRONG_TIME}, running.table()
    admitted = [one for one in running.seen if one.outcome == "200"]
    for first in admitted:
        within = [one for one in admitted if first.sent_ms <= one.sent_ms and one.answered_ms <= first.sent_ms + 1_000]
        assert len(within) <= limit * 1.05, running.table()
    assert all(stepped.during(one) is None for one in running.seen if one.outcome == WRONG_TIME), running.table()
    tell("limits while the clock steps", running)


async def test_no_trade_passes_twice_when_the_clock_is_set_back_a_little(start, load, stepped, key, tell):
    async with start(environment=stepped.environment, more="[auth]\nclock_window_ms = 3000") as gateway, load(gateway) as running:
        trade = Client("old trade", "POST", "/orders", key)
        running.add(trade._replace(repeats=request_of(trade)))
        await running.until("old trade", "replayed_request")
        stepped.step(-3_000)
        await running.until("old trade", WRONG_TIME)  # ahead of the clock that was set back
        await running.until("old trade", "replayed_request", "200")  # within the window again
        await running.some("old trade", 20, WRONG_TIME)  # too old
    assert running.outcomes("old trade")["200"] == 1, running.table()
    tell("clock back by 3 s", running)
