"""The gateway's configuration models: the sections and settings of ``gateway.toml``, one immutable value.

Nothing here reads a file, opens a connection or compiles a route.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError, ValidatorFunctionWrapHandler, computed_field, field_validator, model_validator

from gateway.config.fields import (
    AddressField,
    EndpointField,
    HeaderName,
    MethodName,
    Milliseconds,
    NetworkField,
    OriginField,
    PathField,
    RateField,
    Section,
    ServerField,
)
from gateway.config.values import Address, Rate


class Tls(Section):
    certificate: PathField
    key: PathField


class Listen(Section):
    public: AddressField = Address("0.0.0.0", 8080)
    ops: AddressField = Address("127.0.0.1", 8081)
    workers: int = Field(1, ge=1, le=128)
    tls: Tls | None = None
    shutdown_delay_ms: int = Field(0, ge=0, le=600_000)
    """How long new connections are still accepted after SIGTERM, while ``/ready`` answers 503, until load balancers have noticed."""
    drain_timeout_ms: Milliseconds = 30_000
    """How long requests in flight may continue after that."""

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        if self.public == self.ops and self.public.port:
            raise ValueError("public and ops must differ")
        return self


class Stores(Section):
    postgres: SecretStr
    redis: SecretStr


class Vault(Section):
    keys: SecretStr


Form = Literal["address", "address:port"]
"""Form of a header field of one address."""


class ClientIp(Section):
    trusted_proxies: tuple[NetworkField, ...] = ()
    """Peers whose header field is believed."""
    header: HeaderName = "X-Forwarded-For"
    header_form: Form | None = None
    """Form of a field of one address. By default as its vendor documents it; of other fields, what can be read in one way only."""
    proxy_protocol: bool = False
    proxy_peers: tuple[NetworkField, ...] = ()
    """Peers whose PROXY header is believed, and required."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.proxy_protocol and not self.proxy_peers:
            raise ValueError("proxy_peers must name the load balancers that send the PROXY header when proxy_protocol is on")
        if self.header_form is not None and self.header.lower() in ("x-forwarded-for", "forwarded"):
            raise ValueError(f"header_form is for a header with one address; {self.header} is a list of hops")
        return self


class Gateway(Section):
    """Public information about the gate."""

    docs_url: str = Field("", pattern=r"^(https?://[^\s#]+)?$")
    """URL of the customers' documentation of refusals; ``#`` and the code are appended."""
    cors: tuple[OriginField, ...] = ()
    """Origins whose pages may call the gate and read its answers (CORS)."""


DialectName = Literal["mobee", "binance", "rfc9421"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
"""Name of an upstream, or of a table of methods."""
PathPrefix = Annotated[str, Field(pattern=r"^/[!-~]*$")]


class Auth(Section):
    dialects: tuple[DialectName, ...] = Field(("mobee", "binance", "rfc9421"), min_length=1)
    path_dialects: dict[PathPrefix, DialectName] = Field(default_factory=dict)
    """The dialect whose form refusals take, by path prefix; otherwise Binance's paths (``/api/v3/…``, ``/sapi/v1/…``) are recognized."""
    clock_window_ms: Milliseconds = 5_000
    max_clock_window_ms: Milliseconds = 60_000
    replay_outage: Literal["deny", "allow"] = "deny"
    enforce: Literal["always", "shadow"] = "always"
    """``shadow``: the decision endpoint allows everything, and counts and logs what it would have refused. The gate's public port is not
    affected."""
    unseen_content: Literal["refuse", "ignore"] = "refuse"
    """For decisions about a GET or HEAD of a read route that come without content and without a statement about it. ``ignore``
    admits them, and assumes that no service behind the proxy uses such content."""

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
    """At most ``keys.trust.MAX_RECORD_TTL_MS``, for which gates remember changes."""
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
    """Limit of all keys of an account together, over all workers and machines."""
    per_ip_failures: RateField = Rate(60, 60_000)
    per_address: RateField = Rate(120_000, 60_000)
    """Limit of public routes, in weight units, per address (IPv6: per /64, and ten times as much per /48) and worker."""
    max_body_bytes: int = Field(1_048_576, ge=0, le=1 << 30)
    max_message_bytes: int = Field(65_536, ge=128, le=1 << 24)
    """Maximum size of a message in a WebSocket session."""
    max_header_bytes: int = Field(16_384, ge=1_024, le=1 << 20)
    max_connections: int = Field(10_000, ge=1, le=1_000_000)
    max_connections_per_address: int = Field(1_000, ge=1, le=1_000_000)
    """IPv6: per /64. What a /48 may have, here and below: :func:`gateway.net.addresses.most_of_site`."""
    max_tunnels: int = Field(10_000, ge=1, le=1_000_000)
    """WebSocket tunnels and sessions per worker; they do not count against an upstream's ``max_connections``."""
    max_tunnels_per_key: int = Field(20, ge=1, le=1_000_000)
    max_tunnels_per_address: int = Field(100, ge=1, le=1_000_000)
    tunnel_idle_timeout_ms: Milliseconds = 600_000
    """How long a tunnel may be idle in both directions."""
    body_memory_bytes: int = Field(256 << 20, ge=1 << 20, le=1 << 40)
    """Memory for all request bodies that a worker is receiving; an address may use at most an eighth."""
    header_timeout_ms: Milliseconds = 10_000
    body_timeout_ms: Milliseconds = 30_000
    """Time from the end of the header section to the end of a buffered body."""
    idle_timeout_ms: Milliseconds = 75_000


class Tier(Section):
    """The limits of accounts in a tier assigned by the back office; omitted limits are those of ``[limits]``."""

    per_key: RateField | None = None
    per_account: RateField | None = None


class Health(Section):
    path: str = Field(pattern=r"^/[!-~]*$")
    interval_ms: Milliseconds = 2_000
    timeout_ms: Milliseconds = 1_000


class UpstreamTls(Section):
    ca: PathField | None = None
    """PEM bundle to verify servers with; default: the system's."""
    server_name: str | None = None
    """Server name to send (SNI) and verify; default: the server's host."""


class Upstream(Section):
    servers: tuple[ServerField, ...] = Field(min_length=1)
    connect_timeout_ms: Milliseconds = 1_000
    response_timeout_ms: Milliseconds = 10_000
    """Time limit for the head of a response."""
    stream_idle_timeout_ms: Milliseconds = 60_000
    """How long a response may pause between data, e.g. server-sent events."""
    health: Health | None = None
    tls: UpstreamTls | None = None
    max_connections: int = Field(1_024, ge=1, le=100_000)
    """Per server and worker; an address may use at most an eighth, and idle ones beyond it while at most a quarter are open."""
    max_idle_connections: int = Field(256, ge=0, le=100_000)
    keep_alive_ms: Milliseconds = 60_000
    """How long an idle pooled connection is kept."""


class Rule(Section):
    """The rule for a route, or for one method of a session's messages: the scope that a call requires, its weight and more."""

    scope: Literal["public", "any", "read", "trade"]
    weight: int = Field(1, ge=0, le=100_000)
    replay: Literal["strict", "off"] | None = None
    maintenance: str = Field("", max_length=500, pattern=r"^([^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*)?$")
    """The detail of the 503 that callers get while the route is closed. ``""``: it is open."""
    maintenance_retry_ms: Milliseconds = 60_000
    """Their ``Retry-After``."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def strict_replay(self) -> bool:
        """Whether replay protection is strict: by default for ``trade`` only."""
        return self.replay == "strict" if self.replay is not None else self.scope == "trade"


class RouteConfig(Rule):
    """One route. Its pattern is compiled by ``admission.routes``, which also detects conflicts."""

    match: str
    upstream: str
    websocket: bool | Literal["mobee", "binance"] = False
    """``True``: a tunnel; a name: a session in that dialect."""
    methods: str | None = None
    """For a session: the name of the table of allowed methods."""
    dialect: DialectName | None = None
    """The dialect whose form refusals take, whatever credentials a request carries."""
    summary: str = Field("", max_length=200)
    """One line for the customers' documentation."""

    @field_validator("websocket", mode="wrap")
    @classmethod
    def _one_of(cls, value: object, read: ValidatorFunctionWrapHandler) -> bool | str:
        try:
            found: bool | str = read(value)
        except ValidationError:  # it has one error for each type, with the type in its path
            raise ValueError('write false, true (a tunnel), "mobee" or "binance" (a session)') from None
        return found

    @computed_field  # type: ignore[prop-decorator]
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
    """The JWT that proves to an upstream that a request came through the gate."""

    issuer: str = "gerbang"
    ttl_ms: int = Field(60_000, ge=5_000, le=60_000)
    keys: PathField | None = None
    """Folder of signing keys, created on the first start; ``None``: a key that lasts as long as the process."""
    rotate_after_ms: int = Field(30 * 86_400_000, ge=120_000)


class Telemetry(Section):
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    access_log: float = Field(0.0, ge=0.0, le=1.0)
    """Share of admitted requests that are logged. Above 0, all refusals are logged, too; at 0, at most 20 per second and process."""


class GatewayTelemetry(Telemetry):
    """Telemetry of the gateway beyond the admin service's."""

    traces: EndpointField | None = None
    """OTLP over HTTP endpoint for spans, e.g. ``http://127.0.0.1:4318/v1/traces``. Needs ``gerbang[traces]``."""
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
    tiers: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")], Tier] = Field(default_factory=dict)
    assertion: Assertion = Assertion()
    telemetry: GatewayTelemetry = GatewayTelemetry()
    upstreams: dict[Name, Upstream] = Field(default_factory=dict)
    routes: tuple[RouteConfig, ...] = ()
    methods: dict[Name, dict[MethodName, Rule]] = Field(default_factory=dict)
