"""Mode ``latency``: what the gate adds to each answer at the load that people run, beside nginx with Lua at the same rates.

Signed reads at a fixed rate, timed from when each was due (``open_loop.c`` says how), at 10, 50 and 80 % of what the gate does at most. The
same is asked of the upstream itself; what is added is the difference, round by round. With ``--keys`` the gate is asked once more, by so
many keys in turn.
"""

import json
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gateway.runtime import clock
from tests.bench import load
from tests.bench.contestants import LOAD_CORE, Ground
from tests.bench.gate import GATE
from tests.bench.load import Key

SHARES = (0.1, 0.5, 0.8)
CONNECTIONS = 64
SIGNED_FOR = 3
"""Seconds for which each of many keys' requests is sent: less than the gate's window."""
FIRST_USES = 1_000
"""Keys that are used for the first time in a second, before the rounds."""
UPSTREAM = "the upstream itself"
HEAD = ("of the gate's most", "requests/s", "who", "p50 ms", "p99 ms", "p99.9 ms", "added p50 ms", "added p99 ms", "added p99.9 ms")


class Latency(NamedTuple):
    """Percentiles of one run, in milliseconds."""

    p50: float
    p99: float
    p999: float


def run(made: Path, keys: Sequence[Key], port: int, *, rate: float, seconds: float, connections: int = CONNECTIONS) -> Latency | None:
    """One run against ``127.0.0.1:port``; None when it could not keep up with the rate.

    :param keys: take turns
    :raises RuntimeError: an answer was not the expected one
    """
    start = clock.now_ms() // 1_000
    requests = made.with_name("open_loop.requests")
    with requests.open("w") as file:
        for second in range(start, start + int(seconds) + 40, 1 if len(keys) == 1 else SIGNED_FOR):
            for request in (load.request(key, "read", second, 0) for key in keys):
                file.write(f"{second} {len(request)}\n{request}")
    command = ["taskset", "-c", LOAD_CORE, str(made), str(port), str(connections), str(rate), str(seconds), str(requests)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
    if "answers are missing" in done.stderr:
        return None
    if done.returncode or json.loads(done.stdout)["wrong"]:
        raise RuntimeError(f"the load ended with {done.returncode}: {done.stdout}{done.stderr}")
    told = json.loads(done.stdout)
    return Latency(told["p50"] / 1e3, told["p99"] / 1e3, told["p999"] / 1e3)


def measure(  # noqa: PLR0917
    ground: Ground, ports: dict[str, int], most: float, rounds: int, seconds: int, crowd: Sequence[Key] = ()
) -> list[dict[str, object]]:
    """A row for each share and each of ``ports``, who take turns; the upstream's own first.

    :param most: requests per second of the gate
    :param crowd: keys by which the gate is asked once more
    """
    made = load.compiled("open_loop", ground.folder)
    asked: dict[str, tuple[int, Sequence[Key]]] = {who: (port, [ground.key]) for who, port in {UPSTREAM: ground.upstream, **ports}.items()}
    if crowd:
        asked[f"{GATE}, {len(crowd)} keys in use"] = (ports[GATE], crowd)
        run(made, crowd, ports[GATE], rate=FIRST_USES, seconds=-(-len(crowd) // FIRST_USES))
    rows = []
    for share in SHARES:
        rate = round(most * share)
        found = [{who: run(made, keys, port, rate=rate, seconds=seconds) for who, (port, keys) in asked.items()} for _ in range(rounds)]
        for who in asked:
            pairs = [(one[who], one[UPSTREAM]) for one in found]
            complete = [(mine, theirs) for mine, theirs in pairs if mine and theirs]
            rows.append({"share": f"{share:.0%}", "rate": rate, "who": who, **_medians(complete)})
    return rows


def _medians(pairs: list[tuple[Latency, Latency]]) -> dict[str, object]:
    own = {name: [getattr(ours, name) for ours, _ in pairs] for name in Latency._fields}
    added = {f"added_{name}": [getattr(ours, name) - getattr(bare, name) for ours, bare in pairs] for name in Latency._fields}
    return {name: round(statistics.median(values), 3) if values else "cannot" for name, values in (own | added).items()}
