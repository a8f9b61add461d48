"""The states of a client connection and their time limits. Only :class:`gateway.server.connection.ClientConnection` changes them.

======== ================================= ======================================================= =============================
state    incoming bytes are                time limit                                              when it expires
======== ================================= ======================================================= =============================
HEAD     the head of a request             ``header_timeout_ms`` from its first byte; for the      408; without an answer if
                                          first one, from the connection's opening                nothing was received
IDLE     the head of a request             ``idle_timeout_ms`` from the last answer                closed
BODY     the content of a request          ``body_timeout_ms``; none while waiting for the         408
                                           upstream or a key; for streamed content extended by
                                           the received bytes at the rate :data:`SLOWEST`
WAITING  buffered until there is an answer none; the upstream has its own                          –
TUNNEL   forwarded                         none here                                               –
ENDING   dropped                           :data:`LINGER_MS` after the last byte is sent;          dropped
                                           ``idle_timeout_ms`` while the client reads nothing
======== ================================= ======================================================= =============================

While a client does not read everything that it is sent, ``idle_timeout_ms`` applies in BODY and WAITING instead; then it is dropped if it
has read more slowly than :data:`SLOWEST`.
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
