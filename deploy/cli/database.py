"""The commands' database connection, and its errors in one line."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import click

from gateway.keys import postgres

_REFUSED = (asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError)
"""Errors of a wrong role or another schema version. Their messages name tables and columns, never values."""


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[postgres.Connection]:
    """One connection for one command.

    :raises ConfigError: the DSN is malformed
    :raises StoreUnavailable: no server could be reached, or the connection was lost
    :raises click.ClickException: the role lacks a privilege, or the schema is of another version
    """
    postgres.check_dsn(dsn, where="--dsn")
    connection = await postgres.connect(dsn)
    try:
        with postgres.translated():
            yield connection
    except _REFUSED as error:
        advice = "give the DSN of the admin service's role, of a database that gerbang migrate has prepared"
        raise click.ClickException(f"PostgreSQL refused: {error.args[0]}; {advice}") from None
    finally:
        await connection.close()
