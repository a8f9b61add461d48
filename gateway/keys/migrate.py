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
    """Apply all missing steps in one transaction. Idempotent.

    Concurrent runs are safe: the second waits for the first, then finds nothing to do. Synchronous; from
    a running event loop, use ``asyncio.to_thread``.

    :param dsn: the DSN of a role that owns the database and may create roles (unless an operator has created them)
    :raises ConfigError: the DSN is malformed
    :raises StoreUnavailable: no server could be reached, or it refused this role
    :raises MigrationFailed: the database refused a step, e.g. because of a missing privilege
    """
    asyncio.run(_upgrade(dsn))


def head() -> str:
    """The revision that :func:`upgrade` leads to."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        raise MigrationFailed("the migrations are missing from this installation")
    return revision


async def _upgrade(dsn: str) -> None:
    await (await postgres.connect(dsn)).close()  # for its clear errors, which SQLAlchemy would wrap
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: postgres.connect(dsn, command_seconds=_LOCK_SECONDS),  # of several hosts the primary that answers
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
    # "%" is special in Alembic's configuration, and may occur in a folder's name.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config
