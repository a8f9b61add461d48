"""Turns a client and an upstream connection into a WebSocket tunnel, or into a session whose messages are admitted one by one."""

from gateway.admission.outcome import Admitted
from gateway.forward.ports import UpstreamEnd
from gateway.forward.tunnel import Place, Tunnel
from gateway.http1 import answer
from gateway.http1.framing import NO_OPTIONS
from gateway.http1.headers import EXTENSIONS
from gateway.http1.message import Request
from gateway.http1.response import ResponseHead
from gateway.server.ports import ClientEnd
from gateway.server.serving import Serving
from gateway.server.session import Session
from gateway.server.worker_state import WorkerState


def switch(  # noqa: PLR0917  # in the order of its story
    worker: WorkerState, serving: Serving, client: ClientEnd, upstream: UpstreamEnd, request: Request, admitted: Admitted, place: Place,
    head: ResponseHead, rest: bytes,
) -> None:  # fmt: skip
    """Forward the service's 101; from then on both connections hand their bytes to the tunnel.

    :param place: the tunnel's place, taken before the handshake was forwarded
    :param rest: bytes received behind the response head
    """
    route, identity, tunnels = admitted.route, admitted.identity, worker.tunnels
    tunnel = Tunnel(client, upstream, tunnels)
    if route.session:
        tunnel = Session(worker, serving, client, upstream, client=request, route=route)
    client.write(answer.switching(head, admitted.answer_headers, EXTENSIONS if route.session else NO_OPTIONS))
    upstream.tunnel = tunnel
    tunnels.add(tunnel, identity.key_id if identity is not None else None, admitted.expires_ms, place)
    client.upgrade(tunnel)
    if rest:
        tunnel.upstream_data(rest)
    if worker.draining:
        tunnel.shut_down(now_ms=worker.ticker.now_ms)
