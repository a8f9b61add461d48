"""The admin service's configuration: one immutable value, validated whole."""

import base64
import binascii
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, SecretStr, model_validator

from admin.relay import LOOPBACK, Relay, mailbox
from gateway.config.fields import AddressField, Milliseconds, NetworkField, PathField, RateField, Section
from gateway.config.loading import load
from gateway.config.settings import Stores, Telemetry, Tls, Vault
from gateway.config.values import Address, Rate, is_host


def _web_address(value: str) -> str:
    url = urlsplit(value)
    try:
        usable = bool(url.hostname) and is_host(url.hostname or "") and (url.port is None or url.port > 0)
    except ValueError:
        usable = False
    if not usable or url.scheme not in ("http", "https") or url.query or url.fragment or url.username:
        raise ValueError('write an address as "https://HOST[:PORT][/PATH]", without a user, query or fragment')
    if url.scheme == "http" and url.hostname not in LOOPBACK:
        raise ValueError("http is accepted for loopback addresses only: use https, since tokens and keys are sent there")
    return url.geturl()  # the scheme in lower case: others compare the text


def _scopes(value: tuple[str, ...]) -> tuple[str, ...]:
    if "openid" not in value:
        raise ValueError('"openid" is required: without it no provider returns an ID token')
    return value


def _token(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < 24:
        raise ValueError("at least 24 characters: this token can freeze accounts and revoke keys")
    return value


def _token_name(value: str) -> str:
    if value in ("account", "provider", "system"):
        raise ValueError(f'"{value}" is reserved for another actor in the audit log')
    return value


def _smtp(value: SecretStr) -> SecretStr:
    Relay.parse(value.get_secret_value())
    return value


def _mail_from(value: str) -> str:
    mailbox(value)
    return value


_MAX_LOGO_BYTES = 65_536


def _time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError('write a time zone by its name, such as "Asia/Jakarta"') from None
    return value


def _logo(value: Path) -> Path:
    if value.suffix.lower() not in (".svg", ".png"):
        raise ValueError("name an SVG or PNG file")
    try:
        size = value.stat().st_size
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if size > _MAX_LOGO_BYTES:
        raise ValueError("larger than 64 KiB")
    return value


def _webhook_secret(value: SecretStr) -> SecretStr:
    encoded = value.get_secret_value().removeprefix("whsec_")
    try:
        size = len(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if not 24 <= size <= 64:
        raise ValueError("write it as whsec_ and the Base64 of 24 to 64 random bytes (Standard Webhooks)")
    return value


WebAddress = Annotated[str, AfterValidator(_web_address)]
ServiceToken = Annotated[SecretStr, AfterValidator(_token)]
TokenName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$"), AfterValidator(_token_name)]


class AdminListen(Section):
    """Where the two sides of the service listen. They never share a port."""

    public: AddressField = Address("0.0.0.0", 8090)
    internal: AddressField = Address("127.0.0.1", 8093)
    tls: Tls | None = None
    """For the public port."""
    shutdown_delay_ms: int = Field(0, ge=0, le=600_000)
    """How long new connections are still accepted after SIGTERM, while ``/ready`` answers 503, until load balancers have noticed."""
    drain_timeout_ms: Milliseconds = 10_000
    """How long requests in flight may continue after that."""


class Oidc(Section):
    """The trusted identity provider."""

    issuer: WebAddress
    """Exactly as the provider writes it in ``iss``; its discovery document is at ``{issuer}/.well-known/openid-configuration``."""
    audience: str = Field(min_length=1)
    """The required ``aud`` of a token: the client id of this service."""
    client_secret: SecretStr | None = None
    """For the browser's login; if absent, a public client with PKCE."""
    algorithms: tuple[Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"], ...] = (
        Field(("RS256",), min_length=1)
    )
    """Signature algorithms accepted. The token's own header never widens this. ``EdDSA`` is the older name (RFC 8037) of what RFC 9864
    calls ``Ed25519``; many providers write it.
    """
    scopes: Annotated[tuple[Annotated[str, Field(pattern=r"^[!#-\[\]-~]+$")], ...], AfterValidator(_scopes)] = ("openid", "email")
    """The scopes that a login requests, including those that the KYC claim needs."""
    client_authentication: Literal["header", "body"] = "header"
    """How ``client_secret`` is sent to the token endpoint: ``client_secret_basic`` or ``client_secret_post`` by OpenID's names."""
    other_clients: tuple[str, ...] = ()
    """Client ids of the same provider, such as a mobile app's, that a bearer token for this audience may be issued to (its ``azp``)."""
    leeway_ms: int = Field(5_000, ge=0, le=60_000)
    """Tolerated difference between the provider's clock and this one."""
    keys_ttl_ms: Milliseconds = 3_600_000
    """How long the provider's published keys are used before they are fetched again."""
    refetch_after_ms: Milliseconds = 30_000
    """Minimum interval between fetches of the keys for tokens signed by an unknown key."""
    timeout_ms: Milliseconds = 5_000


class Kyc(Section):
    """The claim that says whether the customer's identity is verified."""

    claim: str = Field("kyc", min_length=1)
    verified: str | bool = "verified"
    """The value that means verified; anything else, or no claim, means not verified."""
    help_url: WebAddress | None = None
    """URL where customers can be verified; part of the refusal."""


class Internal(Section):
    """The back office's API: one named token for each person or service; the audit and the log record which was used."""

    token: ServiceToken | None = None
    """A single token for everybody, named ``operator``."""
    tokens: dict[TokenName, ServiceToken] = Field(default_factory=dict)
    notify: tuple[Annotated[str, AfterValidator(_mail_from)], ...] = ()
    """Mail addresses that are notified of each bulk action: people other than the tokens' holders."""

    @property
    def named(self) -> dict[str, SecretStr]:
        """Every token by its name."""
        return self.tokens if self.token is None else {"operator": self.token, **self.tokens}

    @model_validator(mode="after")
    def _check_tokens(self) -> Self:
        if not self.named:
            raise ValueError("give a token, or one for each person under [internal.tokens]")
        if self.token is not None and "operator" in self.tokens:
            raise ValueError('"operator" is the name of internal.token: give only one of the two')
        if len({token.get_secret_value() for token in self.named.values()}) < len(self.named):
            raise ValueError("two names share one token: give each its own, so that the audit can name its user")
        return self


class Keys(Section):
    """Limits of an account's keys."""

    per_account: int = Field(30, ge=1, le=1_000)
    unrestricted_trade_days: int = Field(0, ge=0, le=3_650)
    """Maximum lifetime in days of a new unrestricted key with ``trade``; 0: unlimited."""
    idle_days: int = Field(0, ge=0, le=3_650)
    """Days after which an unused key ends; 0: never."""


class Mail(Section):
    """Notices to the account's own address."""

    smtp: Annotated[SecretStr, AfterValidator(_smtp)]
    sender: Annotated[str, AfterValidator(_mail_from)] = Field(alias="from")
    timeout_ms: Milliseconds = 10_000
    """Time limit for each step of a delivery."""
    time_zone: Annotated[str, AfterValidator(_time_zone)] = "Asia/Jakarta"
    """The time zone of times in mails."""


class Webhooks(Section):
    """Notices to a service of the exchange, by Standard Webhooks."""

    url: WebAddress
    secret: Annotated[SecretStr, AfterValidator(_webhook_secret)]
    timeout_ms: Milliseconds = 10_000


class NotifiedUpstream(Webhooks):
    """A trading service that is notified when a key ends, so that it can cancel its open orders."""

    url: WebAddress = Field(alias="key_events")


UpstreamName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class Leaks(Section):
    """Reports of secrets that were found in public."""

    keys_url: WebAddress
    """URL of the reporter's public keys, e.g. https://api.github.com/meta/public_keys/secret_scanning."""
    keys_ttl_ms: Milliseconds = 3_600_000
    timeout_ms: Milliseconds = 5_000


class StepUp(Section):
    """Step-up authentication."""

    issuer_name: str = Field("API Management", min_length=1, max_length=64, pattern=r"^[^:]+$")
    """The name that an authenticator app shows."""
    first_factor_within_ms: Milliseconds = 600_000
    """How long after a login the first factor may be enrolled."""


class Pages(Section):
    """The pages for browsers."""

    site_name: str = Field("API Management", min_length=1, max_length=64)
    """The exchange's name: on every page, in mail, and where a device asks for a passkey."""
    logo: Annotated[PathField, AfterValidator(_logo)] | None = None
    """An SVG or PNG file, at most 64 KiB."""
    accent: str | None = Field(None, pattern=r"^#[0-9a-fA-F]{6}$")
    """The brand's colour; darkened or lightened where text would be hard to read."""
    help_url: WebAddress | None = None
    """The exchange's own article about API keys."""
    support_url: WebAddress | None = None
    """URL of the exchange's support."""
    time_zone: Annotated[str, AfterValidator(_time_zone)] = "Asia/Jakarta"
    """The time zone of times, until the browser's is known."""
    gateway_url: WebAddress | None = None
    """The gateway's URL for the signed example beside a new key; if absent, no example is shown."""
    idle_timeout_ms: int = Field(1_800_000, ge=60_000, le=86_400_000)
    """How long a session may be unused."""
    absolute_timeout_ms: int = Field(43_200_000, ge=60_000, le=604_800_000)
    """Maximum lifetime of a session after its login."""


class Docs(Section):
    """The guide for customers' developers, at ``/docs``."""

    gateway_config: PathField
    """The running gateway's file, from which routes, limits and dialects are documented; its secrets are not read."""


class AdminLimits(Section):
    """Bounds per process."""

    per_account: RateField = Rate(120, 60_000)
    per_ip_failures: RateField = Rate(60, 60_000)
    """Requests without a valid token from one address (IPv6: one /64) before 429."""
    max_connections: int = Field(4_000, ge=1, le=1_000_000)
    """Connections to each port."""
    max_connections_per_address: int = Field(200, ge=1, le=1_000_000)
    """Connections to each port from one address (IPv6: one /64), except trusted proxies."""
    max_body_bytes: int = Field(65_536, ge=4_096, le=1 << 20)
    request_timeout_ms: Milliseconds = 15_000
    """Time from the end of the header section to the answer; also the limit of a TLS handshake."""
    idle_timeout_ms: Milliseconds = 30_000


class AdminClientIp(Section):
    """How the client IP is determined, for the audit and the limits."""

    trusted_proxies: tuple[NetworkField, ...] = ()
    """Peers whose ``X-Forwarded-For`` is read from the right, up to the first address that is not one of these."""


def _syslog(value: str) -> str:
    url = urlsplit(value)
    try:
        usable = (url.scheme == "unix" and url.path.startswith("/")) or (
            url.scheme in ("udp", "tcp") and bool(url.hostname) and is_host(url.hostname or "") and url.port != 0
        )
    except ValueError:
        usable = False
    if not usable:
        raise ValueError('write where syslog listens as "unix:///dev/log", "udp://HOST:514" or "tcp://HOST:601"')
    return value


class AuditStream(Section):
    """Where the audit log is streamed to: a JSON line for each event, with the chain's hash."""

    file: PathField | None = None
    """File to append to; a restart continues after its last line. Use one file per service."""
    syslog: Annotated[str, AfterValidator(_syslog)] | None = None
    """``unix:///dev/log``, ``udp://HOST:514`` or ``tcp://HOST:601`` (RFC 5424)."""
    resume: PathField | None = None
    """File that stores the number of the last event sent to syslog."""
    interval_ms: int = Field(1_000, ge=100, le=60_000)

    @model_validator(mode="after")
    def _resumable(self) -> Self:
        if self.syslog is not None and self.resume is None:
            raise ValueError("syslog needs resume: a file that keeps the number of the last event sent")
        return self


class AdminSettings(Section):
    """The whole of ``admin.toml``."""

    listen: AdminListen = AdminListen()
    public_url: WebAddress
    """The URL at which browsers reach the public port, used for origin checks and links."""
    stores: Stores
    vault: Vault
    oidc: Oidc
    kyc: Kyc = Kyc()
    internal: Internal
    keys: Keys = Keys()
    mail: Mail | None = None
    webhooks: Webhooks | None = None
    upstreams: dict[UpstreamName, NotifiedUpstream] = Field(default_factory=dict)
    """By the names that gateways have for them."""
    leaks: Leaks | None = None
    step_up: StepUp = StepUp()
    pages: Pages = Pages()
    docs: Docs | None = None
    limits: AdminLimits = AdminLimits()
    client_ip: AdminClientIp = AdminClientIp()
    audit: AuditStream = AuditStream()
    telemetry: Telemetry = Telemetry()

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.internal.notify and self.mail is None:
            raise ValueError("internal.notify requires [mail], which sends these notices")
        if self.listen.public == self.listen.internal and self.listen.public.port:
            raise ValueError("listen.public and listen.internal must differ")
        return self


def load_settings(path: Path) -> AdminSettings:
    """:raises ConfigError: with every problem found"""
    return load(path, AdminSettings)
