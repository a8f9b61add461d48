"""PostgreSQL connections and pools: timeouts, failover between hosts, and translation of errors.

A DSN has asyncpg's syntax: ``postgresql://user:password@host1:5432,host2:5432/database?target_session_attrs=read-write``,
or ``postgresql://user@/database?host=/folder/of/the/socket``. Several hosts are tried in order, and only the primary is used unless
``target_session_attrs`` says otherwise: a standby may still have a key that the primary has deleted. A host that does not answer does
not delay the next one. No error message contains a DSN.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import asyncpg

from gateway.config.values import is_host
from gateway.errors import ConfigError, ConfigProblem, StoreUnavailable

# Strings: asyncpg's classes are generic in its stubs only.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
AnyConnection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
"""A separate connection, or one from a pool."""

CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 5.0
_NEXT_HOST_SECONDS = 0.15

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

_REFUSED = (
    (asyncpg.InvalidAuthorizationSpecificationError, "refused the login (user, password or pg_hba.conf)"),
    (asyncpg.InvalidCatalogNameError, "has no such database"),
)
"""Answers that no waiting changes: what an operator must look at. They are unavailability to the callers all the same."""


def check_dsn(dsn: str, *, where: str = "stores.postgres") -> None:
    """Refuse a malformed DSN before connecting.

    :param where: the name of its setting, for the message
    :raises ConfigError: says what is wrong; never contains the DSN, which includes a password
    """
    problem = _dsn_problem(dsn)
    if problem:
        example = "write it as postgresql://USER:PASSWORD@HOST:PORT/DATABASE, special characters percent-encoded"
        raise ConfigError([ConfigProblem(where, f"{problem}; {example}")])


async def connect(dsn: str, *, seconds: float = CONNECT_SECONDS, command_seconds: float = COMMAND_SECONDS) -> Connection:
    """Open a separate connection, e.g. for LISTEN or a migration.

    :param command_seconds: time limit of each statement
    :raises ConfigError: the DSN is malformed
    :raises StoreUnavailable: no server could be reached, or it refused
    """
    check_dsn(dsn)
    try:
        with translated():
            return await _open(dsn, timeout=seconds, command_timeout=command_seconds)
    except ValueError:
        raise ConfigError([ConfigProblem("stores.postgres", "the DSN has an option that cannot be used")]) from None


async def create_pool(dsn: str, *, size: int = 8, seconds: float = COMMAND_SECONDS) -> Pool:
    """A pool that connects on first use, so that a service can start, not ready, while PostgreSQL is down.

    :param seconds: time limit for a statement, and for connecting
    :raises ConfigError: the DSN is malformed
    """
    check_dsn(dsn)
    opener: Any = _open  # the stubs require asyncpg.connect's own signature
    pool: Pool = await asyncpg.create_pool(dsn, connect=opener, min_size=0, max_size=size, timeout=seconds, command_timeout=seconds)
    return pool


@contextmanager
def translated() -> Iterator[None]:
    """Translate every form of "the database did not answer" into one error; anything else is a defect and passes through.

    :raises StoreUnavailable: names the kind of failure
    """
    try:
        yield
    except _UNAVAILABLE as error:
        if isinstance(error, asyncpg.InterfaceError) and (isinstance(error, ValueError) or "argument" in str(error)):
            raise  # the call, one of its arguments, or their number is wrong: nothing is unavailable
        refused = next((said for kind, said in _REFUSED if isinstance(error, kind)), None)
        raise StoreUnavailable(f"PostgreSQL {refused or 'did not answer'}: {_kind(error)}") from None


async def _open(dsn: str, **options: Any) -> Connection:
    """Connect to the first host that answers properly. asyncpg itself would spend the whole time limit on an unresponsive one.

    As in RFC 8305 §5, the next host is tried when the one before it has failed, or has not answered within a moment.
    """
    if "target_session_attrs" not in parse_qs(urlsplit(dsn).query):
        options["target_session_attrs"] = "primary"
    left, trying, failure = _hosts(dsn), set[asyncio.Task[Connection]](), None
    try:
        while left or trying:
            if left:
                trying.add(asyncio.get_running_loop().create_task(asyncpg.connect(left.pop(0), **options)))
            done, trying = await asyncio.wait(trying, timeout=_NEXT_HOST_SECONDS if left else None, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                failure = attempt.exception()
                if failure is None:
                    return attempt.result()
    finally:
        for attempt in trying:
            attempt.add_done_callback(_discard)
            attempt.cancel()
    raise failure or StoreUnavailable("PostgreSQL did not answer: the DSN names no host")


def _discard(attempt: asyncio.Task[Connection]) -> None:
    """Close a connection that was established too late to be used."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().terminate()


def _hosts(dsn: str) -> list[str]:
    """One DSN for each host of a DSN that names several."""
    url = urlsplit(dsn)
    login, at, hosts = url.netloc.rpartition("@")
    if "," in hosts:
        return [url._replace(netloc=f"{login}{at}{host}").geturl() for host in hosts.split(",")]
    query = {name: values[-1] for name, values in parse_qs(url.query).items()}
    several, ports = query.get("host", "").split(","), query.get("port", "").split(",")
    if len(several) == 1:
        return [dsn]
    if len(ports) == 1:
        ports *= len(several)
    return [
        url._replace(query=urlencode(query | {"host": host} | ({"port": port} if port else {}))).geturl()
        for host, port in zip(several, ports, strict=True)
    ]


def _kind(error: BaseException) -> str:
    """The error's class and, for operating system errors, the message. PostgreSQL's messages may quote values and are omitted."""
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
    try:
        _hosts(dsn)
    except ValueError:
        return "has not as many ports as hosts"
    hosts = url.netloc.rpartition("@")[2]
    if url.netloc.count("@") > 1 or url.fragment:
        return "has an @ or # that is not percent-encoded"
    for host in hosts.split(",") if hosts else []:
        name, _, port = host.rpartition("]")[2].partition(":")
        if not is_host(unquote(name)):
            return "has a host name that cannot be looked up"
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            return "has a port that is not a number from 1 to 65535"
    return None
