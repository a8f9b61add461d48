"""The protocol of feed, memory, Redis and messages as a state machine: two gates of the real code against a model of what they may believe.

The stores are models: a database with transactions that commit in any order, snapshots and the feed, and a Redis that forgets, and to which
somebody puts old records back. What a store has answered may arrive later than anything else happens; a message may come late or never;
PostgreSQL or Redis may be away; a gate may die and start cold, the server may restart, old changes may be pruned. A standby that lags, or
a backup, may take the server's place: what was committed since is undone, and the numbers of its transactions are used again. A dump may
be restored into the server: what was committed since is undone, and the numbers go on. There may be more changes than are read or kept.

What must hold: a gate never uses a state of a key that was over before the last read of the feed began whose changes the gate has applied,
nor one that was over before a message about it was sent that this gate has got; and a gate that never read the feed uses nothing that was
over longer ago than a record in Redis is valid. Two exceptions: when the feed cannot tell a gate what it missed, because that was pruned or
undone, or when the server is another one, the gate may use what it had in memory for another ``local_ttl``; and what it reads from a server
whose feed it does not read, for a moment.
"""

import asyncio
from contextlib import suppress
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from gateway.config.settings import Cache
from gateway.errors import KeyStoreUnavailable, StoreUnavailable
from gateway.keys import sql, trust
from gateway.keys.cache import ABSENT, Absent
from gateway.keys.ids import new_key_id
from gateway.keys.invalidation import InvalidationListener
from gateway.keys.lookup import KeyLookup
from gateway.keys.shared import REST_MS, SharedRecords
from gateway.keys.snapshot import Snapshot, parse_snapshot
from gateway.keys.store import Found
from gateway.keys.trust import EVERY_KEY, Now, Trust
from gateway.runtime.tasks import spawn
from gateway.telemetry.metrics import Metrics
from tests.support.inside import cache, is_in_doubt, read_feed, receive
from tests.support.keys import NOW_MS, a_record, a_vault

KEYS = [new_key_id() for _ in range(2)]
OTHERS = [new_key_id() for _ in range(4)]
"""Ids that messages name, and that are more than a gate remembers."""
VAULT = a_vault()
SETTINGS = Cache(local_ttl_ms=5_000, redis_ttl_ms=60_000, stale_limit_ms=30_000)
A_MOMENT_MS = 1_000
DEAD = None
"""The state of a key that does not exist."""


class Transaction(NamedTuple):
    """``serial`` tells apart what ``xid`` does not: numbers are used again after a fail-over."""

    serial: int
    xid: int
    key_id: str
    state: int | None


class Standby(NamedTuple):
    """The database as it was."""

    next_xid: int
    states: dict[str, int | None]
    committed: list[Transaction]
    feed: list[Transaction]
    marks: list[int]


class Database:
    """Keys with numbered states, and the feed."""

    def __init__(self) -> None:
        self.next_xid, self.server, self.is_up = 100, 1, True
        self.under_way: list[Transaction] = []
        self.states: dict[str, int | None] = dict.fromkeys(KEYS, 0)
        self.committed: list[Transaction] = []
        self.feed: list[Transaction] = []
        self.marks = [3]
        self.serials = 0
        self.servers = 1
        """Starts of servers so far."""
        self.seen: dict[tuple[int, str], set[Transaction]] = {}
        """By every snapshot that was taken, of each server."""
        self.standby = self.copy()
        self.former: tuple[int, Standby] | None = None
        """The server that a standby has taken the place of."""
        """The server before the last fail-over, as it was then."""

    def begin(self, key_id: str, state: int | None) -> Transaction:
        self.serials += 1
        self.under_way.append(begun := Transaction(self.serials, self.next_xid, key_id, state))
        self.next_xid += 1
        return begun

    def snapshot(self) -> Snapshot:
        xids = sorted(transaction.xid for transaction in self.under_way)
        text = f"{min(xids, default=self.next_xid)}:{self.next_xid}:{','.join(map(str, xids))}"
        self.seen[self.server, text] = set(self.committed)
        return parse_snapshot(text)

    def check(self) -> None:
        if not self.is_up:
            raise StoreUnavailable("PostgreSQL did not answer")

    def prune(self) -> None:
        """Mark, and let go what the mark before the last has seen, as if that were 15 minutes ago."""
        self.marks = [self.marks[-1], self.snapshot().xmin]
        self.feed = [entry for entry in self.feed if entry.xid >= self.marks[0]]

    def floor(self) -> int:
        """Marks beyond what the server has come to are ignored."""
        return min([mark for mark in self.marks if mark <= self.snapshot().xmin], default=3)

    def copy(self) -> Standby:
        return Standby(self.next_xid, dict(self.states), list(self.committed), list(self.feed), list(self.marks))

    def fail_over(self, left: Standby) -> None:
        """To the standby as it is, from a server that stays as it was left."""
        self.under_way.clear()
        self.former = self.server, left
        self.servers += 1
        self.server = self.servers
        self.next_xid, self.states, self.committed, self.feed, self.marks = self.standby
        self.standby = self.copy()

    def restore(self) -> None:
        """A dump, made when the standby was, into this server: the tables are made anew, and the marks are rows of another table."""
        self.under_way.clear()
        self.former = None
        self.servers += 1
        self.server = self.servers
        _, states, committed, feed, marks = self.standby
        self.states, self.committed, self.feed = dict(states), list(committed), list(feed)
        self.marks = list(marks)
        self.next_xid += 1
        self.standby = self.copy()

    def go_back(self, server: int, held: Standby, left: Standby) -> None:
        """To the server before, which knows nothing of what was committed since; this one stays as it was left."""
        self.under_way.clear()
        self.server, self.former = server, (self.server, left)
        self.next_xid, self.states, self.committed, self.feed, self.marks = held
        self.standby = self.copy()


class Redis:
    """The commands that are used of it."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.ever: list[tuple[str, bytes]] = []
        self.is_up = True

    def check(self) -> None:
        if not self.is_up:
            raise ConnectionError

    async def mget(self, names: list[str]) -> list[bytes | None]:
        self.check()
        return [self.held.get(name) for name in names]

    async def unlink(self, *names: str) -> None:
        self.check()
        for name in names:
            self.held.pop(name, None)

    def pipeline(self, **_options: object) -> "Redis":
        return self

    async def __aenter__(self) -> "Redis":
        return self

    async def __aexit__(self, *_error: object) -> None: ...

    def set(self, name: str, sealed: bytes, **_options: object) -> None:
        if self.is_up:
            self.held[name] = sealed
            self.ever.append((name, sealed))

    async def execute(self) -> None:
        self.check()


class Held:
    """An answer that was given and has not arrived."""

    def __init__(self) -> None:
        self.arrives = asyncio.Event()


class Time:
    def __init__(self) -> None:
        self.ms = 1_000_000

    def now(self) -> Now:
        return Now(self.ms, NOW_MS + self.ms)


class Gate:
    """One gate's key room, on the models. It is the store and the connection that it asks, so that answers can be held up."""

    def __init__(self, database: Database, redis: Redis, time: Time) -> None:
        self.database, self.time = database, time
        self.trust = Trust()
        self.trust.redis_up_ms = time.ms if redis.is_up else None
        shared: Any = redis
        self.lookup = KeyLookup(
            self.find, SharedRecords(shared, VAULT), self.trust, SETTINGS,
            prepare=lambda record: int(record.label), metrics=Metrics(), now=time.now,
        )  # fmt: skip
        self.listener = InvalidationListener(shared, "postgresql://unused", self.trust, self.lookup, metrics=Metrics())
        self.holding = False
        self.held: list[Held] = []
        self.told_ms: dict[str, int] = {}
        self.mail: list[tuple[str, int]] = []
        self.reading = False
        self.applied_ms: int | None = None
        """When its last read of the feed began whose changes have all been applied."""
        self.read_of: set[Transaction] | None = None
        """What its last read of the feed has seen."""
        self.strange: dict[str, tuple[int | Absent, int]] = {}
        """State and end of what it may use for a moment, of a server whose feed it does not read."""
        self.stays = False
        """Whether its pool stays at the server before a fail-over."""
        self.of_before: dict[str, int | Absent | None] = {}
        """What it was told by that server last, which no message has told of."""
        self.doubted: dict[str, tuple[int | Absent, int]] = {}
        """State and end of what it may use although it missed something."""

    async def find(self, key_ids: list[str]) -> Found:
        self.database.check()
        server, states = self.database.server, self.database.states
        if stays := self.stays and self.database.former is not None:
            server, (_, states, *_) = self.database.former
        records = {key_id: a_record(key_id=key_id, label=str(state)) for key_id in key_ids if (state := states[key_id]) is not DEAD}
        found = Found(records, server)
        await self.late()
        for key_id in key_ids:
            told: int | Absent = int(records[key_id].label) if key_id in records else ABSENT
            self.of_before[key_id] = told if stays else None
            if self.trust.read is None or self.trust.read.server != found.server:
                self.strange[key_id] = told, self.time.ms + A_MOMENT_MS
        return found

    async def fetch(self, _statement: str, since: str, server: int | None) -> list[dict[str, Any]]:
        self.database.check()
        now, committed, floor = self.database.snapshot(), set(self.database.committed), self.database.floor()
        goes_on = server == self.database.server and floor <= parse_snapshot(since).xmin
        before = self.database.seen[server, since] if goes_on else set()
        new = [entry for entry in self.database.feed if entry not in before]
        state = {"position": now.text, "server": self.database.server, "floor": floor}
        await self.late()
        told = set(new) if len(new) <= sql.MOST_CHANGES else set()
        untold = committed.symmetric_difference(committed if self.read_of is None else self.read_of) - told
        for key_id in KEYS if untold or server not in (None, self.database.server) else ():
            known = cache(self.lookup).present.get(key_id)
            if known is None:
                continue
            if self.doubted.get(key_id, (None, 0))[0] != known.value if is_in_doubt(self.lookup, key_id) else self.believes():
                self.doubted[key_id] = (known.value, self.time.ms + SETTINGS.local_ttl_ms)
        for entry in new:  # or nothing from before is used, as so many things have changed
            for key_id in KEYS if entry.key_id == EVERY_KEY or not told else (entry.key_id,):
                self.doubted.pop(key_id, None)
        self.read_of = committed
        return [state, *({"key_ids": [entry.key_id], "xids": [entry.xid]} for entry in new)]

    def believes(self) -> bool:
        """Whether it may use its memory without asking anybody."""
        if self.applied_ms is None:
            return False
        has_every_message = self.trust.redis_up_ms is not None and self.trust.redis_up_ms < self.applied_ms
        return has_every_message or self.time.ms < self.applied_ms + SETTINGS.stale_limit_ms

    async def late(self) -> None:
        if self.holding:
            self.held.append(held := Held())
            await held.arrives.wait()

    async def read(self) -> None:
        try:
            await read_feed(self.listener, self)
            self.applied_ms = self.trust.read.at.ms
        except StoreUnavailable:
            return
        finally:
            self.reading = False


gates = st.integers(0, 1)
seldom = st.sampled_from([False, False, False, True])
"""What breaks breaks seldom, so that the rest gets somewhere."""
keys = st.sampled_from(KEYS)


class Protocol(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.time, self.database, self.redis = Time(), Database(), Redis()
        self.over_ms: dict[tuple[str, int | None], int] = {}
        """When a state of a key ended; each is unique but for :data:`DEAD`, whose latest end counts."""
        self.states = 0
        self.gates: list[Gate] = []
        self.limits = pytest.MonkeyPatch()

    @initialize()
    def start(self) -> None:
        self.gates = [Gate(self.database, self.redis, self.time) for _ in range(2)]

    def run(self, work: Any = None, *, turns: int = 60) -> Any:
        """Let the loop turn: by default until nothing moves."""

        async def run() -> Any:
            outcome = None if work is None else await work()
            for _ in range(turns):
                await asyncio.sleep(0)
            return outcome

        return self.loop.run_until_complete(run())

    # -- the database --------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.database.is_up)
    @rule(key_id=keys, delete=st.booleans())
    def begin(self, key_id: str, delete: bool) -> None:
        """One transaction for each key at a time: the row's lock."""
        if all(transaction.key_id != key_id for transaction in self.database.under_way):
            self.states += 1
            self.database.begin(key_id, DEAD if delete else self.states)

    @precondition(lambda self: self.database.is_up)
    @rule(number=gates, key_id=keys, message=st.booleans())
    def a_key_changes_while_it_is_looked_up(self, number: int, key_id: str, message: bool) -> None:
        """The row is read, then changes, and this gate hears of it before the answer arrives."""
        gate = self.gates[number]
        if any(transaction.key_id == key_id for transaction in self.database.under_way) or gate.holding or gate.held:
            return
        gate.holding = True
        self.a_key_is_used(number, key_id)
        gate.holding = False
        self.states += 1
        self._commit(self.database.begin(key_id, self.states))
        if message:
            gate.told_ms[key_id] = self.time.ms
            self.run(lambda: self._deliver(gate, key_id))
        else:
            self.a_gate_reads_the_feed(number)
        while gate.held:
            self.an_answer_arrives(number)
        self.judge(gate, key_id)

    @precondition(lambda self: self.database.is_up and self.database.under_way)
    @rule(data=st.data(), publish=st.booleans())
    def commit(self, data: st.DataObject, publish: bool) -> None:
        """The admin service may die before it publishes."""
        transaction = data.draw(st.sampled_from(self.database.under_way))
        self._commit(transaction)
        if publish and self.redis.is_up:
            self.redis.held.pop(f"gerbang:{{{transaction.key_id}}}:record", None)
            for gate in self.gates:
                if gate.trust.redis_up_ms is not None:
                    gate.mail.append((transaction.key_id, self.time.ms))

    @precondition(lambda self: self.database.is_up and not any(gate.reading for gate in self.gates))
    @rule(number=gates, by=gates, key_id=keys)
    def a_key_is_looked_up_while_its_change_is_under_way(self, number: int, by: int, key_id: str) -> None:
        """And used after the change was committed and read of."""
        self.a_gate_reads_the_feed(number)
        self.begin(key_id, delete=False)
        self.a_key_is_used(by, key_id)
        self._change(key_id)
        self.a_gate_reads_the_feed(number)
        self.a_key_is_used(number, key_id)

    def _commit(self, transaction: Transaction) -> None:
        self.database.under_way.remove(transaction)
        self._becomes(transaction.key_id, transaction.state)
        self.database.committed.append(transaction)
        self.database.feed.append(transaction)

    def _becomes(self, key_id: str, state: int | None) -> None:
        self.time.ms += 1
        self.over_ms[key_id, self.database.states[key_id]] = self.time.ms
        self.database.states[key_id] = state
        self.over_ms.pop((key_id, state), None)

    @precondition(lambda self: self.database.is_up and not self.database.under_way)
    @rule(really=seldom)
    def every_key_is_deleted(self, really: bool) -> None:
        """The table is emptied: the feed names no key."""
        if really:
            emptied = self.database.begin(EVERY_KEY, DEAD)
            self.database.under_way.clear()
            for key_id in KEYS:
                self._becomes(key_id, DEAD)
            self.database.committed.append(emptied)
            self.database.feed.append(emptied)

    @rule()
    def prune(self) -> None:
        self.database.prune()

    @rule(down=seldom)
    def postgresql(self, down: bool) -> None:
        self.database.is_up = not down

    @rule(really=seldom, again=st.booleans())
    def postgresql_restarts(self, really: bool, again: bool) -> None:
        """Numbers of transactions that were rolled back, after the last that was committed, may be used again."""
        if really:
            self.database.under_way.clear()
            self.database.servers += 1
            self.database.server = self.database.servers
            if again:
                committed = (entry.xid + 1 for entry in self.database.committed if entry.xid < self.database.next_xid)
                self.database.next_xid = max(100, *self.database.marks, *committed)

    @rule(number=gates, stays=seldom)
    def a_pool_stays_at_the_server_before(self, number: int, stays: bool) -> None:
        self.gates[number].stays = stays

    @precondition(lambda self: self.database.is_up)
    @rule(transactions=st.integers(1, 3))
    def others_write_to_the_database(self, transactions: int) -> None:
        """What concerns no key takes numbers as well."""
        self.database.next_xid += transactions

    @rule()
    def the_standby_catches_up(self) -> None:
        self.database.standby = self.database.copy()

    @rule(really=seldom)
    def the_standby_takes_over(self, really: bool) -> None:
        """However late it is, as a backup that is restored."""
        if really:
            left = self.database.copy()
            self._all_become(self.database.standby)
            self.database.fail_over(left)

    @precondition(lambda self: self.database.former is not None)
    @rule(really=seldom)
    def the_server_before_comes_back(self, really: bool) -> None:
        """Without a restart, as after a network that was cut."""
        if really and self.database.former is not None:
            left, (server, former) = self.database.copy(), self.database.former
            self._all_become(former)
            self.database.go_back(server, former, left)

    @rule(really=seldom)
    def a_dump_is_restored(self, really: bool) -> None:
        if really:
            self._all_become(self.database.standby)
            self.database.restore()

    @precondition(lambda self: self.database.is_up and not any(gate.reading or gate.held for gate in self.gates))
    @rule(number=gates, key_id=keys, delete=st.booleans(), cold=st.booleans(), down=st.booleans())
    def a_dump_is_restored_that_lacks_a_change(self, *, number: int, key_id: str, delete: bool, cold: bool, down: bool) -> None:
        """A cold gate beside one that has read of the change, and what Redis held is put back."""
        self.the_standby_catches_up()
        self.begin(key_id, delete)
        self._change(key_id)
        self._is_in_memory(number, key_id)
        records = dict(self.redis.held)
        self.a_dump_is_restored(True)
        if cold:
            self.a_gate_dies_and_starts_cold(number, True)
        self.redis.held.update(records)
        for gate in range(2):
            self._later_it_is_used_no_more(gate, key_id)
        self.postgresql(down)
        for gate in range(2):
            self.a_key_is_used(gate, key_id)

    @rule(read=st.sampled_from([1, 2, sql.MOST_CHANGES]), kept=st.sampled_from([1, 2, sql.MOST_CHANGES]))
    def few_changes_are_too_many(self, read: int, kept: int) -> None:
        self.limits.setattr(sql, "MOST_CHANGES", read)
        self.limits.setattr(trust, "_MAX_CHANGES", kept)

    def _all_become(self, held: Standby) -> None:
        for key_id, state in held.states.items():
            if state != self.database.states[key_id]:
                self._becomes(key_id, state)

    @precondition(lambda self: self.database.is_up and not any(gate.reading or gate.held for gate in self.gates))
    @rule(key_id=keys, first=gates, second=gates, late=st.booleans(), down=st.booleans(), cold=st.booleans(), after=st.integers(0, 2))
    def a_change_is_lost_with_its_server(
        self, *, key_id: str, first: int, second: int, late: bool, down: bool, cold: bool, after: int
    ) -> None:
        """The number of its transaction is used again, and PostgreSQL may be away again before the key is used."""
        self.a_gate_reads_the_feed(first)
        self.the_standby_catches_up()
        self._change(key_id)
        self.a_gate_reads_the_feed(second)
        self.answers_are_held_up(first, late)
        self.a_key_is_used(first, key_id)
        self.the_standby_takes_over(True)
        for _ in range(after):
            self._change(next(other for other in KEYS if other != key_id))
        self.answers_are_held_up(first, False)
        self.a_gate_reads_the_feed(first)
        self.a_gate_reads_the_feed(second)
        self.postgresql(down)
        while self.gates[first].held:
            self.an_answer_arrives(first)
        for number in (first, second):
            if cold:
                cache(self.gates[number].lookup).drop(key_id)
            self.a_key_is_used(number, key_id)

    @precondition(lambda self: self.database.is_up and not any(gate.reading or gate.held for gate in self.gates))
    @rule(number=gates, key_id=keys, delete=st.booleans(), kept=st.booleans(), forgotten=st.booleans(), down=st.booleans())
    def a_number_that_was_lost_with_its_server_is_that_of_a_change(
        self, *, number: int, key_id: str, delete: bool, kept: bool, forgotten: bool, down: bool
    ) -> None:
        """What was lost concerned no key, so that nothing tells of it. The change is under way when the new server is read first. What was
        looked up before the last read remains in memory.
        """
        self.the_standby_catches_up()
        self.others_write_to_the_database(3)
        self._is_in_memory(number, key_id)
        if kept:
            self.a_gate_reads_the_feed(number)
        records = dict(self.redis.held)
        self.the_standby_takes_over(True)
        self.begin(key_id, delete)
        self.others_write_to_the_database(5)
        self.a_gate_reads_the_feed(number)
        self._change(key_id)
        self.a_gate_reads_the_feed(number)
        self.judge(self.gates[number], key_id)
        if forgotten:
            cache(self.gates[number].lookup).drop(key_id)
            self.a_gate_reads_the_feed(number)
            self.redis.held.update(records)  # a fail-over of Redis
        self.postgresql(down)
        self.a_key_is_used(number, key_id)

    @precondition(lambda self: self.database.is_up and not any(gate.reading or gate.held for gate in self.gates))
    @rule(number=gates, pruned=st.booleans())
    def a_gate_without_both_stores_comes_back(self, number: int, pruned: bool) -> None:
        """Its memory has ended, and does not begin again before what changed meanwhile is applied."""
        gate = self.gates[number]
        for key_id in KEYS:
            self._is_in_memory(number, key_id)
        self.redis_is(True)
        for key_id in KEYS:
            self._change(key_id)
        for _ in range(2 if pruned else 0):
            self.prune()
        self.time.ms += SETTINGS.stale_limit_ms
        used: list[Any] = []
        subscribers = gate.listener.on_invalidate
        subscribers.append(lambda _key_id: used.extend(gate.lookup.peek(key_id, self.time.ms) for key_id in KEYS))
        self.a_gate_reads_the_feed(number)
        subscribers.clear()
        assert set(used) <= {None}, "used again what was no longer valid"
        self.redis_is(False)

    @precondition(lambda self: self.database.is_up and not any(gate.reading or gate.held for gate in self.gates))
    @rule(number=gates, key_id=keys)
    def a_change_is_pruned_before_a_gate_reads_of_it(self, number: int, key_id: str) -> None:
        self._is_in_memory(number, key_id)
        self._change(key_id)
        self.prune()
        self.prune()
        self._later_it_is_used_no_more(number, key_id)

    @precondition(lambda self: self.database.is_up and not any(gate.reading or gate.held for gate in self.gates))
    @rule(number=gates, key_id=keys, marked=st.booleans(), again=st.booleans())
    def a_backup_takes_over_that_lacks_a_change_of_five_minutes_ago(self, *, number: int, key_id: str, marked: bool, again: bool) -> None:
        """It may lack a mark as well; no mark was made when no admin service ran. Transactions may have come to the same number again."""
        self.the_standby_catches_up()
        self._change(key_id)
        if marked:
            self.prune()
        self._is_in_memory(number, key_id)
        for _ in range(30):
            self.time.ms += 11_000
            self.a_gate_reads_the_feed(number)
        self.the_standby_takes_over(True)
        for _ in range(3 if again else 0):
            self._change(next(other for other in KEYS if other != key_id))
        self._later_it_is_used_no_more(number, key_id)

    @precondition(lambda self: self.database.is_up and not any(gate.reading or gate.held for gate in self.gates))
    @rule(number=gates, key_id=keys)
    def a_change_that_was_looked_up_and_not_read_of_is_lost_with_its_server(self, number: int, key_id: str) -> None:
        """No gate has read of it, so that nobody misses it."""
        self.answers_are_held_up(number, False)
        self.a_gate_reads_the_feed(number)
        self.the_standby_catches_up()
        self._change(key_id)
        self.redis.held.clear()
        cache(self.gates[number].lookup).drop(key_id)
        self.a_key_is_used(number, key_id)
        self.the_standby_takes_over(True)
        self._later_it_is_used_no_more(number, key_id)

    @precondition(lambda self: self.database.is_up and not any(gate.reading or gate.held for gate in self.gates))
    @rule(number=gates, key_id=keys)
    def a_change_is_pruned_while_the_key_is_looked_up(self, number: int, key_id: str) -> None:
        """The row is read, then changes, and the feed does not tell of it."""
        self.a_gate_reads_the_feed(number)
        self.redis.held.clear()
        cache(self.gates[number].lookup).drop(key_id)
        self.answers_are_held_up(number, True)
        self.a_key_is_used(number, key_id)
        self.answers_are_held_up(number, False)
        self._change(key_id)
        self.prune()
        self.prune()
        self.a_gate_reads_the_feed(number)
        while self.gates[number].held:
            self.an_answer_arrives(number)
        self.judge(self.gates[number], key_id)

    def _is_in_memory(self, number: int, key_id: str) -> None:
        self.answers_are_held_up(number, False)
        self.a_gate_reads_the_feed(number)
        self.a_key_is_used(number, key_id)

    def _later_it_is_used_no_more(self, number: int, key_id: str) -> None:
        """When what is in doubt has been in doubt for as long as it may be used."""
        for milliseconds in (1, SETTINGS.local_ttl_ms):
            self.time.ms += milliseconds
            self.a_gate_reads_the_feed(number)
        self.judge(self.gates[number], key_id)

    def _change(self, key_id: str) -> None:
        """Or the change that is under way is committed."""
        self.begin(key_id, delete=False)
        self._commit(next(transaction for transaction in self.database.under_way if transaction.key_id == key_id))

    # -- redis ---------------------------------------------------------------------------------------------------------

    @rule(down=seldom)
    def redis_is(self, down: bool) -> None:
        self.redis.is_up = up = not down
        for gate in self.gates:
            gate.trust.redis_up_ms = None if not up else gate.trust.redis_up_ms or self.time.ms
            if not up:
                gate.mail.clear()
            else:  # a subscription is made when Redis has rested
                self.time.ms += REST_MS

    @rule()
    def the_admin_service_removes_records_of_what_has_changed(self) -> None:
        for entry in self.database.feed if self.database.is_up and self.redis.is_up else ():
            for key_id in KEYS if entry.key_id == EVERY_KEY else (entry.key_id,):
                self.redis.held.pop(f"gerbang:{{{key_id}}}:record", None)

    @rule(really=seldom)
    def redis_is_emptied(self, really: bool) -> None:
        if really:
            self.redis.held.clear()

    @precondition(lambda self: self.redis.ever)
    @rule(data=st.data())
    def somebody_puts_an_old_record_back(self, data: st.DataObject) -> None:
        name, sealed = data.draw(st.sampled_from(self.redis.ever))
        self.redis.held[name] = sealed

    @precondition(lambda self: self.redis.ever and self.redis.is_up and self.database.is_up)
    @rule(number=gates, data=st.data())
    def somebody_puts_an_old_record_back_before_a_gate_that_has_just_read_the_feed(self, number: int, data: st.DataObject) -> None:
        if self.gates[number].reading or self.gates[number].held:
            return
        self.a_gate_reads_the_feed(number)
        name, sealed = data.draw(st.sampled_from(self.redis.ever))
        self.redis.held[name] = sealed
        self.a_key_is_used(number, next(key_id for key_id in KEYS if key_id in name))

    @rule(number=gates, key_id=st.sampled_from([*KEYS, *OTHERS]))
    def somebody_forges_a_message(self, number: int, key_id: str) -> None:
        self.run(lambda: self._deliver(self.gates[number], key_id))

    @precondition(lambda self: any(gate.mail for gate in self.gates))
    @rule(number=gates)
    def a_message_comes(self, number: int) -> None:
        gate = self.gates[number]
        if gate.mail:
            key_id, sent_ms = gate.mail.pop(0)
            gate.told_ms[key_id] = sent_ms
            self.run(lambda: self._deliver(gate, key_id))

    async def _deliver(self, gate: Gate, key_id: str) -> None:
        receive(gate.listener, f"{self.time.now().wall_ms} {key_id}".encode())

    # -- the gates -----------------------------------------------------------------------------------------------------

    @rule(milliseconds=st.sampled_from([1, 10, 100, 300, 1_000, 4_000, 50_000]))
    def time_passes(self, milliseconds: int) -> None:
        self.time.ms += milliseconds

    @rule(number=gates)
    def a_gate_reads_the_feed(self, number: int) -> None:
        self._read_feed(number)

    @rule(number=gates, turns=st.integers(1, 6))
    def a_gate_begins_to_apply_what_it_reads(self, number: int, turns: int) -> None:
        """Each change is a page here: others have their turn in between."""
        self._read_feed(number, turns=turns)

    def _read_feed(self, number: int, **turns: int) -> None:
        gate = self.gates[number]
        if not gate.reading:
            gate.reading = True
            self.run(lambda: self._spawned(gate.read()), **turns)

    async def _spawned(self, work: Any) -> None:
        spawn(work, name="model")

    @rule(number=gates, held_up=seldom)
    def answers_are_held_up(self, number: int, held_up: bool) -> None:
        self.gates[number].holding = held_up

    @precondition(lambda self: any(gate.held for gate in self.gates))
    @rule(number=gates)
    def an_answer_arrives(self, number: int) -> None:
        if self.gates[number].held:
            self.gates[number].held.pop(0).arrives.set()
            self.run()

    @rule(number=gates, really=seldom)
    def a_gate_dies_and_starts_cold(self, number: int, really: bool) -> None:
        if not really:
            return
        self.run(self.gates[number].lookup.aclose)
        self.gates[number] = Gate(self.database, self.redis, self.time)

    @rule(number=gates, key_id=keys)
    def a_key_is_used(self, number: int, key_id: str) -> None:
        gate = self.gates[number]
        self.judge(gate, key_id)
        if self.run(lambda: self._peek(gate, key_id)) is None:
            self.run(lambda: self._spawned(self._fetch(gate, key_id)))
            self.judge(gate, key_id)

    async def _fetch(self, gate: Gate, key_id: str) -> None:
        with suppress(KeyStoreUnavailable):
            await gate.lookup.fetch(key_id)

    async def _peek(self, gate: Gate, key_id: str) -> Any:
        return gate.lookup.peek(key_id, self.time.ms)

    @rule()
    def all_keys_are_judged(self) -> None:
        for gate in self.gates:
            for key_id in KEYS:
                self.judge(gate, key_id)

    def judge(self, gate: Gate, key_id: str) -> None:
        """What memory says may be the past, but not a past that this gate must know to be over."""
        found = self.run(lambda: self._peek(gate, key_id), turns=0)
        if found is None:
            return
        over_ms = self.over_ms.get((key_id, DEAD if found is ABSENT else found))
        if over_ms is None:
            return
        state, until_ms = gate.doubted.get(key_id, (DEAD, 0))
        read_ms = self.time.ms - SETTINGS.redis_ttl_ms if gate.applied_ms is None else gate.applied_ms
        strange, moment_ms = gate.strange.get(key_id, (DEAD, 0))
        missed = (found == state and self.time.ms < until_ms) or (found == strange and self.time.ms < moment_ms)
        assert missed or over_ms > read_ms, f"used a state that was over {read_ms - over_ms} ms before the feed was read"
        assert found == gate.of_before.get(key_id) or over_ms > gate.told_ms.get(key_id, 0), "used a state that a message said to be over"

    def teardown(self) -> None:
        self.limits.undo()
        for gate in self.gates:
            self.run(gate.lookup.aclose)
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.run()
        self.loop.close()


def test_what_a_gate_missed_is_used_no_longer_than_it_is_in_doubt():
    protocol, (first, second) = Protocol(), KEYS
    protocol.start()
    protocol.a_key_changes_while_it_is_looked_up(key_id=first, message=False, number=1)
    protocol.prune()
    protocol.a_key_changes_while_it_is_looked_up(key_id=first, message=False, number=0)
    protocol.prune()
    protocol.prune()
    protocol.a_key_changes_while_it_is_looked_up(key_id=second, message=False, number=1)
    protocol.a_key_changes_while_it_is_looked_up(key_id=first, message=False, number=1)
    protocol.teardown()


def test_a_gate_notices_that_changes_were_pruned_before_it_read_of_them():
    protocol = Protocol()
    protocol.start()
    protocol.a_change_is_pruned_before_a_gate_reads_of_it(number=0, key_id=KEYS[0])
    protocol.teardown()


def test_what_was_looked_up_before_its_change_was_pruned_is_looked_up_again():
    protocol = Protocol()
    protocol.start()
    protocol.a_change_is_pruned_while_the_key_is_looked_up(number=0, key_id=KEYS[0])
    protocol.teardown()


def test_what_was_looked_up_since_the_last_read_is_not_used_when_another_server_takes_over():
    protocol = Protocol()
    protocol.start()
    protocol.a_change_that_was_looked_up_and_not_read_of_is_lost_with_its_server(number=0, key_id=KEYS[0])
    protocol.teardown()


def test_a_record_from_before_what_was_pruned_is_not_used_without_postgresql():
    protocol = Protocol()
    protocol.start()
    protocol.a_change_is_pruned_before_a_gate_reads_of_it(number=0, key_id=KEYS[0])
    protocol.postgresql(down=True)
    protocol.a_key_is_used(number=0, key_id=KEYS[0])
    protocol.teardown()


def test_with_a_gap_in_the_feed_too_no_key_is_used_when_the_feed_says_that_every_key_changed():
    protocol = Protocol()
    protocol.start()
    protocol.every_key_is_deleted(really=True)
    protocol.a_change_is_lost_with_its_server(key_id=KEYS[0], first=0, second=0, late=False, down=False, cold=False, after=0)
    protocol.teardown()


def test_a_key_in_doubt_is_used_no_more_when_the_feed_says_that_every_key_changed():
    protocol = Protocol()
    protocol.start()
    protocol.a_change_is_lost_with_its_server(key_id=KEYS[0], first=0, second=0, late=False, down=True, cold=False, after=0)
    protocol.postgresql(down=False)
    protocol.every_key_is_deleted(really=True)
    protocol.a_gate_reads_the_feed(number=0)
    protocol.a_key_is_used(number=0, key_id=KEYS[0])
    protocol.teardown()


@pytest.mark.parametrize("after", [0, 1])
def test_a_change_that_was_looked_up_and_not_read_of_is_used_no_more_when_it_was_lost_with_its_server(after):
    protocol = Protocol()
    protocol.start()
    protocol.a_change_is_lost_with_its_server(key_id=KEYS[0], first=0, second=1, late=False, down=False, cold=False, after=after)
    protocol.teardown()


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize(("forgotten", "down"), [(False, False), (True, True)])
def test_a_number_that_is_used_again_after_a_fail_over_is_not_taken_for_the_one_that_was_lost(kept, forgotten, down):
    protocol = Protocol()
    protocol.start()
    protocol.a_number_that_was_lost_with_its_server_is_that_of_a_change(
        number=0, key_id=KEYS[0], delete=False, kept=kept, forgotten=forgotten, down=down
    )
    protocol.teardown()


@pytest.mark.parametrize("pruned", [True, False])
def test_memory_that_has_ended_does_not_begin_again_before_what_changed_meanwhile_is_applied(pruned):
    protocol = Protocol()
    protocol.start()
    protocol.a_gate_without_both_stores_comes_back(number=0, pruned=pruned)
    protocol.teardown()


def test_what_a_cold_gate_took_from_redis_is_used_no_more_once_it_has_read_the_feed():
    protocol = Protocol()
    protocol.start()
    protocol.a_number_that_was_lost_with_its_server_is_that_of_a_change(
        number=1, key_id=KEYS[0], delete=False, kept=False, forgotten=False, down=True
    )
    protocol.prune()
    protocol.prune()
    protocol.a_key_is_used(number=0, key_id=KEYS[0])
    protocol.postgresql(down=False)
    protocol.a_change_is_pruned_before_a_gate_reads_of_it(number=0, key_id=KEYS[0])
    protocol.teardown()


def test_what_was_looked_up_before_a_cold_gate_s_first_read_of_too_many_changes_is_looked_up_again():
    protocol = Protocol()
    protocol.start()
    protocol.a_key_changes_while_it_is_looked_up(key_id=KEYS[0], message=False, number=0)
    protocol.a_gate_dies_and_starts_cold(number=0, really=True)
    protocol.few_changes_are_too_many(kept=1, read=1)
    protocol.a_key_changes_while_it_is_looked_up(key_id=KEYS[0], message=False, number=0)
    protocol.teardown()


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("again", [True, False])
def test_a_gate_notices_that_the_database_went_back(marked, again):
    protocol = Protocol()
    protocol.start()
    protocol.a_backup_takes_over_that_lacks_a_change_of_five_minutes_ago(number=0, key_id=KEYS[0], marked=marked, again=again)
    protocol.teardown()


TestProtocol = Protocol.TestCase
TestProtocol.settings = settings(max_examples=60 if settings().derandomize else 1_000, stateful_step_count=50, deadline=None)
