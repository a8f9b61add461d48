"""Database migrations: the implementation of ``gerbang migrate``. The steps are in ``migrations/versions``."""

import asyncio
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from gateway.errors import GerbangError, StoreUnavailable
from gateway.keys import postgres

_LOCK = 0x67657262616E67  # "gerbang"
_LOCK_SECONDS = 300.0
_TABLE_LOCK = "500ms"
"""How long a step waits for a table. Whoever wants that table meanwhile waits behind it, so a look-up must have time left (2 s)."""
_ATTEMPTS = 40
_PAUSE_S = 1.0


class MigrationFailed(GerbangError):
    """The schema could not be brought up to date; nothing was changed."""


class _Busy(Exception):
    """A table is locked by another transaction."""


def upgrade(dsn: str) -> None:
    """Apply all missing steps in one transaction. Idempotent.

    Concurrent runs are safe: the second waits for the first, then finds nothing to do. The services may run meanwhile: a table that
    another transaction holds, such as a dump, is asked for again and again instead of waited for, so that nobody waits behind this.
    Synchronous; from a running event loop, use ``asyncio.to_thread``.

    :param dsn: the DSN of a role that owns the database and may create roles (unless an operator has created them)
    :raises ConfigError: the DSN is malformed
    :raises StoreUnavailable: no server could be reached, or it refused this role
    :raises MigrationFailed: the database refused a step, e.g. because of a missing privilege; its schema is a later version's; or its
        tables remained locked
    """
    asyncio.run(_upgrade(dsn))


def head() -> str:
    """The revision that :func:`upgrade` leads to."""
    revision = _steps().get_current_head()
    if revision is None:
        raise MigrationFailed("the migrations are missing from this installation")
    return revision


def is_later(revision: str) -> bool:
    """Whether this revision of the schema is none of this version's: a later version has migrated the database."""
    return revision not in {step.revision for step in _steps().walk_revisions()}


async def _upgrade(dsn: str) -> None:
    await (await postgres.connect(dsn)).close()  # for its clear errors, which SQLAlchemy would wrap
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: postgres.connect(dsn, command_seconds=_LOCK_SECONDS),  # of several hosts the primary that answers
        poolclass=NullPool,
    )
    try:
        for _ in range(_ATTEMPTS):
            try:
                return await _attempt(engine)
            except _Busy:
                await asyncio.sleep(_PAUSE_S)
    finally:
        await engine.dispose()
    raise MigrationFailed(
        "other transactions keep its tables locked (a dump, an open session: see pg_stat_activity); nothing was changed: run it again"
    )


async def _attempt(engine: AsyncEngine) -> None:
    """:raises _Busy: nothing was changed, because a table is locked"""
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_run)
    except DBAPIError as error:
        refusal = getattr(error.orig, "__cause__", None)
        if isinstance(refusal, asyncpg.LockNotAvailableError):
            raise _Busy from None
        if isinstance(refusal, asyncpg.PostgresError):
            raise MigrationFailed(f"PostgreSQL refused the migration: {refusal.args[0]}") from None
        raise StoreUnavailable("the connection to PostgreSQL was lost during the migration") from None


def _run(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    connection.execute(text(f"SET LOCAL lock_timeout = '{_TABLE_LOCK}'"))  # not for the lock above: that wait holds up nobody
    for revision in filter(is_later, MigrationContext.configure(connection).get_current_heads()):
        raise MigrationFailed(f"the schema is at {revision}, of a later version of Gerbang than this one, which needs {head()}")
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _steps() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _config() -> Config:
    config = Config()
    # "%" is special in Alembic's configuration, and may occur in a folder's name.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config
