"""One worker whose instructions are counted, run by ``instructions.py`` under callgrind: ``counted.py LIBRARY CONFIGURATION LISTENING_FD``.

It serves as :mod:`gateway.process.worker` does, without a parent. A line on standard input begins a count (``begin``) or ends one
(``end NAME``), and is answered by the same line once that is done.
"""

import asyncio
import ctypes
import gc
import os
import socket
import sys
from pathlib import Path

import uvloop

from gateway.assertion import SigningKey
from gateway.process.app import App
from gateway.process.configuration import load
from gateway.runtime import clock
from gateway.telemetry import configure_logging


async def _serve(library: ctypes.CDLL, configuration: Path, listening: socket.socket) -> None:
    configure_logging("error", service="gateway")
    app = await App.create(load(configuration), signing=SigningKey.new(clock.now_ms()), worker=0, require_stores=True)
    app._serving.gate.explanations.in_all = 0  # noqa: SLF001  # at full speed hardly any is explained
    gc.collect()
    gc.freeze()
    await app.serve(listening)
    ended = asyncio.Event()

    def asked() -> None:
        line = os.read(0, 4_096)
        if line.startswith(b"begin"):
            os.write(1, line)
            library.begin()
        elif line.startswith(b"end "):
            library.end(line[4:].strip())
            os.write(1, line)
        else:
            ended.set()

    asyncio.get_running_loop().add_reader(0, asked)
    os.write(1, b"ready\n")
    await ended.wait()
    os._exit(0)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(ctypes.CDLL(sys.argv[1]), Path(sys.argv[2]), socket.socket(fileno=int(sys.argv[3]))))
