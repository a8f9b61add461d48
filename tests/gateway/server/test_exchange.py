"""One request and its answer: flow, and what reaches the upstream."""

from tests.support.plane import serving
from tests.support.wire import recording_upstream

GET = b"GET /read HTTP/1.1\r\nHost: gate.example\r\n\r\n"


async def test_a_request_is_forwarded_and_its_response_relayed() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        response = await client.ask(GET)
        assert (response.status, response.body) == (200, b"ok")
        assert upstream.requests[0].line == b"GET /read HTTP/1.1"
