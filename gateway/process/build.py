"""The installed code: whether it is compiled (mypyc, as in a wheel) or interpreted, and whether it is still the same."""

from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

CodeStamp: TypeAlias = frozenset[tuple[str, int, int]]
"""Path, time of change and size of each file."""

_CODE = Path(__file__).parents[1]


def is_compiled() -> bool:
    """Checks where the exchange's module would be imported from, without importing it."""
    spec = find_spec("gateway.server.exchange")
    return spec is not None and spec.origin is not None and not spec.origin.endswith(".py")


def code_stamp(folder: Path = _CODE) -> CodeStamp:
    """Differs once the code was replaced, as by an upgrade in place. A file that vanishes meanwhile is left out."""
    found = []
    for path in (*folder.rglob("*.py"), *folder.rglob("*.so")):
        try:
            status = path.stat()
        except OSError:
            continue
        found.append((str(path), status.st_mtime_ns, status.st_size))
    return frozenset(found)
