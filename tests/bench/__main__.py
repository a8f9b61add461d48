"""The benchmark: one table of medians over interleaved rounds, printed and written as JSON.

The contestant runs pinned to one core; the load generator, the upstream, PostgreSQL and Redis to the other. Ratios are taken round by
round, gate over baseline, so that they hold when the machine's speed drifts; single figures are this machine's.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from tests.bench import contestants, load, memory, session
from tests.bench.contestants import GATE_CORE, LOAD_CORE, Contestant, Ground
from tests.bench.gate import gate_under_test
from tests.support import wheel

HERE = Path(__file__).parent
Runs = dict[str, list[load.Result]]


@contextlib.contextmanager
def started(contestant: Contestant, ground: Ground) -> Iterator[int]:
    """Run one contestant on its core; yields its port."""
    port, log = contestants.free_port(), ground.folder / "log"
    process = contestants.pinned(GATE_CORE, contestant.command(ground, port), log)
    try:
        contestants.wait_for(port, process, log)
        yield port
    finally:
        contestants.stop(process)


@contextlib.contextmanager
def upstream(ground: Ground) -> Iterator[None]:
    """Run the upstream on the load's core."""
    log = ground.folder / "upstream.out"
    (ground.folder / "history.json").write_text(json.dumps([{"symbol": "BTC-IDR", "price": "1000000000"}] * 2000)[: 64 * 1024])
    process = contestants.pinned(LOAD_CORE, contestants.nginx("nginx_upstream.conf", ground, 0), log)
    try:
        contestants.wait_for(ground.upstream, process, log)
        yield
    finally:
        contestants.stop(process)


@contextlib.contextmanager
def service(ground: Ground) -> Iterator[None]:
    """Run the service behind sessions on the load's core."""
    log = ground.folder / "service.out"
    process = contestants.pinned(LOAD_CORE, [sys.executable, "-m", "tests.bench.session", "service", str(ground.service)], log)
    try:
        contestants.wait_for(ground.service, process, log)
        yield
    finally:
        contestants.stop(process)


class Bench(NamedTuple):
    """What stays the same over all modes."""

    ground: Ground
    entered: list[Contestant]
    ports: dict[str, int]
    rounds: int
    seconds: int

    def measure(self, mode: str, connections: int) -> Runs:
        """All rounds of one mode at one number of connections; contestants take turns within each round.

        Before the first round each contestant is looked at: every status and every body.

        :raises SystemExit: when an answer was not the expected one
        """
        runs: Runs = {contestant.name: [] for contestant in self.entered if mode in contestant.modes}
        for name in runs:
            self._run(name, mode, connections, seconds=1, check=True)
        for _ in range(self.rounds):
            for name, results in runs.items():
                results.append(self._run(name, mode, connections, seconds=self.seconds, check=False))
        return runs

    def rest(self, mode: str) -> float:
        """Requests per second of the gate in one run of a mode."""
        return self._run("gerbang", mode, 32, seconds=self.seconds, check=False).rps

    def _run(self, name: str, mode: str, connections: int, *, seconds: int, check: bool) -> load.Result:
        result = load.run(
            self.ground.key,
            mode,
            port=self.ports[name],
            connections=connections,
            seconds=seconds,
            folder=self.ground.folder,
            trades=60_000 * seconds,
            core=LOAD_CORE,
            check=check,
        )
        if result.wrong:
            sys.exit(f"{name}, {mode}, {connections} connections: {result.wrong} answers were not the expected one; nothing is measured")
        return result


def rows_of(mode: str, connections: int, runs: Runs) -> list[dict[str, object]]:
    """Medians of each contestant, and the median of the round-by-round ratios of the gate to it."""
    gate = runs["gerbang"]
    return [
        {
            "mode": mode,
            "connections": connections,
            "who": name,
            "rps": round(statistics.median(result.rps for result in results)),
            "p50_ms": round(statistics.median(result.p50 for result in results), 3),
            "p99_ms": round(statistics.median(result.p99 for result in results), 3),
            "gate_rps_ratio": round(statistics.median(ours.rps / theirs.rps for ours, theirs in zip(gate, results, strict=True)), 2),
            "gate_p99_ratio": round(statistics.median(ours.p99 / theirs.p99 for ours, theirs in zip(gate, results, strict=True)), 2),
        }
        for name, results in runs.items()
    ]


def table(rows: list[dict[str, object]]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| mode | connections | who | requests/s | p50 ms | p99 ms | gate ÷ it, requests/s | gate ÷ it, p99 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows])


def machine() -> str:
    """What this ran on, in one line."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), ""
    )
    gate = "compiled" if wheel.is_current() else "interpreted"
    return f"{model or platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}, the gate {gate}"


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--seconds", type=int, default=2, help="of each run (default 2)")
    parser.add_argument("--connections", type=int, nargs="+", default=[8, 32, 256])
    parser.add_argument("--modes", nargs="+", default=[*load.MODES, "session"], choices=(*load.MODES, "session"))
    parser.add_argument("--only", nargs="+", metavar="NAME", help="baselines to run (default: all that are installed)")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "latest.json")
    parser.add_argument("--no-memory", action="store_true", help="leave out resident memory and start-up time")
    options = parser.parse_args()
    for binary, package in (("wrk", "wrk"), ("nginx", "nginx"), ("taskset", "util-linux")):
        if shutil.which(binary) is None:
            sys.exit(f"{binary} is needed: apt-get install {package}")
    absent = {contestant.name: why for contestant in contestants.BASELINES if (why := contestant.missing())}
    for name, why in absent.items():
        print(f"without {name}: {why}")
    baselines = [one for one in contestants.BASELINES if one.name not in absent and (not options.only or one.name in options.only)]
    rows: list[dict[str, object]] = []
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="gerbang-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        os.sched_setaffinity(0, {int(LOAD_CORE)})  # and so the stores that it starts
        gate, interpreted, key = stack.enter_context(gate_under_test(folder))
        ground = Ground(folder, contestants.free_port(), key, contestants.free_port())
        stack.enter_context(upstream(ground))
        stack.enter_context(service(ground))
        if not options.no_memory:
            figures = memory.measure(gate, ground)
        entered = [gate, *([] if options.only else [interpreted]), *baselines]
        ports = {contestant.name: stack.enter_context(started(contestant, _own(ground, contestant))) for contestant in entered}
        bench = Bench(ground, entered, ports, options.rounds, options.seconds)
        for mode in [mode for mode in options.modes if mode != "session"]:
            for connections in options.connections:
                rows += rows_of(mode, connections, bench.measure(mode, connections))
                print(".", end="", file=sys.stderr, flush=True)
        if "session" in options.modes:
            figures |= session.measure(ground, ports["gerbang"], options.rounds, options.seconds, bench.rest)
    print(f"\n{machine()}\n{options.rounds} rounds of {options.seconds} s each\n\n{table(rows)}")
    for what, value in figures.items():
        print(f"{what}: {value}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "rows": rows,
        "process": figures,
        "absent": absent,
    }
    options.json.write_text(json.dumps(result, indent=1) + "\n")


def _own(ground: Ground, contestant: Contestant) -> Ground:
    folder = ground.folder / contestant.name.replace(" ", "-")
    folder.mkdir()
    return ground._replace(folder=folder)


main()
