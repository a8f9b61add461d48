"""``gerbang up``: take the data directory, run the stack until a signal."""

import os
import shlex
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from deploy.local.folder import DataFolder, Ports
from deploy.local.process import STOP_SIGNALS
from deploy.local.system import System

_LEFTOVERS_S = 8


class _Stopped(BaseException):
    """A stop signal was received; not an Exception, so that it is not handled as a failure."""


def run(data: Path, port: int) -> int:
    """Run the system until a signal or a failure. Returns the exit status.

    :raises StartError: what could not be started or has ended, in one line
    """
    folder = DataFolder(data)
    system = System(folder, Ports.after(port))
    if not folder.path.exists():
        system.await_free_ports(0)  # before the folder is created, so that a failed start leaves nothing behind
    clean = folder.hold()
    try:
        for number in STOP_SIGNALS:
            signal.signal(number, _stop)
        started = time.monotonic()
        system.start(patience_s=0 if clean else _LEFTOVERS_S)
        greet(system, folder, port, time.monotonic() - started)
        _watch(system)
    except _Stopped:
        return 0
    finally:
        system.stop()
        folder.release()


def _watch(system: System) -> NoReturn:
    """Report each part that ends by itself. The rest keeps running, so that its behaviour without that part can be observed."""
    gone: set[str] = set()
    while True:
        for part, words in system.ended():
            if part not in gone:
                print(f"{part} has ended ({words}); the rest keeps running", file=sys.stderr, flush=True)
                gone.add(part)
        time.sleep(0.25)


def _stop(_number: int, _frame: FrameType | None) -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # further signals do not interrupt the shutdown
    raise _Stopped


def greet(system: System, folder: DataFolder, port: int, seconds: float) -> None:
    """Print the ready line, and commands to try."""
    gerbang = shlex.quote(_nearby(Path(sys.executable).with_name("gerbang")))
    key = shlex.quote(_nearby(folder.demo_key))
    order = '{"symbol":"BTC-IDR","side":"buy","type":"limit","price":"900000000","quantity":"0.001"}'
    lines = [
        f"ready: {system.gateway_url} {system.admin_url}",
        "",
        f"Started in {seconds:.1f} s; everything is in {folder.path}. Ctrl-C stops it. To try, in another terminal:",
        "",
        "  # the price of a bitcoin: public, nothing is signed",
        f"  {gerbang} call GET {system.gateway_url}/v1/markets/BTC-IDR/summary",
        "  # the demo account's balances: needs the scope read",
        f"  {gerbang} call GET {system.gateway_url}/v1/wallets --key {key}",
        "  # an order: needs the scope trade",
        f"  {gerbang} call POST {system.gateway_url}/v1/orders --key {key} \\",
        f"    --data '{order}'",
        f"  {gerbang} call GET {system.gateway_url}/v1/orders --key {key}",
        f"  # notices to the owners of keys: every mail is at {system.mailbox_url}/, every webhook in",
        f"  tail -f {shlex.quote(_nearby(folder.path / 'logs' / 'mailbox.log'))}",
        "  # what the configuration makes of a request",
        f"  {gerbang} check {shlex.quote(_nearby(folder.gateway_config))} --explain 'POST /v1/orders'",
    ]
    token = folder.path / "secrets" / "internal-token"
    if port != 8080 or token != Path(".gerbang/secrets/internal-token").absolute():
        lines += [
            "  # what the operator's tools need to know: gerbang keys, accounts, audit, refusals, reload, shadow",
            f"  export GERBANG_INTERNAL_URL=http://127.0.0.1:{port + 13} GERBANG_OPS_URL=http://127.0.0.1:{port + 1}",
            f"  export GERBANG_INTERNAL_TOKEN_FILE={shlex.quote(str(token))}",
        ]
    print("\n".join(lines), flush=True)


def _nearby(path: Path) -> str:
    """The path relative to the current folder, if it is below it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
