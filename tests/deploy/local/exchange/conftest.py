"""A demo exchange that believes :data:`tests.support.gate.KEY`."""

import pytest
from aiohttp import web

from deploy.local.exchange.app import application
from tests.support.gate import KEY


@pytest.fixture
async def exchange(aiohttp_client, aiohttp_server):
    async def jwks(_request):
        return web.json_response({"keys": [KEY.public_jwk()]})

    ops = web.Application()
    ops.router.add_get("/jwks", jwks)
    server = await aiohttp_server(ops)
    return await aiohttp_client(application(str(server.make_url("/jwks"))))
