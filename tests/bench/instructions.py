"""Instructions of one request, by what they are spent in: ``python -m tests.bench.instructions`` (needs valgrind and a C compiler).

One worker of the gate runs under callgrind, which counts every instruction in user space and nothing of the kernel's. Noise cannot touch
the figures: they differ by less than one per cent between runs. Only what happens between the first and the last counted request is
counted, after others of the same kind have warmed every memo, less what the idle worker spends in the same time. Meanwhile the gate's
clocks are slowed down like everything else (``counter.c``), so that no request is put off for the time that counting takes.

Each turn sends one request on every connection and then awaits every answer, as a busy gate is woken for several at once.
"""

import argparse
import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from gateway.runtime import clock
from tests.bench import load, session
from tests.bench.contestants import Ground
from tests.bench.gate import Variant, gates_under_test
from tests.bench.rounds import upstream
from tests.support import wheel
from tests.support.ports import free_port

HERE = Path(__file__).parent
MODES = ("read", "trade", "refusal", "public", "connect")
GROUPS = (
    (r"/libpython[^/]*$|/bin/python[^/]*$|/lib-dynload/", "interpreter"),
    (r"__mypyc|/gateway/", "compiled gate"),
    (r"/uvloop/", "uvloop"),
    (r"/libcrypto|/libssl|/cryptography/", "OpenSSL"),
    (r"/httptools/", "llhttp"),
    (r"/hiredis/", "hiredis"),
    (r"/libc[.-]|/libm[.-]|/ld-linux|/vgpreload|/libpthread", "libc"),
)
SESSIONS = {"session": False, "session order": True}
"""Whether its messages are signed."""
IDLE_SECONDS = 5
PATIENCE = """
[auth]
clock_window_ms = 60000
"""
"""Under callgrind everything takes fifty times as long."""


class Count(NamedTuple):
    """Instructions of one mode, by object file and by function."""

    objects: Counter[str]
    functions: Counter[str]

    def without(self, idle: "Count", share: float) -> "Count":
        """Less ``share`` times what an idle worker spends."""
        return Count(
            *(Counter({name: cost - round(share * rest[name]) for name, cost in own.items()}) for own, rest in zip(self, idle, strict=True))
        )

    def groups(self) -> Counter[str]:
        """By :data:`GROUPS`."""
        found: Counter[str] = Counter()
        for name, cost in self.objects.items():
            found[next((group for pattern, group in GROUPS if re.search(pattern, name)), "other")] += cost
        return found


def read_profile(text: str) -> Count:
    """Self cost by object and function, from callgrind's format (its manual, "Callgrind Format Specification")."""
    objects: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    names: dict[str, str] = {}
    current = {"ob": "", "fn": ""}
    inclusive = False
    for line in text.splitlines():
        kind, mark, value = line.partition("=")
        if mark and kind in ("ob", "fn", "cob", "cfn", "fl", "fi", "fe", "cfi", "cfl"):
            number, _, name = value.partition(" ")
            table = "fn" if kind.endswith("fn") else "ob" if kind.endswith("ob") else "fl"
            name = names.setdefault(table + number, name) if number.startswith("(") else value
            if kind in current:
                current[kind] = name
        elif kind == "calls":
            inclusive = True
        elif line[:1] in "0123456789+-*" and line:
            cost = int(line.split()[1]) if not inclusive else 0
            inclusive = False
            objects[current["ob"]] += cost
            functions[f"{Path(current['ob']).name.partition('.')[0]}: {current['fn']}"] += cost
    return Count(objects, functions)


class Worker:
    """The gate under callgrind."""

    def __init__(self, process: "subprocess.Popen[bytes]", folder: Path, port: int) -> None:
        self._process = process
        self._folder = folder
        self.port = port
        self._idle: Count | None = None
        self._await(b"ready\n")

    def count(self, name: str, work: Callable[[], None]) -> Count:
        """What the worker spends for ``work``: less what it would have spent in that time anyway."""
        if self._idle is None:
            self._idle = self._run("idle", lambda: time.sleep(IDLE_SECONDS))
        began = time.monotonic()
        spent = self._run(name, work)
        return spent.without(self._idle, (time.monotonic() - began) / IDLE_SECONDS)

    def _run(self, name: str, work: Callable[[], None]) -> Count:
        self._ask(b"begin\n")
        work()
        self._ask(f"end {name}\n".encode())
        for file in self._folder.glob("profile*"):
            text = file.read_text()
            if f"desc: Trigger: Client Request: {name}\n" in text:
                return read_profile(text)
        raise RuntimeError("callgrind wrote no profile of it")

    def end(self) -> None:
        """Stop it."""
        self._process.stdin.close() if self._process.stdin else None
        self._process.wait(timeout=60)

    def _ask(self, line: bytes) -> None:
        _stream(self._process.stdin).write(line)
        _stream(self._process.stdin).flush()
        self._await(line)

    def _await(self, line: bytes) -> None:
        if _stream(self._process.stdout).readline() != line:
            raise RuntimeError(f"the worker has ended:\n{(self._folder / 'log').read_text()[-4000:]}")


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise RuntimeError("no pipe")
    return stream


@contextlib.contextmanager
def worker(ground: Ground, configuration: Callable[[int], Path], python: str) -> Iterator[Worker]:
    """Start one."""
    library = ground.folder / "counter.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, HERE / "counter.c"], check=True)
    with socket.create_server(("127.0.0.1", 0), backlog=1_024) as listening, (ground.folder / "log").open("wb") as log:
        listening.setblocking(False)
        port = listening.getsockname()[1]
        program = [python, "-P", str(HERE / "counted.py"), str(library), str(configuration(port)), str(listening.fileno())]
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={ground.folder}/profile", "--vgdb=no"]
        with subprocess.Popen(
            [*valgrind, *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, pass_fds=[listening.fileno()],
            env={**os.environ, "LD_PRELOAD": str(library)},
        ) as process:  # fmt: skip
            try:
                yield Worker(process, ground.folder, port)
            finally:
                process.kill()


class Load:
    """Requests of one mode, each connection's next one after the answer to its last."""

    def __init__(self, ground: Ground, mode: str, port: int, connections: int) -> None:
        self._ground, self._mode, self._port = ground, mode, port
        self._count = connections
        self._kept = [] if mode == "connect" else [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
        self._signed: tuple[int, bytes] = (0, b"")
        self._number = 0

    def turns(self, requests: int) -> None:
        """So many requests.

        :raises RuntimeError: an answer was not the expected one
        """
        expected = b"HTTP/1.1 401 " if self._mode == "refusal" else b"HTTP/1.1 200 "
        for _ in range(requests // self._count):
            opened = self._kept or [socket.create_connection(("127.0.0.1", self._port)) for _ in range(self._count)]
            for connection, asked in [(connection, self._request()) for connection in opened]:
                connection.sendall(asked)
            for connection in opened:
                answer = _answer(connection)
                if not answer.startswith(expected):
                    raise RuntimeError(f"{self._mode}: {answer[:300]!r}")
                if not self._kept:
                    connection.close()

    def close(self) -> None:
        """Hang up."""
        for connection in self._kept:
            connection.close()

    def _request(self) -> bytes:
        now = clock.now_ms() // 1_000
        if self._mode != "trade":
            if now != self._signed[0]:
                self._signed = (now, load.request(self._ground.key, self._mode, now, 0).encode())
            return self._signed[1]
        self._number += 1
        return load.request(self._ground.key, self._mode, now, now * 10_000_000 + self._number).encode()


def _answer(connection: socket.socket) -> bytes:
    data = b""
    while True:
        piece = connection.recv(65_536)
        data += piece
        head, end, content = data.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if not piece or (end and length is not None and len(content) >= int(length[1])):
            return data


class Sessions:
    """Messages of logged-in sessions, ``account.status`` or signed orders; each connection's next one after the answer to its last."""

    def __init__(self, ground: Ground, port: int, connections: int, *, signed: bool) -> None:
        self._key = ground.key
        self._signed = signed
        self._number = 0
        self._kept: list[socket.socket] = []
        for number in range(connections):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.sendall(session.HANDSHAKE)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += connection.recv(65_536)
            connection.sendall(session.log_on(ground.key, clock.now_ms() - number))
            _exactly(connection, session.ANSWER)
            self._kept.append(connection)

    def turns(self, messages: int) -> None:
        """So many messages.

        :raises RuntimeError: an answer was not the expected one
        """
        for _ in range(messages // len(self._kept)):
            for connection, message in [(connection, self._message()) for connection in self._kept]:
                connection.sendall(message)
            for connection in self._kept:
                _exactly(connection, session.ANSWER)

    def _message(self) -> bytes:
        if not self._signed:
            return session.STATUS
        self._number += 1
        now_ms = clock.now_ms()
        return session.order(self._key, now_ms * 1_000_000 + self._number, now_ms)

    def close(self) -> None:
        """Hang up."""
        for connection in self._kept:
            connection.close()


def _exactly(connection: socket.socket, expected: bytes) -> None:
    got = b""
    while len(got) < len(expected):
        got += connection.recv(len(expected) - len(got))
    if got != expected:
        raise RuntimeError(f"session: {got!r}")


def measure(ground: Ground, at: Worker, mode: str, *, requests: int, connections: int) -> Count:
    """One mode."""
    signed = SESSIONS.get(mode)
    driver = Load(ground, mode, at.port, connections) if signed is None else Sessions(ground, at.port, connections, signed=signed)
    try:
        driver.turns(max(connections, requests // 2))
        return at.count(mode, lambda: driver.turns(requests))
    finally:
        driver.close()


def table(counts: dict[str, Count], requests: int) -> str:
    """Instructions of one request, in thousands."""
    rows: dict[str, list[int]] = {
        name: [count.groups()[name] for count in counts.values()] for name in [*dict.fromkeys(group for _, group in GROUPS), "other"]
    }
    rows["**all**"] = [sum(count.objects.values()) for count in counts.values()]
    lines = ["| | " + " | ".join(counts) + " |", "|---|" + "---|" * len(counts)]
    lines += ["| " + " | ".join([name, *(f"{cost / requests / 1_000:.1f}" for cost in costs)]) + " |" for name, costs in rows.items()]
    return "\n".join(lines)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.instructions", description=__doc__)
    parser.add_argument("--requests", type=int, default=1_600, help="counted in each mode (default 1600)")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--modes", nargs="+", default=[*MODES, *SESSIONS], choices=(*MODES, *SESSIONS))
    parser.add_argument("--functions", type=int, default=0, metavar="N", help="the N most expensive functions of each mode, too")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="copy callgrind's profiles there, for callgrind_annotate")
    parser.add_argument("--python", default=str(wheel.program("python")), help="whose gate is measured (default: the wheel's when current)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gerbang-instructions-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        entered = stack.enter_context(gates_under_test(folder, {"gerbang": Variant([], more=PATIENCE)}))
        ground = Ground(folder, free_port(), entered.key, free_port())
        stack.enter_context(upstream(ground))
        stack.enter_context(session.service(ground))
        (gate,) = entered.gates
        at = stack.enter_context(worker(ground, lambda port: Path(gate.command(ground, port)[-1]), options.python))
        counts = {mode: measure(ground, at, mode, requests=options.requests, connections=options.connections) for mode in options.modes}
        if options.keep is not None:
            options.keep.mkdir(parents=True, exist_ok=True)
            for file in folder.glob("profile*"):
                shutil.copy(file, options.keep)
    print(f"thousands of instructions in user space for each request; {options.python}\n\n{table(counts, options.requests)}")
    for mode, count in counts.items():
        if options.functions:
            print(f"\n{mode}")
        for function, cost in count.functions.most_common(options.functions):
            print(f"{cost / options.requests:>9.0f}  {function}")


if __name__ == "__main__":
    main()
