"""Connections to PostgreSQL: opened, bounded in time, and their errors translated. No SQL of the domain.

A DSN is what asyncpg reads: ``postgresql://user:password@host1:5432,host2:5432/database?target_session_attrs=read-write``,
or ``postgresql://user@/database?host=/folder/of/the/socket``. Several hosts are tried in order, and only the primary is taken unless
``target_session_attrs`` says otherwise: a standby may still have a key that the primary has deleted. No error shows a DSN.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

import asyncpg

from gateway.errors import ConfigError, ConfigProblem, StoreUnavailable

# Strings: asyncpg's classes take a parameter in its stubs only.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
AnyConnection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
"""One of its own or one of a pool's."""

CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 5.0

_UNAVAILABLE = (
    OSError,  # includes TimeoutError
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up, query cancelled
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ReadOnlySQLTransactionError,  # a fail-over is under way: this server is no longer the primary
)


def check_dsn(dsn: str, *, where: str = "stores.postgres") -> None:
    """Refuse a DSN that cannot be one, before anything connects.

    :param where: the setting it stands in, for the message
    :raises ConfigError: says what is wrong; never shows the DSN, which holds a password
    """
    problem = _dsn_problem(dsn)
    if problem:
        example = "write it as postgresql://USER:PASSWORD@HOST:PORT/DATABASE, special characters percent-encoded"
        raise ConfigError([ConfigProblem(where, f"{problem}; {example}")])


async def connect(dsn: str, *, seconds: float = CONNECT_SECONDS) -> Connection:
    """One connection of its own, e.g. for LISTEN or a migration.

    :raises ConfigError: the DSN is malformed
    :raises StoreUnavailable: no server could be reached, or it refused
    """
    check_dsn(dsn)
    try:
        with translated():
            return await asyncpg.connect(dsn, timeout=seconds, command_timeout=COMMAND_SECONDS, **_primary(dsn))
    except ValueError:
        raise ConfigError([ConfigProblem("stores.postgres", "the DSN has an option that cannot be used")]) from None


async def create_pool(dsn: str, *, size: int = 8, seconds: float = COMMAND_SECONDS) -> Pool:
    """A pool that connects on first use: a service starts, and says it is not ready, while PostgreSQL is down.

    :param seconds: bound on one statement, and on connecting
    :raises ConfigError: the DSN is malformed
    """
    check_dsn(dsn)
    return await asyncpg.create_pool(dsn, min_size=0, max_size=size, timeout=seconds, command_timeout=seconds, **_primary(dsn))


@contextmanager
def translated() -> Iterator[None]:
    """Turn "the database did not answer" in all its forms into one error; anything else is a defect and passes through.

    :raises StoreUnavailable: names the kind of failure
    """
    try:
        yield
    except asyncpg.ClientConfigurationError:
        raise  # a ValueError: what was asked for is wrong, nothing is unavailable
    except _UNAVAILABLE as error:
        raise StoreUnavailable(f"PostgreSQL did not answer: {_kind(error)}") from None


def _primary(dsn: str) -> dict[str, Any]:
    return {} if "target_session_attrs" in parse_qs(urlsplit(dsn).query) else {"target_session_attrs": "primary"}


def _kind(error: BaseException) -> str:
    """The class and, for the operating system's own errors, its words. PostgreSQL's words may quote values: not shown."""
    if isinstance(error, asyncpg.PostgresError):
        return f"{type(error).__name__} (SQLSTATE {error.sqlstate})"
    strerror = getattr(error, "strerror", None)
    return f"{type(error).__name__}: {strerror}" if strerror else type(error).__name__


def _dsn_problem(dsn: str) -> str | None:
    try:
        url = urlsplit(dsn)
        if url.query:
            parse_qs(url.query, strict_parsing=True)
    except ValueError:
        return "is not a URL"
    if url.scheme not in ("postgresql", "postgres"):
        return "does not start with postgresql://"
    hosts = url.netloc.rpartition("@")[2]
    if url.netloc.count("@") > 1 or url.fragment:
        return "has an @ or # that is not percent-encoded"
    for host in hosts.split(",") if hosts else []:
        port = host.rpartition("]")[2].partition(":")[2]
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            return "has a port that is not a number from 1 to 65535"
    return None
