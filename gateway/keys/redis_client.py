"""Redis clients (standalone, Sentinel, Cluster) from a URL: timeouts, and translation of errors.

    redis://[user:password@]host[:6379][/db]          rediss:// with TLS
    unix://[user:password@]/path/of/the/socket[?db=0]
    redis+sentinel://[user:password@]host[:26379],host[:26379]/service[/db]     rediss+sentinel:// with TLS
    redis+cluster://[user:password@]host[:6379],host[:6379]                     rediss+cluster:// with TLS

Options after ``?``: ``ssl_ca_certs``, ``ssl_certfile``, ``ssl_keyfile``, ``ssl_check_hostname``, ``ssl_cert_reqs``; for Sentinel also
``sentinel_username`` and ``sentinel_password``, the login at the Sentinels themselves, none unless given.

When a command is cancelled or times out, redis-py closes its connection, on
which a reply may still be pending (redis-py issue 2624 and its successors; ``tests/gateway/keys/test_redis_client.py`` cancels
in flight and checks for shifted replies). No command is retried, since only the caller knows whether it may be repeated;
the exception is Cluster, where a command whose node has failed is sent once more, to its successor.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import hiredis
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool, SentinelManagedConnection, SentinelManagedSSLConnection
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoScriptError, RedisClusterException, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.config.values import is_host
from gateway.errors import ConfigError, ConfigProblem, StoreUnavailable

CONNECT_SECONDS = 1.0
COMMAND_SECONDS = 0.5
MAX_CONNECTIONS = 64
"""Connections per client (in a Cluster, per node). A further command waits for one up to :data:`COMMAND_SECONDS`; in a Cluster it fails."""

_FAILURES = (RedisError, RedisClusterException, OSError)  # OSError includes TimeoutError


class RedisRefused(StoreUnavailable):
    """Redis refused a command: wrong password, no permission, out of memory."""


@contextmanager
def translated() -> Iterator[None]:
    """Translate every Redis failure into one error: no other module uses redis-py's exceptions.

    :raises RedisRefused: with Redis's message
    :raises StoreUnavailable: no answer; names the kind of failure
    """
    try:
        yield
    except _FAILURES as error:
        # redis-py reports a refused password as the cause of a lost connection.
        for each in (error, error.__cause__, error.__context__):
            if isinstance(each, AuthenticationError | ResponseError):
                raise RedisRefused(f"Redis refused: {each}") from None
        raise StoreUnavailable(f"Redis did not answer: {type(error).__name__}") from None
    except RuntimeError as error:
        if "handler is closed" not in str(error):  # uvloop's error if the connection is closed during redis-py's handshake
            raise
        raise StoreUnavailable("Redis did not answer: the connection was closed") from None


def is_other_type(reply: object) -> bool:
    """Whether a reply is the error WRONGTYPE."""
    return isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE")


def script_unknown(reply: object) -> bool:
    """Whether a reply to ``EVALSHA`` says that the script is not loaded."""
    return isinstance(reply, NoScriptError)


def keys_are_apart(reply: object) -> bool:
    """Whether a reply says that a command's keys are on several servers: nodes of a Cluster, or shards behind a proxy."""
    return isinstance(reply, ResponseError) and "same slot" in str(reply)


_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname", "ssl_cert_reqs")
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")


class _Packing:
    """Packs commands by hiredis, in C, as redis-py's synchronous connections do: packing is half the cost of a pipeline."""

    def pack_command(self, *args: Any) -> list[bytes]:
        return [_packed(args)]

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
        return [b"".join([_packed(tuple(command)) for command in commands])]


def _packed(args: tuple[Any, ...]) -> bytes:
    """One command; redis-py's first argument may contain two words of Redis's (``CONFIG SET``)."""
    name = args[0].encode() if isinstance(args[0], str) else args[0]
    packed: bytes = hiredis.pack_command((*name.split(), *args[1:]) if b" " in name else args)
    return packed


class _Connection(_Packing, Connection):
    pass


class _SSLConnection(_Packing, SSLConnection):
    pass


class _UnixDomainSocketConnection(_Packing, UnixDomainSocketConnection):
    pass


class _SentinelConnection(_Packing, SentinelManagedConnection):
    pass


class _SentinelSSLConnection(_Packing, SentinelManagedSSLConnection):
    pass


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """A Sentinel pool that waits for a free connection; redis-py's own fails a command if all are in use."""


class _Target(NamedTuple):
    """A parsed URL."""

    scheme: str
    tls: bool
    hosts: list[tuple[str, int]]
    path: str
    login: dict[str, str]
    options: dict[str, str]


def connect(url: str, *, where: str = "stores.redis", time_each_reply: bool = True) -> Redis:
    """A client for ``url``; it connects on first use, so a service starts while Redis is down.

    :param where: the name of the URL's setting, for the message
    :param time_each_reply: false if the caller limits the time of a whole pipeline: a timer for each reply costs more than the reply
    :returns: for Cluster, redis-py's cluster client, which has the same commands
    :raises ConfigError: the URL is malformed; the message never contains it, since it may include a password
    """
    try:
        target = _parse(url)
        match target.scheme:
            case "sentinel":
                return _sentinel(target, time_each_reply=time_each_reply)
            case "cluster":
                return _cluster(target, time_each_reply=time_each_reply)
            case _:
                return _single(target, time_each_reply=time_each_reply)
    except ValueError as error:
        raise ConfigError(
            [ConfigProblem(where, f"{error}; write it as one of {', '.join(f'{scheme}://' for scheme in _SCHEMES)}")]
        ) from None


def _common(target: _Target, *, time_each_reply: bool) -> dict[str, Any]:
    options = {name: value for name, value in target.options.items() if name in _TLS_OPTIONS}
    if "ssl_check_hostname" in options:
        options["ssl_check_hostname"] = _boolean(options["ssl_check_hostname"])  # type: ignore[assignment]
    return {
        **target.login,
        **options,
        "protocol": 2,  # RESP3 has no benefit here and costs a HELLO per connection
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": COMMAND_SECONDS if time_each_reply else None,
        "socket_connect_timeout": CONNECT_SECONDS,
    }


def _single(target: _Target, *, time_each_reply: bool) -> Redis:
    common = _common(target, time_each_reply=time_each_reply) | {"max_connections": MAX_CONNECTIONS, "timeout": COMMAND_SECONDS}
    if target.scheme == "unix":
        database = _database(target.options.get("db", ""))
        return Redis.from_pool(
            BlockingConnectionPool(connection_class=_UnixDomainSocketConnection, path=target.path, db=database, **common)
        )
    kind = _SSLConnection if target.tls else _Connection
    ((host, port),) = target.hosts
    return Redis.from_pool(
        BlockingConnectionPool(connection_class=kind, host=host, port=port, db=_database(target.path.strip("/")), **common)
    )


class _OfSentinel(Redis):
    """A primary's client that also closes its connections to the Sentinels, which redis-py does not."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        pool: Any = self.connection_pool
        await super().aclose(close_connection_pool)
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()


def _sentinel(target: _Target, *, time_each_reply: bool) -> Redis:
    service, _, database = target.path.strip("/").partition("/")
    if not service:
        raise ValueError("a Sentinel URL names the service after the hosts: redis+sentinel://host:26379/service")
    common = _common(target, time_each_reply=time_each_reply)
    of_sentinels = {name: value for name, value in common.items() if name not in ("username", "password")} | {"ssl": target.tls}
    of_sentinels |= {name.removeprefix("sentinel_"): target.options[name] for name in _SENTINEL_OPTIONS if name in target.options}
    sentinel = Sentinel(target.hosts, sentinel_kwargs=of_sentinels)  # type: ignore[no-untyped-call]
    client = sentinel.master_for(
        service,
        redis_class=_OfSentinel,
        connection_pool_class=_SentinelPool,
        connection_class=_SentinelSSLConnection if target.tls else _SentinelConnection,
        db=_database(database),
        max_connections=MAX_CONNECTIONS,
        timeout=COMMAND_SECONDS,
        **common,
    )
    return cast("Redis", client)


class _Cluster(RedisCluster):
    """A cluster client whose errors are ``RedisError``, unlike redis-py's, so that one ``except`` serves every kind of Redis."""

    async def initialize(self, *args: Any, **kwargs: Any) -> RedisCluster:
        try:
            return await super().initialize(*args, **kwargs)
        except RedisClusterException as error:
            raise RedisConnectionError(str(error)) from None

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().execute_command(*args, **kwargs)
        except RedisClusterException as error:
            raise RedisConnectionError(str(error)) from None


def _cluster(target: _Target, *, time_each_reply: bool) -> Redis:
    if target.path.strip("/"):
        raise ValueError("a Cluster has no numbered databases: nothing follows the hosts")
    nodes = [ClusterNode(host, port) for host, port in target.hosts]
    # The one retry: after losing a node the client reads the slots again and uses the current node.
    common = _common(target, time_each_reply=time_each_reply) | {"retry": Retry(NoBackoff(), 1)}
    client = _Cluster(startup_nodes=nodes, ssl=target.tls, max_connections=MAX_CONNECTIONS, **common)
    return cast("Redis", client)


def _parse(url: str) -> _Target:
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError:
        raise ValueError("not a URL") from None
    if parts.scheme not in _SCHEMES:
        raise ValueError("the scheme is not known")
    if parts.fragment or parts.netloc.count("@") > 1:
        raise ValueError("an @ or # is not percent-encoded")
    tls, scheme = parts.scheme.startswith("rediss"), parts.scheme.rpartition("+")[2]
    known = {"sentinel": _TLS_OPTIONS + _SENTINEL_OPTIONS, "unix": ("db",)}.get(scheme, _TLS_OPTIONS)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"the options allowed here are {', '.join(known)}")
    login, _, hosts = parts.netloc.rpartition("@")
    if scheme == "unix" and (hosts or not parts.path):
        raise ValueError("a unix URL names a path: unix:///run/redis.sock")
    addresses = [] if scheme == "unix" else [_address(host, 26379 if scheme == "sentinel" else 6379) for host in hosts.split(",")]
    if scheme in ("redis", "rediss") and len(addresses) != 1:
        raise ValueError("several hosts need redis+sentinel:// or redis+cluster://")
    return _Target(scheme, tls, addresses, unquote(parts.path), _login(login), options)


def _login(text: str) -> dict[str, str]:
    user, _, password = text.partition(":")
    named = {"username": unquote(user), "password": unquote(password)}
    return {name: value for name, value in named.items() if value}


def _address(text: str, default_port: int) -> tuple[str, int]:
    """``host``, ``host:port``, ``[::1]`` or ``[::1]:port``."""
    bracket, _, after = text.rpartition("]")
    host, _, port = (bracket.removeprefix("["), "", after.removeprefix(":")) if bracket else text.partition(":")
    if not host or (bracket and not text.startswith("[")):
        raise ValueError("a host is missing")
    if not is_host(host):
        raise ValueError("a host name cannot be looked up")
    if not port:
        return host, default_port
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError("a port is not a number from 1 to 65535")
    return host, int(port)


def _database(text: str) -> int:
    if text and not (text.isascii() and text.isdigit() and len(text) < 6):
        raise ValueError("the database is not a number")
    return int(text or 0)


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("ssl_check_hostname is true or false")
    return text.lower() == "true"
