"""Database migrations: the implementation of ``gerbang migrate``. The steps are in ``migrations/versions``."""

import asyncio
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from gateway.errors import GerbangError, StoreUnavailable
from gateway.keys import postgres

_LOCK = 0x67657262616E67  # "gerbang"
_LOCK_SECONDS = 300.0


class MigrationFailed(GerbangError):
    """The schema could not be brought up to date; nothing was changed."""


def upgrade(dsn: str) -> None:
    """Apply every step that is missing, in one transaction: all of them or none. Doing it again changes nothing.

    Two at once are safe: the second waits for the first, then finds nothing to do. Synchronous, as a command is; from
    a running event loop, call it by ``asyncio.to_thread``.

    :param dsn: of a role that owns the database and may create roles (or an operator has made them before)
    :raises ConfigError: the DSN is malformed
    :raises StoreUnavailable: no server could be reached, or it refused this role
    :raises MigrationFailed: a step was refused by the database, e.g. for want of a privilege
    """
    asyncio.run(_upgrade(dsn))


def head() -> str:
    """The revision that :func:`upgrade` leads to."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        raise MigrationFailed("the migrations are missing from this installation")
    return revision


async def _upgrade(dsn: str) -> None:
    await (await postgres.connect(dsn)).close()  # its errors are the clear ones; SQLAlchemy would wrap them
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: asyncpg.connect(dsn, timeout=postgres.CONNECT_SECONDS, command_timeout=_LOCK_SECONDS),
        poolclass=NullPool,
    )
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_run)
    except DBAPIError as error:
        refusal = getattr(error.orig, "__cause__", None)
        if isinstance(refusal, asyncpg.PostgresError):
            raise MigrationFailed(f"PostgreSQL refused the migration: {refusal.args[0]}") from None
        raise StoreUnavailable("the connection to PostgreSQL was lost during the migration") from None
    finally:
        await engine.dispose()


def _run(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    # "%" is the configuration parser's own sign, and a folder may have one in its name.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config
