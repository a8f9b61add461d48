"""The states of a client connection and their time limits. Only :class:`gateway.server.connection.ClientConnection` changes them.

======== ================================= ======================================================= =============================
state    what comes is                     time limit                                              when it has passed
======== ================================= ======================================================= =============================
HEAD     the head of a request             ``header_timeout_ms`` from its first byte; of the first 408, or silently when nothing
                                           one, from the connection's opening                      of a head has come
IDLE     the head of a request             ``idle_timeout_ms`` from the last answer                closed
BODY     the content of a request          ``body_timeout_ms``; none while the upstream is awaited 408
                                           or a key looked up; longer for content that is passed
                                           on, by what has come at :data:`SLOWEST`
WAITING  held until there is an answer     none; the upstream has its own                          –
TUNNEL   passed on                         none here                                               –
ENDING   dropped                           :data:`LINGER_MS` from when all is written;             dropped
                                           ``idle_timeout_ms`` while the client reads nothing of it
======== ================================= ======================================================= =============================

While a client does not read all that it is sent, ``idle_timeout_ms`` holds in BODY and WAITING instead, and then it is dropped if it has
read less meanwhile than at :data:`SLOWEST`.
"""

from typing import Final

# Plain integers: looking up an enumeration's members is slow on every request.
HEAD: Final = 0
IDLE: Final = 1
BODY: Final = 2
WAITING: Final = 3
TUNNEL: Final = 4
ENDING: Final = 5

SLOWEST: Final = 1_000
"""Minimum average rate, in bytes per second, at which a client must send streamed content and read an answer."""
LINGER_MS: Final = 1_000
"""How long a closing connection reads on, so that the client can read the answer (RFC 9112 §9.6)."""
