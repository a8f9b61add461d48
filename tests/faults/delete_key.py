"""Deletes a key as the admin service does, in a process of its own: ``python -m tests.faults.delete_key DSN REDIS KEY_ID ACCOUNT``.

It begins at a line of input. First in the database; then, committed, it tells Redis, if that is there. Prints a line when it is ready to
begin, and one with the moment of the commit, in monotonic milliseconds.
"""

import asyncio
import sys
from contextlib import suppress

import asyncpg

from gateway.errors import StoreUnavailable
from gateway.keys import redis_client, store
from gateway.keys.invalidation import publish
from gateway.runtime import clock


async def delete(dsn: str, redis: str, key_id: str, account: str) -> int:
    connection = await asyncpg.connect(dsn)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    assert await store.delete(connection, key_id, account_id=account)
    deleted_ms = clock.monotonic_ms()
    with suppress(StoreUnavailable):
        await publish(redis_client.connect(redis), [key_id], now_ms=clock.now_ms())
    return deleted_ms


if __name__ == "__main__":
    sys.stdout.write(f"{asyncio.run(delete(*sys.argv[1:]))}\n")
