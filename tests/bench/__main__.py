"""The benchmark: tables of medians over interleaved rounds, printed and written as JSON.

The contestant runs pinned to one core; the load generator, the upstream, PostgreSQL and Redis to the other. Ratios are taken round by
round, gate over baseline, so that they hold when the machine's speed drifts; single figures are this machine's.
"""

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.bench import contestants, interpreter, latency, load, memory, session
from tests.bench.contestants import LOAD_CORE, Contestant, Ground
from tests.bench.gate import GATE, INTERPRETED, Variant, built_for, gates_under_test, is_compiled
from tests.bench.rounds import Bench, rows_of, started, table, upstream
from tests.support.ports import free_port

HERE = Path(__file__).parent
MODES = (*load.MODES, "latency", "session")
UNTIMED = (INTERPRETED, "nginx + Lua + claim in Redis", "Envoy plain", "aiohttp proxy")
"""Left out of ``latency``, which takes a while for each."""
CROWDS = {"read": (8, 32, 256)}
"""Numbers of connections of a mode; 32 where it is not listed."""


def arguments() -> argparse.Namespace:
    """The options.

    :raises SystemExit: a program is not installed
    """
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--seconds", type=int, default=2, help="of each run (default 2)")
    parser.add_argument("--connections", type=int, nargs="+", help="in each mode (default 32, for read 8, 32 and 256)")
    parser.add_argument("--modes", nargs="+", default=MODES, choices=MODES)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="baselines to run (default: all that are installed)")
    beside = "interpreters to build the gate for: ratios are of the first, the others take part beside it (default: the checkout's)"
    parser.add_argument("--python", type=Path, nargs="+", default=[Path(sys.executable)], help=beside)
    parser.add_argument("--keys", type=int, default=0, help="in use at once, for one more row of the latency")
    parser.add_argument("--no-build", action="store_true", help="without a wheel of the present sources, run the checkout, interpreted")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "latest.json")
    parser.add_argument("--no-memory", action="store_true", help="leave out resident memory and start-up time")
    for binary, package in (("wrk", "wrk"), ("nginx", "nginx"), ("taskset", "util-linux"), ("cc", "gcc libc6-dev")):
        if shutil.which(binary) is None:
            sys.exit(f"{binary} is needed: apt-get install {package}")
    return parser.parse_args()


def baselines(only: Sequence[str] | None) -> tuple[list[Contestant], dict[str, str]]:
    """Those that run here, and why the others do not."""
    absent = {one.name: why for one in contestants.BASELINES if (why := one.missing())}
    return [one for one in contestants.BASELINES if one.name not in absent and (only is None or one.name in only)], absent


def main() -> None:
    """Run it."""
    options = arguments()
    built = built_for(options.python, build=not options.no_build)
    others, absent = baselines(options.only)
    rows: list[dict[str, object]] = []
    paced: list[dict[str, object]] = []
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="gerbang-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        os.sched_setaffinity(0, {int(LOAD_CORE)})  # and so the stores that it starts
        ours = stack.enter_context(gates_under_test(folder, {who: Variant(one.program) for who, one in built.items()}, options.keys))
        ground = Ground(folder, free_port(), ours.key, free_port(), ours.redis)
        stack.enter_context(upstream(ground))
        stack.enter_context(session.service(ground))
        if not options.no_memory:
            figures = memory.measure(ours.gates[0], ground, built[GATE].python)
        entered = [*(gate for gate in ours.gates if gate.name != INTERPRETED or options.only is None), *others]
        running = {contestant.name: stack.enter_context(started(contestant, ground)) for contestant in entered}
        kinds = {who: f"{interpreter.described(one.python)}, {_kind(running[who].log)}" for who, one in built.items() if who in running}
        bench = Bench(ground, entered, running, options.rounds, options.seconds)
        for mode in [mode for mode in options.modes if mode in load.MODES]:
            for connections in options.connections or CROWDS.get(mode, (32,)):
                rows += rows_of(mode, connections, bench.measure(mode, connections))
                print(".", end="", file=sys.stderr, flush=True)
        if "latency" in options.modes:
            ports = {who: one.port for who, one in running.items() if who not in UNTIMED}
            most, rounds = bench.rest("read").load.rps, min(3, options.rounds)
            paced = latency.measure(ground, ports, most, rounds, options.seconds, ours.crowd)
        if "session" in options.modes:
            figures |= session.measure(ground, running[GATE], options.rounds, options.seconds, bench.rest)
    print(f"\n{interpreter.machine()}")
    for what, value in [*kinds.items(), *((f"without {who}", why) for who, why in absent.items())]:
        print(f"{what}: {value}")
    print(f"{options.rounds} rounds of {options.seconds} s each\n\n{table(rows)}")
    if paced:
        print(f"\n{table(paced, latency.HEAD)}\n")
    for what, figure in figures.items():
        print(f"{what}: {figure}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": interpreter.machine(),
        "gates": kinds,
        "rows": rows,
        "latency": paced,
        "process": figures,
        "absent": absent,
    }
    options.json.write_text(json.dumps(result, indent=1) + "\n")


def _kind(log: Path) -> str:
    return "compiled" if is_compiled(log) else "interpreted"


if __name__ == "__main__":
    main()
