"""The data plane as machine code: which modules are compiled, where they lie, and whether they are those of these very sources.

``gerbang compile`` (``deploy/compiler.py``) makes a copy of this package in which the modules below are compiled by mypyc. A worker whose
parent finds that copy imports it in place of this package. It counts only while it was made from exactly these sources by this
interpreter: otherwise, and where nobody has compiled anything, the gate runs interpreted, which is slower and in no other way different.
"""

import os
import sys
from hashlib import sha256
from pathlib import Path

PACKAGE = Path(__file__).parent
HOME = Path(sys.prefix) / "lib" / "gerbang-compiled"
WHOLE = "whole"
"""A file in a copy, written last: :func:`machine_code` of it."""
_MADE = frozenset({".so", ".pyc"})
INTERPRETED = "GERBANG_INTERPRETED"
"""An environment variable: when set, nothing compiled is used."""

MODULES = (
    "runtime/clock", "runtime/outbox", "runtime/ticker",
    "admission/driver", "admission/failures", "admission/gate", "admission/gcra", "admission/limits", "admission/principal",
    "admission/replay", "admission/routes", "admission/rules",
    "admission/dialects/base", "admission/dialects/binance", "admission/dialects/mobee", "admission/dialects/rfc9421",
    "forward/balance", "forward/call", "forward/connection", "forward/identity", "forward/pool", "forward/ports",
    "forward/upstream_server",
    "keys/cache", "keys/lookup", "keys/usage",
    "http1/answer", "http1/body", "http1/framing", "http1/headers", "http1/memo", "http1/message", "http1/reader", "http1/request_head",
    "http1/response",
    "net/addresses", "net/client_ip",
    "server/common", "server/connection", "server/exchange", "server/plane", "server/serving",
    "telemetry/histogram",
)  # fmt: skip
"""What a request passes through. Classes in here have slots, inherit only from one another, and are made by plain constructors."""


def digest(package: Path | None = None) -> str:
    """Names the files of this package and the interpreter: a compiled copy is good for exactly these.

    :param package: another folder with the package's files in it
    """
    package = package or PACKAGE
    found = sha256(f"{sys.implementation.cache_tag} {sys.platform} {' '.join(MODULES)}".encode())
    for source in sorted(path for path in package.rglob("*") if path.is_file() and path.suffix not in _MADE):
        content = source.read_bytes()
        found.update(f"{source.relative_to(package)} {len(content)}\n".encode())
        found.update(content)
    return found.hexdigest()[:16]


def compiled() -> Path | None:
    """The folder that contains the compiled copy of this package; ``None`` when there is none, or it must not be used."""
    if os.environ.get(INTERPRETED):
        return None
    folder = HOME / digest()
    return folder if is_whole(folder) else None


def machine_code(folder: Path) -> str:
    """The sizes and names of what was compiled into a copy, as its :data:`WHOLE` file has them."""
    return "".join(f"{path.stat().st_size} {path.relative_to(folder)}\n" for path in sorted(folder.rglob("*.so")))


def is_whole(folder: Path) -> bool:
    """Whether a copy was finished, and nothing of it has been lost or cut short since."""
    try:
        return (folder / WHOLE).read_text() == machine_code(folder)
    except OSError:
        return False


def environment() -> dict[str, str]:
    """The environment in which a worker imports the compiled copy, if there is one."""
    folder = compiled()
    if folder is None:
        return dict(os.environ)
    further = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *([further] if further else [])])}
