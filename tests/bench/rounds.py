"""Rounds of load over contestants that take turns, and the table made of them: medians, and ratios taken round by round."""

import contextlib
import json
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.bench import contestants, load
from tests.bench.contestants import GATE_CORE, LOAD_CORE, Contestant, Ground
from tests.bench.gate import GATE
from tests.bench.processes import spent
from tests.support.ports import free_port


class Running(NamedTuple):
    """A contestant that serves."""

    port: int
    pid: int
    log: Path


class Run(NamedTuple):
    """One run of the load, and what the contestant spent on each request in microseconds of processor time."""

    load: load.Result
    user: float
    system: float


Runs = dict[str, list[Run]]


@contextlib.contextmanager
def started(contestant: Contestant, ground: Ground, core: str = GATE_CORE) -> Iterator[Running]:
    """Run one contestant on its core, in a folder of its own."""
    folder = ground.folder / re.sub(r"\W+", "-", contestant.name)
    folder.mkdir(exist_ok=True)
    port, log = free_port(), folder / "log"
    process = contestants.pinned(core, contestant.command(ground._replace(folder=folder), port), log)
    try:
        contestants.wait_for(port, process, log)
        yield Running(port, process.pid, log)
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


class Bench(NamedTuple):
    """What stays the same over all modes."""

    ground: Ground
    entered: list[Contestant]
    running: dict[str, Running]
    rounds: int
    seconds: int
    load_core: str = LOAD_CORE

    def measure(self, mode: str, connections: int) -> Runs:
        """All rounds of one mode at one number of connections; contestants take turns within each round.

        Before the first round each contestant is looked at: every status and every body.

        :raises SystemExit: when an answer was not the expected one
        """
        runs: Runs = {contestant.name: [] for contestant in self.entered if mode in contestant.modes}
        for name in runs:
            self.run(name, mode, connections, seconds=1, check=True)
        for _ in range(self.rounds):
            for name, results in runs.items():
                results.append(self.run(name, mode, connections, seconds=self.seconds, check=False))
        return runs

    def rest(self, mode: str) -> Run:
        """One run of the gate in a mode."""
        return self.run(GATE, mode, 32, seconds=self.seconds, check=False)

    def run(self, name: str, mode: str, connections: int, *, seconds: int, check: bool) -> Run:
        """One run of one contestant.

        :raises SystemExit: when an answer was not the expected one
        """
        before = spent(self.running[name].pid)
        result = load.run(
            self.ground.key,
            mode,
            port=self.running[name].port,
            connections=connections,
            seconds=seconds,
            folder=self.ground.folder,
            trades=100_000 * seconds,
            core=self.load_core,
            check=check,
        )
        after = spent(self.running[name].pid)
        if result.wrong:
            sys.exit(f"{name}, {mode}, {connections} connections: {result.wrong} answers were not the expected one; nothing is measured")
        return Run(result, (after.user - before.user) / result.requests, (after.system - before.system) / result.requests)


def rows_of(mode: str, connections: int, runs: Runs) -> list[dict[str, object]]:
    """Medians of each contestant, and the median of the round-by-round ratios of the gate to it."""
    gate = runs[GATE]
    return [
        {
            "mode": mode,
            "connections": connections,
            "who": name,
            "rps": round(statistics.median(run.load.rps for run in results)),
            "p50_ms": round(statistics.median(run.load.p50 for run in results), 3),
            "p99_ms": round(statistics.median(run.load.p99 for run in results), 3),
            "us": round(statistics.median(run.user + run.system for run in results), 1),
            "user_us": round(statistics.median(run.user for run in results), 1),
            "gate_rps_ratio": _ratio([ours.load.rps / run.load.rps for ours, run in zip(gate, results, strict=True)]),
            "gate_p99_ratio": _ratio([ours.load.p99 / run.load.p99 for ours, run in zip(gate, results, strict=True)]),
            "gate_user_ratio": _ratio([ours.user / (run.user or 1) for ours, run in zip(gate, results, strict=True)]),
        }
        for name, results in runs.items()
    ]


def _ratio(ratios: list[float]) -> float:
    return round(statistics.median(ratios), 2)


HEAD = ("mode", "connections", "who", "requests/s", "p50 ms", "p99 ms", "processor µs", "of that user µs",
        "gate ÷ it, requests/s", "p99", "user µs")  # fmt: skip


def table(rows: list[dict[str, object]], head: tuple[str, ...] = HEAD) -> str:
    """The rows as a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join(lines + ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows])
