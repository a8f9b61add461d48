"""The number of connections that the process's file descriptor limit allows (getrlimit(2)).

Each client connection uses one descriptor, and may need another: for an upstream connection, or a tunnel's upstream side. If clients could
use all of them, no upstream, store or log could be opened.
"""

import resource
from typing import Final

RESERVED: Final = 512
"""Reserved for listening sockets, stores, the log, idle upstream connections, and connections that are being refused."""


def raise_limit() -> None:
    """Raise the soft limit to the hard limit: it is often 1024 because of select(2), which is not used here."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connections() -> int:
    """The number of client connections that leaves one descriptor for the upstream side of each; at least 8."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else max(8, (soft - RESERVED) // 2)
