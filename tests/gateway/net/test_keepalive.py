"""TCP keep-alive on what is accepted and what is opened."""

import socket

from gateway.net.keepalive import IDLE_S, INTERVAL_S, PROBES, UNACKNOWLEDGED_MS, keep_alive
from tests.support.inside import connections, upstream_connections
from tests.support.plane import serving
from tests.support.wire import recording_upstream

GET = b"GET /read HTTP/1.1\r\nHost: gate.example\r\n\r\n"
OPTIONS = {
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): IDLE_S,
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL): INTERVAL_S,
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT): PROBES,
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT): UNACKNOWLEDGED_MS,
}


async def test_both_sides_of_the_gate_probe_silent_connections() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        assert (await client.ask(GET)).status == 200
        (to_client,) = connections(served)
        (to_upstream,) = upstream_connections(served)
        for connection in (to_client, to_upstream):
            sock = connection.transport.get_extra_info("socket")
            assert {option: sock.getsockopt(*option) for option in OPTIONS} == OPTIONS


async def test_behind_the_proxy_protocol_too() -> None:
    client_ip = {"proxy_protocol": True, "proxy_peers": ("127.0.0.0/8",)}
    async with recording_upstream() as upstream, serving(upstream, client_ip=client_ip) as served:
        client = await served.client()
        assert (await client.ask(b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n" + GET)).status == 200
        (connection,) = connections(served)
        assert connection.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def test_a_unix_socket_has_nothing_to_set() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        keep_alive(sock)
