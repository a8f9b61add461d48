"""What grows with what, in one table: ``python -m tests.bench.growth``.

Routes, idle connections, keys in PostgreSQL, keys revoked at once, workers, and, when asked, time. Real stores on this machine. Look-ups
and revocations are measured on the gate's own classes in a process of their own, interpreted (:mod:`tests.bench.fleet`).
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import redis.asyncio

from gateway.keys.vault import new_entry
from gateway.runtime import clock
from tests.bench import interpreter, memory, scaling
from tests.bench.contestants import GATE_CORE, LOAD_CORE, Ground
from tests.bench.fleet import TOGETHER
from tests.bench.gate import GATE, Entered, Variant, built_for, gates_under_test, is_compiled
from tests.bench.processes import descendants, resident
from tests.bench.rounds import Bench, started, table, upstream
from tests.bench.session import service
from tests.support.ports import free_port
from tests.support.stack import TEMPLATE, OwnPostgres, start_migrated, start_redis

Rows = list[tuple[str, str, str]]
HEAD = ("what", "with", "figure")
MANY_ROUTES, TWO_WORKERS = "5 000 routes", "2 workers"
PATTERNS = ("GET /v1/service-{}/orders", "GET /v1/service-{}/orders/{{id}}", "POST /v1/service-{}/orders",
            "DELETE /v1/service-{}/orders/{{id}}", "GET /v1/service-{}/files/{{path...}}")  # fmt: skip
SAMPLE = 20_000
"""So many keys are looked up at the most: of PostgreSQL a gate asks for 5 000 a second."""
MIXED = ("read", "trade", "public", "refusal", "connect")
SETTLED_S = 120
"""After so long memory is expected to be flat."""


class Place(NamedTuple):
    """The gate in its variants, and what it needs."""

    entered: Entered
    ground: Ground

    def bench(self, names: Sequence[str], stack: contextlib.ExitStack, rounds: int, seconds: int, cores: str = GATE_CORE) -> Bench:
        """Start these variants until ``stack`` ends."""
        gates = [gate for gate in self.entered.gates if gate.name in names]
        running = {gate.name: stack.enter_context(started(gate, self.ground, cores)) for gate in gates}
        return Bench(self.ground, gates, running, rounds, seconds)


@contextlib.contextmanager
def gates(program: Sequence[str], folder: Path) -> Iterator[Place]:
    """Stores, upstream and variants of the gate."""
    matches = [pattern.format(number) for number in range(1_000) for pattern in PATTERNS]
    routes = "".join(f'\n[[routes]]\nmatch = "{match}"\nscope = "read"\nupstream = "spot"\n' for match in matches)
    variants = {GATE: Variant(program), MANY_ROUTES: Variant(program, more=routes), TWO_WORKERS: Variant(program, workers=2)}
    with gates_under_test(folder, variants) as entered:
        ground = Ground(folder, free_port(), entered.key, free_port(), entered.redis)
        with upstream(ground), service(ground):
            yield Place(entered, ground)


def with_routes(place: Place, rounds: int, seconds: int) -> Rows:
    """A signed read with few and with many routes, in turns."""
    with contextlib.ExitStack() as stack:
        runs = place.bench((GATE, MANY_ROUTES), stack, rounds, seconds).measure("read", 32)
    rows = []
    for name, results in runs.items():
        spent = statistics.median(run.user + run.system for run in results)
        rate = statistics.median(run.load.rps for run in results)
        rows.append(("signed read", "5 routes" if name == GATE else name, f"{rate:.0f}/s, {spent:.1f} µs of processor time"))
    return rows


def with_workers(place: Place, rounds: int, seconds: int) -> Rows:
    """Two workers against one, each on a core of its own."""
    what, spare = "2 workers ÷ 1, signed reads", [str(core) for core in range(os.cpu_count() or 1) if str(core) != LOAD_CORE]
    if len(spare) < 3:  # two for workers, one for the load: with the upstream on the same core it would be what is measured
        return [(what, f"{os.cpu_count()} cores", "not measured: it takes four")]
    with contextlib.ExitStack() as stack:
        bench = place.bench((GATE, TWO_WORKERS), stack, rounds, seconds, ",".join(spare[:2]))
        runs = bench._replace(load_core=spare[2]).measure("read", 64)
    ratios = [two.load.rps / one.load.rps for one, two in zip(runs[GATE], runs[TWO_WORKERS], strict=True)]
    return [(what, f"cores {' and '.join(spare[:2])}", f"{statistics.median(ratios):.2f}")]


def soak(place: Place, minutes: float, modes: Sequence[str] = MIXED) -> Rows:
    """Mixed load, kind after kind; resident memory of the worker when it has settled and at the end."""
    with contextlib.ExitStack() as stack:
        bench = place.bench((GATE,), stack, 1, 2)
        worker, began_ms, seen = descendants(bench.running[GATE].pid)[-1], clock.monotonic_ms(), [(0.0, 0.0)]
        while seen[-1][0] < minutes * 60:
            for mode in modes:
                bench.run(GATE, mode, 32, seconds=1, check=False)
            seen.append(((clock.monotonic_ms() - began_ms) / 1_000, resident(worker)))
    settled = next((mib for at, mib in seen[1:] if at >= min(SETTLED_S, minutes * 30)), seen[-1][1])
    told = f"{settled:.1f} MiB when settled, {seen[-1][1]:.1f} at the end"
    return [("resident memory of a worker, mixed load", f"{seen[-1][0] / 60:.1f} minutes", told)]


async def with_keys(ground: scaling.Ground, keys: int) -> Rows:
    """Look-ups of a gate that starts cold, with Redis empty, and what each key takes in memory."""
    path = await scaling.make_keys(ground, keys)
    ids = path.read_text().split()[:SAMPLE]
    path.write_text("\n".join(ids))
    async with redis.asyncio.Redis.from_url(ground.redis.url) as client, scaling.fleet(ground, 1, 1.0) as fleet:
        (idle,) = await fleet.do("use 0")
        used = (await client.info("memory"))["used_memory"]
        (filled,) = await fleet.do(f"fill {path}")
        await fleet.do("use 1")  # what is written to Redis is written by then
        in_redis = ((await client.info("memory"))["used_memory"] - used) / len(ids)
    in_process = (filled["resident"] - idle["resident"]) * 1024 / len(ids)
    looked_up = f"{len(ids) / filled['seconds']:.0f}/s, p99 {filled['fetch_ms']:.0f} ms, {TOGETHER} at a time"
    return [
        ("cold look-ups, Redis empty", f"{keys} keys in PostgreSQL", looked_up),
        ("memory for each key in use", f"{keys} keys in PostgreSQL", f"{in_process:.1f} KiB in process, {in_redis:.0f} bytes in Redis"),
    ]


async def with_revocations(ground: scaling.Ground, keys: int) -> Rows:
    """Many keys revoked in one transaction, told by the feed alone."""
    found = await scaling.revoke_all(ground, 1, keys)
    figure = f"refused {found.late_ms:.0f} ms after the commit, worst turn of the loop {found.lag_ms:.0f} ms"
    return [("keys revoked in one transaction", str(keys), figure)]


def of_keys(folder: Path, keys: Sequence[int], revoked: int) -> Rows:
    """What keys cost, on stores of its own."""
    folder.mkdir()
    server, cache = start_migrated(folder / "postgres"), start_redis(folder / "redis")
    ground = scaling.Ground(OwnPostgres(server, TEMPLATE), cache, new_entry("k1"), folder)
    try:
        rows = [row for count in keys for row in asyncio.run(with_keys(ground, count))]
        return rows + asyncio.run(with_revocations(ground, revoked))
    finally:
        cache.stop()
        server.stop()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, nargs="+", default=[1_000, 100_000], help="in PostgreSQL; 1000000 takes a few minutes more")
    parser.add_argument("--revoked", type=int, default=10_000, help="keys revoked at once")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of each run")
    parser.add_argument("--soak", type=float, default=0, metavar="MINUTES", help="of mixed load (default: none)")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="interpreter to build the gate for")
    parser.add_argument("--no-build", action="store_true", help="without a wheel of the present sources, run the checkout, interpreted")
    options = parser.parse_args()
    built = built_for([options.python], build=not options.no_build)[GATE]
    os.sched_setaffinity(0, {int(LOAD_CORE)})
    with tempfile.TemporaryDirectory(prefix="gerbang-growth-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with gates(built.program, folder) as place:
            rows = with_routes(place, options.rounds, options.seconds)
            kind = "compiled" if is_compiled(folder / GATE / "log") else "interpreted"
            rows += [(what, "", str(figure)) for what, figure in memory.measure(place.entered.gates[0], place.ground, built.python).items()]
            rows += with_workers(place, options.rounds, options.seconds)
            rows += soak(place, options.soak) if options.soak else []
        rows += of_keys(folder / "keys", options.keys, options.revoked)
    print(f"\n{interpreter.machine()}\n{interpreter.described(built.python)}, {kind}\n")
    print(table([dict(zip(HEAD, row, strict=True)) for row in rows], HEAD))


if __name__ == "__main__":
    main()
