"""What one worker holds in memory, and how long the gate takes to start."""

import socket
import subprocess
import time
from pathlib import Path

from gateway.net import descriptors
from tests.bench import contestants
from tests.bench.contestants import GATE_CORE, LOAD_CORE, Contestant, Ground
from tests.bench.processes import descendants, own, resident

IDLE_CONNECTIONS = 10_000
OF_AN_ADDRESS = 1_000
SPARE = 100
"""Connections less than there are descriptors for."""
CACHED_KEYS = 100_000


def measure(gate: Contestant, ground: Ground, python: Path) -> dict[str, object]:
    """Start-up time in seconds, and resident memory in MiB: idle, with idle connections, and added by cached keys."""
    port, log = contestants.free_port(), ground.folder / "gate.log"
    began = time.monotonic()
    process = contestants.pinned(GATE_CORE, gate.command(ground, port), log)
    try:
        contestants.wait_for(port, process, log)
        figures: dict[str, object] = {"start-up, s": round(time.monotonic() - began, 2)}
        worker = descendants(process.pid)[-1]
        figures["resident memory of a worker, idle, MiB"] = round(resident(worker), 1)
        figures["… of it not shared with other workers, MiB"] = round(own(worker), 1)
        crowd = _crowd(port)
        figures[f"… with {len(crowd)} idle connections, MiB"] = round(resident(worker), 1)
        for connection in crowd:
            connection.close()
    finally:
        contestants.stop(process)
    script = Path(__file__).with_name("cached_keys.py")
    command = ["taskset", "-c", LOAD_CORE, str(python), "-P", str(script), str(CACHED_KEYS)]
    added = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout.strip()
    figures[f"added by {CACHED_KEYS} cached keys, MiB"] = float(added)
    return figures


def _crowd(port: int) -> list[socket.socket]:
    """Connections that say nothing, as many as there are file descriptors for; each is accepted before memory is read.

    They come from several addresses: where descriptors are scarce, a gate gives no address more than an eighth of them.
    """
    descriptors.raise_limit()
    most = min(IDLE_CONNECTIONS, descriptors.connections() - SPARE)
    crowd = [
        socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(f"127.0.0.{2 + number // OF_AN_ADDRESS}", 0))
        for number in range(most)
    ]
    for connection in (crowd[0], crowd[-1]):  # the last is answered when all before it were accepted
        connection.sendall(b"GET /gateway/v1/time HTTP/1.1\r\nHost: gate.test\r\n\r\n")
        if not connection.recv(4096).startswith(b"HTTP/1.1 200"):
            raise RuntimeError("an idle connection was not served")
    return crowd
