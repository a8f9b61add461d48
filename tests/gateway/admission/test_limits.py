"""Limits per key over all workers."""

import asyncio
import dataclasses
from collections import Counter
from itertools import count

import pytest
import redis as blocking_redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.admission import limits
from gateway.admission.allowances import Allowance
from gateway.admission.limit_share import Share
from gateway.admission.limits import SETTLE, SLOTS, KeyLimiter
from gateway.admission.outcome import KeyNeeded
from gateway.admission.principal import Principal
from gateway.config.values import Rate
from gateway.keys import redis_client
from gateway.runtime import clock, gcra, tasks
from gateway.runtime.gcra import ShareNeeded
from gateway.runtime.tasks import spawn
from gateway.telemetry.metrics import Metrics
from tests.support import inside
from tests.support.keys import a_record

MINUTE = Rate(1_200, 60_000)
fresh_names = count()


# -- the ledger's script against the model


class Ledger:
    """The model: GCRA by ``gcra``, and a list of who took what and when."""

    def __init__(self, rate: Rate) -> None:
        self.rate, self.tat, self.taken = rate, 0.0, []

    def settle(self, spent: int, want: int, each: int, now: float) -> tuple[int, float, int]:
        slot_ms = self.rate.period_ms / SLOTS
        slot = int(now // slot_ms)
        self.taken = [(when, units) for when, units in self.taken if slot - when < SLOTS + 1]
        room = int(self.rate.units * 1.03) - sum(units for _, units in self.taken) - spent
        interval = self.rate.period_ms / self.rate.units
        self.tat = max(self.tat, now)
        self.tat = min(self.tat + spent * interval, max(self.tat, now + 1.5 * self.rate.period_ms))
        for granted in range(want, -1, -1):
            fits = granted == 0 or (granted <= room and gcra.charge(self.tat, granted, now, self.rate).allowed)
            if fits and (granted == want or granted % each == 0):
                break
        self.tat += granted * interval
        self.taken.append((slot, spent + granted))
        return granted, self.tat - now, room - granted


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.builds(Rate, st.integers(1, 3_000), st.sampled_from([1_000, 60_000])),
    st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 400), st.integers(0, 400), st.integers(1, 40)), min_size=1, max_size=25),
)
def test_the_script_agrees_with_the_model(redis_url, rate, steps):
    with blocking_redis.Redis.from_url(redis_url) as client:
        settle, ledger, name, now = client.register_script(SETTLE), Ledger(rate), f"ledger {next(fresh_names)}", 1_000_000
        for gap, spent, want, each in steps:
            now += gap
            ((granted, tat, room, closed),) = settle([name], [spent, want, each, *rate, SLOTS, now])
            right = ledger.settle(spent, want, each, now)
            assert (granted, float(tat), room) == (right[0], pytest.approx(right[1], abs=1e-3), right[2])
            assert (float(closed) > 0) is (room <= 0 or granted < want)


def test_a_clock_of_redis_that_was_set_back_locks_no_key(redis_url):
    with blocking_redis.Redis.from_url(redis_url) as client:
        settle, hour_ms = client.register_script(SETTLE), 3_600_000
        settle(["ledger"], [MINUTE.units, 0, 0, *MINUTE, SLOTS, 2 * hour_ms])
        assert settle(["ledger"], [0, 1, 1, *MINUTE, SLOTS, 2 * hour_ms])[0][0] == 0
        assert settle(["ledger"], [0, 1, 1, *MINUTE, SLOTS, hour_ms])[0][0] == 1


def test_the_ledger_lives_as_long_as_it_matters(redis_url):
    with blocking_redis.Redis.from_url(redis_url) as client:
        client.register_script(SETTLE)(["ledger"], [10, 0, 0, *MINUTE, SLOTS, ""])
        assert 60_000 < client.pttl("ledger") <= 61_000
        client.register_script(SETTLE)(["untouched"], [0, 0, 0, *MINUTE, SLOTS, ""])
        assert not client.exists("untouched")


def test_ledgers_that_are_settled_together_stand_as_if_each_had_been_alone(redis_url):
    """One of them twice, in one of them another type, one that is not there yet; each with a limit of its own."""
    bills = [("a", [3, 0, 0, 10, 60_000]), ("b", [0, 5, 1, 5, 1_000]), ("a", [0, 9, 2, 10, 60_000]), ("other type", [2, 1, 1, 5, 1_000])]
    number = next(fresh_names)
    with blocking_redis.Redis.from_url(redis_url) as client:
        settle, now = client.register_script(SETTLE), 1_000_000
        for way in ("alone", "together"):
            client.rpush(f"other type {number} {way}", "a list")
        alone = [settle([f"{name} {number} alone"], [*bill, SLOTS, now])[0] for name, bill in bills]
        names = [f"{name} {number} together" for name, _ in bills]
        together = settle(names, [part for _, bill in bills for part in bill] + [SLOTS, now])
        assert together == alone
        assert [granted for granted, *_ in together] == [0, 5, 6, 1]
        for name, _ in bills:
            assert client.get(f"{name} {number} alone") == client.get(f"{name} {number} together")


# -- two workers in a time of our own: the limiter's clock and the ledger's are turned together


class Time:
    def __init__(self) -> None:
        self.ms = 10_000_000


class OnOurTime:
    """A Redis whose ledger is told the time instead of asking for it."""

    def __init__(self, client, time: Time) -> None:
        self._client, self._time = client, time

    def pipeline(self, **options):
        pipeline = self._client.pipeline(**options)
        send = pipeline.execute_command
        pipeline.execute_command = lambda *args: send(*args[:-1], self._time.ms)
        return pipeline


class Worker:
    """One limiter without its task: a test says when it settles."""

    def __init__(self, client, time: Time) -> None:
        self.client, self.time = client, time
        self.limiter = KeyLimiter(OnOurTime(client, time), metrics=Metrics())

    async def request(self, weight: int = 1, rate: Rate = MINUTE) -> bool:
        for _ in range(3):
            try:
                charge = self.limiter.charge("key", weight, rate, self.time.ms)
            except ShareNeeded:
                waiter = asyncio.create_task(self.limiter.settled("key", weight, rate))  # noqa: TID251
                await asyncio.sleep(0)
                await self.settle(pressing=True)
                await waiter
            else:
                if inside.pressing(self.limiter):
                    await self.settle(pressing=True)
                return charge.allowed
        raise AssertionError("asked three times")

    async def settle(self, *, pressing: bool = False) -> None:
        if due := inside.due(self.limiter, pressing=pressing):
            await inside.settle(self.limiter, due)


@pytest.fixture
async def workers(redis_url, monkeypatch):
    time = Time()
    monkeypatch.setattr(clock, "monotonic_ms", lambda: time.ms)
    clients = [redis_client.connect(redis_url) for _ in range(2)]
    yield [Worker(client, time) for client in clients]
    for client in clients:
        await client.aclose()


def in_any(period_ms: int, admitted: list[tuple[int, int]]) -> int:
    """The most units in any window of this length."""
    most = first = total = 0
    for when, weight in admitted:
        total += weight
        while admitted[first][0] <= when - period_ms:
            total -= admitted[first][1]
            first += 1
        most = max(most, total)
    return most


async def hammer(workers: list[Worker], *, seconds: int, each_step: int, step_ms: int = 50, weight: int = 1) -> list[tuple[int, int]]:
    """Both workers at once; when each unit was admitted."""
    time, admitted = workers[0].time, []
    for step in range(seconds * 1000 // step_ms):
        for worker in workers * each_step:
            admitted += [(time.ms, weight)] if await worker.request(weight) else []
        if step % (2_000 // step_ms) == 0:
            for worker in workers:
                await worker.settle()
        time.ms += step_ms
    return admitted


async def test_two_workers_admit_the_limit_in_any_minute(workers):
    admitted = await hammer(workers, seconds=190, each_step=2)
    assert in_any(60_000, admitted) <= 1_260
    assert len(admitted) >= 3 * 1_140


async def test_sixteen_workers_that_are_used_alike_admit_the_limit(workers):
    """Each with its own idea of what is left: the less that is, the less each admits before it asks."""
    client, time = workers[0].client, workers[0].time
    sixteen = [Worker(client, time) for _ in range(16)]
    admitted = await hammer(sixteen, seconds=20, each_step=1, step_ms=100)
    assert 1_200 <= in_any(60_000, admitted) <= 1_260


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 400), st.integers(0, 15_000)), min_size=5, max_size=40))
def test_whatever_the_bursts_no_minute_sees_more_than_the_limit(redis_url, monkeypatch, bursts):
    """Each burst at one of two workers, of so many requests, and the milliseconds after it."""

    async def run() -> list[tuple[int, int]]:
        time, clients = Time(), [redis_client.connect(redis_url) for _ in range(2)]
        monkeypatch.setattr(clock, "monotonic_ms", lambda: time.ms)
        await clients[0].flushall()
        pair, admitted, beat_ms = [Worker(client, time) for client in clients], [], time.ms
        for worker, requests, pause_ms in bursts:
            admitted += [(time.ms, 1)] * sum([await pair[worker].request() for _ in range(requests)])
            time.ms += pause_ms
            if time.ms - beat_ms >= 2_000:
                beat_ms = time.ms
                for each in pair:
                    await each.settle()
        for client in clients:
            await client.aclose()
        return admitted

    assert in_any(60_000, asyncio.run(run())) <= 1_260


async def test_the_first_burst_and_one_after_a_long_idle_time_are_the_limit_too(workers):
    for idle_ms in (0, 3_600_000):
        workers[0].time.ms += idle_ms
        admitted = [await worker.request() for _ in range(1_500) for worker in workers]
        assert 1_200 <= sum(admitted) <= 1_236


async def test_a_steady_client_at_the_limit_is_hardly_ever_refused(workers):
    time, refused = workers[0].time, 0
    for step in range(3 * 1_200):
        refused += not await workers[step % 2].request()
        if step % 40 == 0:
            for worker in workers:
                await worker.settle()
        time.ms += 50
    assert refused <= 3 * 1_200 * 0.02


@pytest.mark.parametrize("limit", [1, 5, 10, 60])
async def test_a_small_limit_is_exact(workers, limit):
    rate = Rate(limit, 60_000)
    admitted = [await worker.request(1, rate) for _ in range(limit) for worker in workers]
    assert sum(admitted) == limit


async def test_heavy_requests_share_the_same_limit(workers):
    admitted = await hammer(workers, seconds=62, each_step=1, step_ms=250, weight=40)
    assert 1_140 <= in_any(60_000, admitted) <= 1_260


async def test_what_one_worker_admitted_the_other_knows_after_a_settlement(workers):
    one, other = workers
    for _ in range(1_200):
        await one.request()
    await one.settle()
    other.limiter.charge("key", 1, MINUTE, other.time.ms)
    await other.settle()
    charge = other.limiter.charge("key", 1, MINUTE, other.time.ms)
    assert not charge.allowed
    assert 0 < charge.retry_after_ms <= 100


async def test_what_is_given_back_is_there_again_for_every_worker(workers):
    one, other = workers
    for _ in range(5):
        for _ in range(1_000):
            assert await one.request()
        one.limiter.give_back("key", 1_000, MINUTE)
        await one.settle()
    other.limiter.charge("key", 1, MINUTE, other.time.ms)
    await other.settle()
    assert other.limiter.charge("key", 0, MINUTE, other.time.ms).remaining == 1_199
    assert (one.limiter.used("key", MINUTE, one.time.ms), other.limiter.used("key", MINUTE, other.time.ms)) == (0, 1)


async def test_used_units_are_those_of_the_last_minute_on_all_workers(workers):
    one, other = workers
    for _ in range(30):
        await one.request()
    assert one.limiter.used("key", MINUTE, one.time.ms) == 30
    await one.settle()
    await other.request()
    await other.settle()
    assert other.limiter.used("key", MINUTE, other.time.ms) == 31
    one.time.ms += 61_000
    await other.request()
    assert other.limiter.used("key", MINUTE, other.time.ms) == 1
    assert other.limiter.used("nobody", MINUTE, other.time.ms) == 0


async def test_thirty_keys_of_an_account_on_two_machines_have_its_one_limit(workers):
    record, keys = a_record(), 30
    principals = [Principal.of(dataclasses.replace(record, key_id=f"gbk_{number}")) for number in range(keys)]
    allowance = Allowance(Rate(1_200, 60_000), Rate(1_200, 60_000))
    admitted = 0
    for number in range(1_600):
        worker = workers[number % 2]
        for _ in range(5):
            try:
                admitted += allowance.charge(worker.limiter, principals[number % keys], 1, worker.time.ms).allowed
            except KeyNeeded as needed:
                waiter = asyncio.create_task(worker.limiter.settled(needed.key_id, needed.weight, needed.rate))  # noqa: TID251
                await asyncio.sleep(0)
                await worker.settle(pressing=True)
                await waiter
            else:
                break
    assert 1_140 <= admitted <= 1_260


# -- one worker


class NoRedis:
    """Fails at any use."""

    def pipeline(self, **_):
        raise AssertionError("Redis was asked")


def test_within_its_share_a_worker_asks_nobody():
    limiter = KeyLimiter(NoRedis(), metrics=Metrics())
    charges = [limiter.charge("key", 1, MINUTE, 1_000) for _ in range(12)]
    assert [charge.allowed for charge in charges] == [True] * 12
    assert charges[-1].remaining == 1_188
    with pytest.raises(ShareNeeded):
        limiter.charge("key", 1, MINUTE, 1_000)


def test_asking_how_the_limit_stands_charges_nothing():
    limiter = KeyLimiter(NoRedis(), metrics=Metrics())
    limiter.charge("key", 12, MINUTE, 1_000)
    asked = [limiter.charge("key", 0, MINUTE, 1_000) for _ in range(20)]
    assert {(charge.allowed, charge.remaining) for charge in asked} == {(True, 1_188)}


def test_a_weight_above_the_limit_is_refused_without_asking():
    assert KeyLimiter(NoRedis(), metrics=Metrics()).charge("key", 1_201, MINUTE, 1_000).retry_after_ms == float("inf")


@pytest.mark.parametrize(("apart_ms", "hurry"), [(limits.URGENT_MS - 1, True), (limits.URGENT_MS, False)])
def test_keys_that_use_their_share_slowly_wait_for_company(apart_ms, hurry):
    limiter = KeyLimiter(NoRedis(), metrics=Metrics())
    limiter.charge("key", 1, MINUTE, 1_000)
    limiter.charge("key", 9, MINUTE, 1_000 + apart_ms)
    assert (inside.pressing(limiter), inside.in_a_hurry(limiter)) == (True, hurry)


async def test_keys_in_no_hurry_are_settled_by_one_command_for_many(own_redis, monkeypatch):
    client, now_ms = redis_client.connect(own_redis.url), clock.monotonic_ms()
    limiter = KeyLimiter(client, metrics=Metrics())
    limiter.start()
    await admitted(limiter, 1_000)  # the script is known from here on
    monkeypatch.setattr(limits, "BATCH_MS", 1_000)  # in which this test notes them all
    before = await calls(client)
    for number in range(limits.KEYS_PER_COMMAND):
        limiter.charge(f"key {number}", 1, MINUTE, now_ms - limits.URGENT_MS)
        limiter.charge(f"key {number}", 9, MINUTE, now_ms)
        await asyncio.sleep(0)
    await until(lambda: not inside.due(limiter))
    spent = await calls(client) - before
    assert spent["evalsha"] == spent["mget"] == spent["time"] == 1
    assert spent["set"] == limits.KEYS_PER_COMMAND
    assert spent["get"] == 0
    await limiter.stop()
    await client.aclose()


async def calls(client) -> Counter[str]:
    told = await client.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): figures["calls"] for name, figures in told.items()})


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
async def running(redis_url, metrics):
    """A limiter with its task, on the real clock."""
    client = redis_client.connect(redis_url)
    limiter = KeyLimiter(client, metrics=metrics)
    limiter.start()
    yield limiter
    await limiter.stop()
    await client.aclose()


async def admitted(limiter: KeyLimiter, weight: int = 1, rate: Rate = MINUTE) -> bool:
    """As the gate asks."""
    while True:
        try:
            return limiter.charge("key", weight, rate, clock.monotonic_ms()).allowed
        except ShareNeeded:
            await limiter.settled("key", weight, rate)


async def test_who_cannot_wait_is_settled_between_the_many_that_are_overdue(redis_url, monkeypatch):
    monkeypatch.setattr(limits, "MAX_BATCH", 5)
    monkeypatch.setattr(limits, "CHECKED_AT_ONCE", 10)
    client = redis_client.connect(redis_url)
    limiter = KeyLimiter(client, metrics=Metrics())
    for number in range(2_000):
        limiter.charge(f"key {number}", 1, MINUTE, 1_000)
    limiter.start()
    await until(lambda: len(inside.due(limiter)) < 2_000)
    left = len(inside.due(limiter))
    await limiter.settled("in a hurry", 1, Rate(10, 3_600_000))
    assert left - len(inside.due(limiter)) < 100 < left
    await until(lambda: not inside.due(limiter))
    await limiter.stop()
    await client.aclose()


async def test_who_asks_while_an_earlier_batch_is_settled_is_settled_once(redis_url, monkeypatch):
    monkeypatch.setattr(limits, "MAX_BATCH", 1)
    client = redis_client.connect(redis_url)
    limiter = KeyLimiter(client, metrics=Metrics())
    limiter.charge("first", 1, MINUTE, 1_000)
    limiter.charge("second", 1, MINUTE, 1_000)
    pipeline, asked = client.pipeline, []

    def asks(**options):
        if not asked:
            asked.append(spawn(limiter.settled("second", 1, MINUTE), name="asks meanwhile"))
        return pipeline(**options)

    monkeypatch.setattr(client, "pipeline", asks)
    await limiter.stop()
    await asked[0]
    assert (inside.due(limiter), inside.due(limiter, pressing=True)) == ([], [])
    await client.aclose()


async def test_who_asks_while_an_earlier_batch_is_settled_leaves_the_limiter_waiting(redis_url, monkeypatch):
    monkeypatch.setattr(limits, "MAX_BATCH", 1)
    client = redis_client.connect(redis_url)
    limiter = KeyLimiter(client, metrics=Metrics())
    asked = [spawn(limiter.settled(key_id, 1, MINUTE), name="asks") for key_id in ("first", "second")]
    pipeline = client.pipeline

    def asks(**options):
        if len(asked) == 2:
            asked.append(spawn(limiter.settled("second", 1, MINUTE), name="asks meanwhile"))
        return pipeline(**options)

    monkeypatch.setattr(client, "pipeline", asks)
    await asyncio.sleep(0)
    await inside.settle_once(limiter)
    await asyncio.gather(*asked)
    assert (inside.due(limiter), inside.due(limiter, pressing=True)) == ([], [])
    await inside.settle_once(limiter)  # it was woken for what has been settled since
    step = spawn(inside.settle_once(limiter), name="next")
    await asyncio.sleep(0)
    assert not step.done()  # otherwise the task would go on without ever giving up the event loop
    await tasks.cancel(step)
    await client.aclose()


async def test_all_who_wait_share_one_round_trip(running, metrics):
    rate = Rate(60, 3_600_000)
    assert sum(await asyncio.gather(*(admitted(running, 1, rate) for _ in range(100)))) == 60
    assert metrics.limit_settlements["settled"] <= 2


async def test_a_waiter_that_gives_up_takes_nobody_with_it(running):
    rate = Rate(10, 3_600_000)
    waiters = [asyncio.create_task(admitted(running, 1, rate)) for _ in range(10)]  # noqa: TID251
    await asyncio.sleep(0)
    for waiter in waiters[::2]:
        waiter.cancel()
    done = await asyncio.gather(*waiters, return_exceptions=True)
    assert done[1::2] == [True] * 5


async def test_a_change_of_the_limit_counts_from_the_next_request(running):
    assert await admitted(running, 1, Rate(1, 3_600_000))
    assert not await admitted(running, 1, Rate(1, 3_600_000))
    assert await admitted(running, 1, Rate(2, 3_600_000))


async def test_an_equal_limit_of_another_configuration_goes_on(running):
    assert await admitted(running, 1, Rate(1, 3_600_000))
    assert not await admitted(running, 1, Rate(1, 3_600_000))
    assert len(inside.remembered(running)) == 1


async def in_ledger(client, limit: str) -> int:
    _tat, *slots = (await client.get(f"gerbang:{{key}}:ledger:{limit}")).split()
    return sum(int(slot.split(b":")[1]) for slot in slots)


async def test_stopping_settles_what_is_open(redis_url):
    client = redis_client.connect(redis_url)
    limiter = KeyLimiter(client, metrics=Metrics())
    limiter.start()
    limiter.charge("key", 3, MINUTE, 1_000)
    await limiter.stop()
    assert await in_ledger(client, "1200/60000") == 3
    await client.aclose()


async def test_stopping_waits_for_a_settlement_in_progress_so_that_it_is_charged_once(redis_url, monkeypatch):
    client = redis_client.connect(redis_url)
    limiter, charged, answered = KeyLimiter(client, metrics=Metrics()), asyncio.Event(), asyncio.Event()
    ask = limiter._ask  # noqa: SLF001  # Redis has charged it, and its answer is on the way

    async def answers_late(batch):
        answers = await ask(batch)
        charged.set()
        await answered.wait()
        return answers

    monkeypatch.setattr(limiter, "_ask", answers_late)
    limiter.start()
    limiter.charge("key", 12, MINUTE, 1_000)
    await charged.wait()
    stopping = spawn(limiter.stop(), name="stop")
    asyncio.get_running_loop().call_later(0.05, answered.set)
    await stopping
    assert await in_ledger(client, "1200/60000") == 12
    await client.aclose()


@pytest.mark.parametrize("ends", ["without an answer", "cancelled"])
async def test_stopping_repeats_a_settlement_that_has_failed(redis_url, monkeypatch, ends):
    client = redis_client.connect(redis_url)
    limiter, begun = KeyLimiter(client, metrics=Metrics()), asyncio.Event()

    async def hangs(batch):
        begun.set()
        await asyncio.sleep(0.05)
        raise TimeoutError if ends == "without an answer" else asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(limiter, "_ask", hangs)
        limiter.start()
        limiter.charge("key", 12, MINUTE, 1_000)
        await begun.wait()
        stopping = spawn(limiter.stop(), name="stop")
        await asyncio.sleep(0)
        patch.undo()
        await stopping
    assert await in_ledger(client, "1200/60000") == 12
    await client.aclose()


async def test_memory_is_bounded(redis_url, monkeypatch):
    monkeypatch.setattr(limits, "MAX_KEYS", 50)
    limiter = KeyLimiter(NoRedis(), metrics=Metrics())
    for number in range(500):
        limiter.charge(f"key {number}", 1, MINUTE, 1_000)
    assert len(inside.remembered(limiter)) <= 50
    assert len(inside.due(limiter)) <= 50


async def test_keys_with_something_to_settle_outlive_those_without_and_few_are_evicted_at_once(monkeypatch):
    monkeypatch.setattr(limits, "MAX_KEYS", 1_000)
    limiter = KeyLimiter(NoRedis(), metrics=Metrics())
    busy = {f"busy {number}" for number in range(400)}
    for key_id in sorted(busy):
        limiter.charge(key_id, 1, MINUTE, 1_000)
    for number in range(1_500):
        before = len(inside.remembered(limiter))
        limiter.charge(f"idle {number}", 0, MINUTE, 1_000)
        assert before - len(inside.remembered(limiter)) < limits.EVICTED_AT_ONCE
    assert busy <= {share.key_id for share in inside.due(limiter)}
    assert busy <= set(inside.remembered(limiter))
    assert len(inside.remembered(limiter)) <= 1_000


# -- without Redis


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the limiter tells nobody that Redis is back
            await asyncio.sleep(0.005)


async def test_without_redis_each_process_limits_on_its_own_and_says_so(own_redis, metrics, monkeypatch):
    monkeypatch.setattr(limits, "RETRY_SECONDS", 0.02)
    client = redis_client.connect(own_redis.url)
    limiter = KeyLimiter(client, metrics=metrics)
    limiter.start()
    rate = Rate(100, 3_600_000)
    assert await admitted(limiter, 1, rate)
    assert not limiter.degraded
    own_redis.stop()
    assert [await admitted(limiter, 1, rate) for _ in range(110)].count(True) == 99
    assert limiter.degraded
    assert metrics.snapshot()["limits_local"] == [((), [1])]
    own_redis.start()
    await until(lambda: not limiter.degraded and not inside.due(limiter))
    assert await in_ledger(client, "100/3600000") >= 99
    await limiter.stop()
    await client.aclose()


async def test_a_redis_that_hangs_holds_nobody_up_for_ever(own_redis, monkeypatch):
    monkeypatch.setattr(limits, "TIMEOUT_SECONDS", 0.05)
    client = redis_client.connect(own_redis.url)
    limiter = KeyLimiter(client, metrics=Metrics())
    limiter.start()
    own_redis.freeze()
    async with asyncio.timeout(10):
        assert await admitted(limiter, 1, Rate(10, 3_600_000))
    assert limiter.degraded
    own_redis.thaw()
    await limiter.stop()
    await client.aclose()


async def test_who_comes_while_a_settlement_fails_does_not_wait_for_the_next(own_redis, monkeypatch):
    monkeypatch.setattr(limits, "TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(limits, "RETRY_SECONDS", 3_600)
    client, rate = redis_client.connect(own_redis.url), Rate(10, 3_600_000)
    limiter = KeyLimiter(client, metrics=Metrics())
    limiter.start()
    own_redis.freeze()
    async with asyncio.timeout(10):
        first = spawn(limiter.settled("a", 1, rate), name="first")
        shares = inside.remembered(limiter)
        await until(lambda: "a" in shares and not inside.due(limiter, pressing=True) and not inside.has_waiters(limiter))  # it is asked
        await asyncio.gather(first, limiter.settled("a", 1, rate), limiter.settled("b", 1, rate))
    assert limiter.degraded
    assert all(share.wanted == 0 for share in shares.values())
    own_redis.thaw()
    await limiter.stop()
    await client.aclose()


async def test_an_answer_that_nobody_thought_of_neither_holds_up_who_waits_nor_ends_settlements(own_redis, monkeypatch):
    monkeypatch.setattr(limits, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(tasks, "_AFTER_DEFECT_SECONDS", 0)
    client, rate = redis_client.connect(own_redis.url), Rate(10, 3_600_000)
    limiter = KeyLimiter(client, metrics=Metrics())

    def learn(*_answer):
        raise IndexError

    with monkeypatch.context() as patch:
        patch.setattr(Share, "learn", learn)
        limiter.start()
        async with asyncio.timeout(10):
            assert await admitted(limiter, 1, rate)
    assert limiter.degraded
    async with asyncio.timeout(10):
        await until(lambda: not limiter.degraded)
    await limiter.stop()
    await client.aclose()


async def test_nobody_who_comes_without_redis_waits(redis_url):
    limiter = KeyLimiter(NoRedis(), metrics=Metrics())
    limiter.degraded = True
    assert limiter.charge("new", 1_200, MINUTE, 1_000).allowed
    assert not limiter.charge("new", 1, MINUTE, 1_000).allowed


async def test_a_ledger_that_was_lost_is_begun_anew(running, redis_url):
    assert await admitted(running, 600)
    with blocking_redis.Redis.from_url(redis_url) as client:
        client.flushall()
        client.script_flush()
    assert await admitted(running, 600)
    assert not running.degraded


def test_units_that_redis_granted_leave_no_more_than_the_window_has():
    """A limit so small that every unit is asked for: what is left is the tighter of both rules."""
    rate = Rate(60, 60_000)
    limiter = KeyLimiter(NoRedis(), metrics=Metrics())
    limiter.charge("a", 0, rate, 1_000_000)
    share = inside.remembered(limiter)["a"]
    share.granted, share.granted_until_ms, share.room = 1, 1_000_001, 0
    assert limiter.charge("a", 1, rate, 1_000_000).remaining == 0
