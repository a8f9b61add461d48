"""How many connections the file descriptors of this process are enough for (getrlimit(2)).

Each client's connection has one, and what it leads to another: an upstream connection, or a tunnel's other side. If clients could take them
all, no upstream, store or log could be opened any more.
"""

import resource
from typing import Final

RESERVED: Final = 512
"""For listening sockets, stores, the log, idle upstream connections, and connections that are just being refused."""


def raise_limit() -> None:
    """Have as many as this process is allowed to: the soft limit often is 1 024, for the sake of select(2), which is not used here."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connections() -> int:
    """So many clients' connections leave one descriptor for the other side of each; at least 8."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else max(8, (soft - RESERVED) // 2)
