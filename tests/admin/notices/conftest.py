"""A mail server, a webhook receiver, and stores of the test's own."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import redis.asyncio as redis_asyncio
from aiohttp import web

from admin.stores import Stores
from gateway.keys import postgres
from tests.support.notices import Mailbox, Receiver, SmtpServer, smtp
from tests.support.stack import Database


@pytest.fixture
async def mail_server() -> AsyncIterator[SmtpServer]:
    box = Mailbox()
    controller = smtp(box)
    yield SmtpServer(box, controller.port)
    controller.stop(no_assert=True)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    application = web.Application()
    application.router.add_post("/hook", receiver.take)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield receiver
    await runner.cleanup()


@pytest.fixture
async def stores(database: Database, redis_url: str) -> AsyncIterator[Stores]:
    pool = await postgres.create_pool(database.admin_dsn)
    client = redis_asyncio.from_url(redis_url)
    yield Stores(pool, client)
    await client.aclose()
    await pool.close()


@pytest.fixture
async def owner(database: Database) -> AsyncIterator[Any]:
    """A connection of the database's owner: to look, and to put time back."""
    connection = await asyncpg.connect(database.owner_dsn)
    yield connection
    await connection.close()
