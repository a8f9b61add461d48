"""What one worker holds in memory, and how long the gate takes to start."""

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from gateway.net import descriptors
from gateway.runtime import clock
from tests.bench import contestants, session
from tests.bench.contestants import GATE_CORE, LOAD_CORE, Contestant, Ground
from tests.bench.processes import descendants, own, resident
from tests.support.ports import free_port

IDLE_CONNECTIONS = 10_000
OF_AN_ADDRESS = 1_000
SPARE = 100
"""Connections less than there are descriptors for."""
CACHED_KEYS = 100_000


def measure(gate: Contestant, ground: Ground, python: Path) -> dict[str, object]:
    """Start-up time in seconds, and resident memory in MiB: idle, with idle connections or sessions, and added by cached keys."""
    port, log = free_port(), ground.folder / "gate.log"
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
    figures |= _of_sessions(gate, ground)
    script = Path(__file__).with_name("cached_keys.py")
    command = ["taskset", "-c", LOAD_CORE, str(python), "-P", str(script), str(CACHED_KEYS)]
    added = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout.strip()
    figures[f"added by {CACHED_KEYS} cached keys, MiB"] = float(added)
    return figures


def _of_sessions(gate: Contestant, ground: Ground) -> dict[str, object]:
    """What WebSocket sessions add that have logged on and say nothing: in another gate, so that nothing is left over from before.

    It has as many workers as it takes for their file descriptors, of which each session has two.
    """
    port, log = free_port(), ground.folder / "gate.log"
    descriptors.raise_limit()
    number = -(-IDLE_CONNECTIONS // (descriptors.connections() - SPARE))
    command = gate.command(ground, port)
    file = ground.folder / "gateway.toml"
    file.write_text(file.read_text().replace("workers = 1\n", f"workers = {number}\n"))
    process = contestants.pinned(GATE_CORE, command, log)
    try:
        contestants.wait_for(port, process, log)
        workers = descendants(process.pid)[-number:]
        before = sum(map(resident, workers))
        sessions = _sessions(port, ground)
        after = sum(map(resident, workers))
        for connection in sessions:
            connection.close()
    finally:
        contestants.stop(process)
    count = len(sessions)
    return {
        f"resident memory, workers: {number}, with {count} idle sessions, MiB": round(after, 1),
        "… of it for each of them, KiB": round((after - before) * 1024 / count, 1),
    }


def _sessions(port: int, ground: Ground) -> list[socket.socket]:
    """Each logged on."""
    opened = []
    for connection in _connected(port, IDLE_CONNECTIONS):  # one by one: who says nothing for long is closed
        opened.append(connection)
        connection.sendall(session.HANDSHAKE)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(4096)
        connection.sendall(session.log_on(ground.key, clock.now_ms()))
        if not head.startswith(b"HTTP/1.1 101") or connection.recv(4096) != session.ANSWER:
            raise RuntimeError(f"a session was not opened: {head[:200]!r}")
    return opened


def _connected(port: int, count: int) -> Iterator[socket.socket]:
    """They come from several addresses: where descriptors are scarce, a gate gives no address more than an eighth of them."""
    for number in range(count):
        yield socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(f"127.0.0.{2 + number // OF_AN_ADDRESS}", 0))


def _crowd(port: int) -> list[socket.socket]:
    """As many connections as one worker has file descriptors for, that say nothing; each is accepted before memory is read."""
    descriptors.raise_limit()
    crowd = list(_connected(port, min(IDLE_CONNECTIONS, descriptors.connections() - SPARE)))
    for connection in (crowd[0], crowd[-1]):  # the last is answered when all before it were accepted
        connection.sendall(b"GET /gateway/v1/time HTTP/1.1\r\nHost: gate.test\r\n\r\n")
        if not connection.recv(4096).startswith(b"HTTP/1.1 200"):
            raise RuntimeError("an idle connection was not served")
    return crowd
