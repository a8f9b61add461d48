"""The gateway's configuration models: one immutable value read from TOML, validated whole, every error reported at once.

Nothing here opens a connection or compiles a route; ``admin.config`` builds on the same helpers.
"""

import os
import re
import tomllib
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails

from gateway.errors import ConfigError, ConfigProblem


class Address(NamedTuple):
    """Where to listen: host as text (IPv6 without brackets) and TCP port (0: any free one)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Rate(NamedTuple):
    """``units`` in ``period_ms`` milliseconds, written ``"1200/minute"``."""

    units: int
    period_ms: int

    def __str__(self) -> str:
        return f"{self.units}/{_PERIOD_NAMES.get(self.period_ms, f'{self.period_ms} ms')}"


_PERIODS = {"second": 1_000, "minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
_PERIOD_NAMES = {milliseconds: name for name, milliseconds in _PERIODS.items()}
_RATE = re.compile(r"([1-9][0-9]{0,8})/(second|minute|hour|day)")
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:\s]+)):([0-9]{1,5})")
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def _rate(value: object) -> object:
    if isinstance(value, str):
        match = _RATE.fullmatch(value)
        if match is None:
            raise ValueError('write a rate as "COUNT/second", "/minute", "/hour" or "/day", e.g. "1200/minute"')
        return Rate(int(match[1]), _PERIODS[match[2]])
    return value


def _address(value: object) -> object:
    if isinstance(value, str):
        match = _ADDRESS.fullmatch(value)
        if match is None or int(match[3]) > 65535:
            raise ValueError('write an address as "HOST:PORT", IPv6 in brackets, e.g. "127.0.0.1:8080" or "[::1]:8080"')
        return Address(match[1] or match[2], int(match[3]))
    return value


def _network(value: object) -> object:
    if isinstance(value, str):
        try:
            return ip_network(value, strict=True)
        except ValueError as error:
            raise ValueError(f'{error}; write a network as "10.0.0.0/8" or "2001:db8::/32"') from None
    return value


def _server(value: str) -> str:
    url = urlsplit(value)
    try:
        port_ok = url.port is None or url.port > 0
    except ValueError:
        port_ok = False
    if (
        url.scheme not in ("http", "https")
        or not url.hostname
        or not port_ok
        or url.path not in ("", "/")
        or url.query
        or url.fragment
        or url.username
    ):
        raise ValueError('write a server as "http://HOST:PORT" or "https://HOST:PORT", without a path or user')
    return value.rstrip("/")


def _endpoint(value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.hostname or url.username or url.fragment:
        raise ValueError('write an endpoint as "http://HOST:PORT/PATH" or "https://…", without a user')
    return value


def _origin(value: str) -> str:
    url = urlsplit(value)
    try:
        port = url.port
    except ValueError:
        port = 0
    usual = {"http": 80, "https": 443}.get(url.scheme)
    if (
        usual is None
        or not url.hostname
        or port in (0, usual)
        or value != f"{url.scheme}://{url.netloc}".lower()
        or url.username is not None
    ):
        raise ValueError('write an origin as browsers do: "https://HOST" or "https://HOST:PORT", in lower case, without a path')
    return value


def _path(value: Path, info: ValidationInfo) -> Path:
    """A relative path is taken from the configuration file's own folder, like that of a ``file:`` reference."""
    folder: Path = (info.context or {}).get("folder", Path())
    return folder / value


def _header_name(value: str) -> str:
    if not _HEADER_NAME.fullmatch(value):
        raise ValueError("not a header field name (RFC 9110 §5.1)")
    if value.count("-") + value.count("_") > 8:
        raise ValueError("more than eight dashes in a header field name")
    return value


RateField = Annotated[Rate, BeforeValidator(_rate, json_schema_input_type=str)]
AddressField = Annotated[Address, BeforeValidator(_address, json_schema_input_type=str)]
NetworkField = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network, json_schema_input_type=str)]
ServerField = Annotated[str, AfterValidator(_server)]
OriginField = Annotated[str, AfterValidator(_origin)]
EndpointField = Annotated[str, AfterValidator(_endpoint)]
PathField = Annotated[Path, AfterValidator(_path)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
MethodName = Annotated[str, Field(pattern=r"^[!-~]{1,64}( [!-~]{1,64})?$")]
"""``order.place``, or ``subscribe BL``."""
Milliseconds = Annotated[int, Field(ge=1, le=86_400_000)]


class Section(BaseModel):
    """A table of the file: frozen, unknown keys refused, nothing coerced from another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Tls(Section):
    certificate: PathField
    key: PathField


class Listen(Section):
    public: AddressField = Address("0.0.0.0", 8080)
    ops: AddressField = Address("127.0.0.1", 8081)
    workers: int = Field(1, ge=1, le=128)
    tls: Tls | None = None
    drain_timeout_ms: Milliseconds = 30_000
    """How long requests in flight may go on after SIGTERM."""


class Stores(Section):
    postgres: SecretStr
    redis: SecretStr


class Vault(Section):
    keys: SecretStr


class ClientIp(Section):
    trusted_proxies: tuple[NetworkField, ...] = ()
    """Peers whose header field is believed."""
    header: HeaderName = "X-Forwarded-For"
    proxy_protocol: bool = False
    proxy_peers: tuple[NetworkField, ...] = ()
    """Peers whose PROXY header is believed, and required."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.proxy_protocol and not self.proxy_peers:
            raise ValueError("proxy_peers must name the load balancers that send the PROXY header when proxy_protocol is on")
        return self


class Gateway(Section):
    """What the gate says of itself to customers."""

    docs_url: str = Field("", pattern=r"^(https?://[^\s#]+)?$")
    """Where the customers' documentation explains refusals: ``#`` and the code are put behind it."""
    cors: tuple[OriginField, ...] = ()
    """Origins whose pages may call the gate and read its answers."""


DialectName = Literal["mobee", "binance", "rfc9421"]
PathPrefix = Annotated[str, Field(pattern=r"^/[!-~]*$")]


class Auth(Section):
    dialects: tuple[DialectName, ...] = Field(("mobee", "binance", "rfc9421"), min_length=1)
    path_dialects: dict[PathPrefix, DialectName] = {}
    """In whose form calls below a path are refused; without it Binance's paths (``/api/v3/…``, ``/sapi/v1/…``) are known by their shape."""
    clock_window_ms: Milliseconds = 5_000
    max_clock_window_ms: Milliseconds = 60_000
    replay_outage: Literal["deny", "allow"] = "deny"
    enforce: Literal["always", "shadow"] = "always"
    """``shadow``: the decision endpoint lets everything pass, and counts and logs what it would have refused. What comes to the gate's own
    port is decided as always."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.dialects)) != len(self.dialects):
            raise ValueError("dialects: each one once")
        if self.max_clock_window_ms < self.clock_window_ms:
            raise ValueError("max_clock_window_ms must be at least clock_window_ms")
        return self


class Cache(Section):
    local_ttl_ms: Milliseconds = 5_000
    redis_ttl_ms: int = Field(60_000, ge=1, le=300_000)
    """At most ``keys.trust.MAX_RECORD_TTL_MS``, for which gates keep what has changed."""
    stale_limit_ms: Milliseconds = 30_000
    local_entries: int = Field(100_000, ge=1, le=10_000_000)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.stale_limit_ms < self.local_ttl_ms:
            raise ValueError("stale_limit_ms must be at least local_ttl_ms")
        return self


class Limits(Section):
    per_key: RateField = Rate(1200, 60_000)
    per_account: RateField | None = None
    """All keys of an account together, the same over all workers and machines."""
    per_ip_failures: RateField = Rate(60, 60_000)
    per_address: RateField = Rate(120_000, 60_000)
    """Of public routes, in weight units, from one address (IPv6: one /64), by each worker."""
    max_body_bytes: int = Field(1_048_576, ge=0, le=1 << 30)
    max_message_bytes: int = Field(65_536, ge=128, le=1 << 24)
    """Of one message of a WebSocket session."""
    max_header_bytes: int = Field(16_384, ge=1_024, le=1 << 20)
    max_connections: int = Field(10_000, ge=1, le=1_000_000)
    max_connections_per_address: int = Field(1_000, ge=1, le=1_000_000)
    max_tunnels: int = Field(10_000, ge=1, le=1_000_000)
    """WebSocket tunnels and sessions of a worker; they take nothing from an upstream's ``max_connections``."""
    max_tunnels_per_key: int = Field(20, ge=1, le=1_000_000)
    max_tunnels_per_address: int = Field(100, ge=1, le=1_000_000)
    tunnel_idle_timeout_ms: Milliseconds = 600_000
    """How long nothing may come from either end of a tunnel."""
    body_memory_bytes: int = Field(256 << 20, ge=1 << 20, le=1 << 40)
    """Of all contents that a worker is collecting; no address holds more than an eighth."""
    header_timeout_ms: Milliseconds = 10_000
    body_timeout_ms: Milliseconds = 30_000
    """From the end of the header section to the end of a buffered body."""
    idle_timeout_ms: Milliseconds = 75_000


class Tier(Section):
    """The limits of accounts that the back office has put into a tier; what is left out is that of ``[limits]``."""

    per_key: RateField | None = None
    per_account: RateField | None = None


class Health(Section):
    path: str = Field(pattern=r"^/[!-~]*$")
    interval_ms: Milliseconds = 2_000
    timeout_ms: Milliseconds = 1_000


class UpstreamTls(Section):
    ca: PathField | None = None
    """PEM bundle to verify servers with; the system's when absent."""
    server_name: str | None = None
    """Name to send and verify (SNI); the server's host when absent."""


class Upstream(Section):
    servers: tuple[ServerField, ...] = Field(min_length=1)
    connect_timeout_ms: Milliseconds = 1_000
    response_timeout_ms: Milliseconds = 10_000
    """To the head of a response."""
    stream_idle_timeout_ms: Milliseconds = 60_000
    """How long a response that has begun may be silent, server-sent events for one."""
    health: Health | None = None
    tls: UpstreamTls | None = None
    max_connections: int = Field(1_024, ge=1, le=100_000)
    """Per server and worker; of those that are opened or waited for, no address holds more than an eighth."""
    max_idle_connections: int = Field(256, ge=0, le=100_000)
    keep_alive_ms: Milliseconds = 60_000
    """How long an idle pooled connection is kept."""


class Rule(Section):
    """What whoever asks must hold, and what it costs."""

    scope: Literal["public", "any", "read", "trade"]
    weight: int = Field(1, ge=0, le=100_000)
    replay: Literal["strict", "off"] | None = None
    maintenance: str = Field("", max_length=500, pattern=r"^([^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*)?$")
    """What callers are told while the route is closed: 503. ``""``: it is open."""
    maintenance_retry_ms: Milliseconds = 60_000

    @property
    def strict_replay(self) -> bool:
        """Strict unless said otherwise for ``trade``; off unless said otherwise for the rest."""
        return self.replay == "strict" if self.replay is not None else self.scope == "trade"


class MethodConfig(Rule):
    """What one method of a session's messages may do."""


class RouteConfig(Rule):
    """One route as written. Its pattern is compiled by ``admission.routes``, which also finds conflicts."""

    match: str
    upstream: str
    websocket: bool | Literal["mobee", "binance"] = False
    """``True``: a tunnel; a name: a session in that dialect."""
    methods: str | None = None
    """With a session: the table of what may be sent."""
    dialect: DialectName | None = None
    """In whose form calls are refused, whatever a request carries."""
    """When they are told to try again."""
    summary: str = Field("", max_length=200)
    """One line for the customers' documentation."""

    @property
    def session(self) -> str:
        """The session dialect, or ``""``."""
        return self.websocket if isinstance(self.websocket, str) else ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.session and self.methods is None:
            raise ValueError(f'a session names its table of methods: methods = "NAME", with [methods.NAME] (websocket = "{self.session}")')
        if self.methods is not None and not self.session:
            raise ValueError('methods belongs to a session: websocket = "mobee" or "binance"')
        return self


class Assertion(Section):
    """The JWT that tells an upstream that it was the gate."""

    issuer: str = "gerbang"
    ttl_ms: int = Field(60_000, ge=5_000, le=60_000)
    keys: PathField | None = None
    """Folder of signing keys, made on the first start; ``None``: a key for this process's lifetime only."""
    rotate_after_ms: int = Field(30 * 86_400_000, ge=120_000)


class Telemetry(Section):
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    access_log: float = Field(0.0, ge=0.0, le=1.0)
    """Share of admitted requests that are logged, and then every refusal; with 0, at most 20 refusals a second of each process."""


class GatewayTelemetry(Telemetry):
    """What the gateway tells beyond the admin service."""

    traces: EndpointField | None = None
    """OTLP over HTTP: where spans are sent, e.g. ``http://127.0.0.1:4318/v1/traces``. Needs ``gerbang[traces]``."""
    trace_share: float = Field(0.01, ge=0.0, le=1.0)
    """Share of forwarded requests that are traced."""


class GatewaySettings(Section):
    """The whole of ``gateway.toml``."""

    gateway: Gateway = Gateway()
    listen: Listen = Listen()
    stores: Stores
    vault: Vault
    client_ip: ClientIp = ClientIp()
    auth: Auth = Auth()
    cache: Cache = Cache()
    limits: Limits = Limits()
    tiers: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")], Tier] = {}
    assertion: Assertion = Assertion()
    telemetry: GatewayTelemetry = GatewayTelemetry()
    upstreams: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")], Upstream] = {}
    routes: tuple[RouteConfig, ...] = ()
    methods: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")], dict[MethodName, MethodConfig]] = {}


SettingsT = TypeVar("SettingsT", bound=Section)


class Raw(NamedTuple):
    """A configuration file as read: every reference resolved, nothing validated. JSON can carry it to a worker."""

    source: str
    """The file's path: paths inside it are relative to its folder."""
    values: dict[str, Any]
    problems: list[ConfigProblem]


def load(path: Path, model: type[SettingsT]) -> SettingsT:
    """Read, resolve and validate one configuration file.

    :param model: the settings class, :class:`GatewaySettings` or the admin service's
    :raises ConfigError: with every problem found; no message contains a resolved secret
    """
    return validate(read(path), model)


def read(path: Path, *, only: frozenset[str] | None = None) -> Raw:
    """Read a file and resolve its references; what cannot be resolved is a problem for :func:`validate` to tell beside the others.

    :param only: sections to take; the references of the others are left alone
    :raises ConfigError: the file cannot be read at all, or is not TOML
    """
    source = str(path)
    try:
        text = path.read_bytes().decode()
        raw = tomllib.loads(text)
    except OSError as error:
        raise ConfigError([ConfigProblem("", f"cannot be read: {error.strerror}")], source) from None
    except UnicodeDecodeError as error:
        raise ConfigError([ConfigProblem("", f"not UTF-8 at byte {error.start}")], source) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([ConfigProblem("", f"not TOML: {error}")], source) from None
    if only is not None:
        raw = {section: values for section, values in raw.items() if section in only}
    problems: list[ConfigProblem] = []
    return Raw(source, _resolve(raw, path.parent, "", problems), problems)


def validate(raw: Raw, model: type[SettingsT]) -> SettingsT:
    """Settings of what was read.

    :raises ConfigError: with every problem found, those of reading first
    """
    problems = raw.problems + unknown_upstreams(raw.values) + unknown_methods(raw.values)
    settings: SettingsT | None = None
    try:
        settings = model.model_validate(raw.values, context={"folder": Path(raw.source).parent})
    except ValidationError as error:
        unresolved = {problem.path for problem in problems}
        problems += [problem for problem in map(_problem, _own_errors(error)) if problem.path not in unresolved]
    if problems or settings is None:
        raise ConfigError(problems, raw.source)
    return settings


def unknown_upstreams(raw: dict[str, Any]) -> list[ConfigProblem]:
    """Routes that name an upstream which is not there. Works on the raw file, so that it is told beside other problems."""
    upstreams, routes = raw.get("upstreams", {}), raw.get("routes", [])
    if not isinstance(upstreams, dict) or not isinstance(routes, list):
        return []
    return [
        ConfigProblem(f"routes[{index}].upstream", f"there is no [upstreams.{route['upstream']}]")
        for index, route in enumerate(routes)
        if isinstance(route, dict) and isinstance(route.get("upstream"), str) and route["upstream"] not in upstreams
    ]


def unknown_methods(raw: dict[str, Any]) -> list[ConfigProblem]:
    """Routes that name a table of methods which is not there."""
    tables, routes = raw.get("methods", {}), raw.get("routes", [])
    if not isinstance(tables, dict) or not isinstance(routes, list):
        return []
    return [
        ConfigProblem(f"routes[{index}].methods", f"there is no [methods.{route['methods']}]")
        for index, route in enumerate(routes)
        if isinstance(route, dict) and isinstance(route.get("methods"), str) and route["methods"] not in tables
    ]


def _resolve(value: Any, folder: Path, where: str, problems: list[ConfigProblem]) -> Any:
    """Replace every ``env:NAME`` and ``file:PATH`` string; a relative path is taken from the file's own folder."""
    if isinstance(value, dict):
        return {key: _resolve(item, folder, f"{where}.{key}" if where else str(key), problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, folder, f"{where}[{index}]", problems) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    if value.startswith("env:"):
        name = value[4:]
        if name not in os.environ:
            problems.append(ConfigProblem(where, f"the environment variable {name} is not set"))
            return value
        return os.environ[name]
    if value.startswith("file:"):
        target = folder / value[5:]
        try:
            return target.read_text().strip()
        except OSError as error:
            problems.append(ConfigProblem(where, f"{target} cannot be read: {error.strerror}"))
        except UnicodeDecodeError:
            problems.append(ConfigProblem(where, f"{target} is not UTF-8 text"))
    return value


def _own_errors(error: ValidationError) -> list[ErrorDetails]:
    """Without the complaint that a list is too short which pydantic adds when an item of it is refused."""
    found = error.errors()
    inside = {item["loc"][:length] for item in found for length in range(len(item["loc"]))}
    return [item for item in found if not (item["type"] == "too_short" and item["loc"] in inside)]


def _problem(error: ErrorDetails) -> ConfigProblem:
    path = ""
    for part in error["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    message = error["msg"].removeprefix("Value error, ")
    return ConfigProblem(path, "not a known key" if error["type"] == "extra_forbidden" else message)
