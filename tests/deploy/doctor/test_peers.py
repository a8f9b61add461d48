"""Doctor knocks at what the admin service calls."""

import asyncio

import pytest

from deploy.doctor.peers import reachable
from tests.support.notices import free_port


@pytest.mark.parametrize("about", ["webhooks.url", "upstreams.spot.key_events"])
async def test_a_receiver_that_listens_is_right_and_one_that_does_not_is_wrong(about):
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        found = await reachable(about, f"http://127.0.0.1:{port}/hook")
        assert (found.level, found.about, found.text) == ("ok", about, f"127.0.0.1:{port} answers")
        unspoken = await reachable(about, f"https://127.0.0.1:{port}/hook")
        assert unspoken.level == "wrong", "it does not speak TLS"
    away = await reachable(about, f"http://127.0.0.1:{free_port()}/hook")
    assert (away.level, "cannot be reached" in away.text) == ("wrong", True)
