"""The outcomes of an admission decision: admitted, admitted once a signature is claimed, or a key that must be fetched first."""

from gateway.admission.principal import Principal
from gateway.admission.routes import Route
from gateway.config.values import Rate
from gateway.errors import GerbangError, Refusal
from gateway.http1.message import Identity


class KeyNeeded(GerbangError):
    """The key or, with ``rate``, the state of a limit is not in process memory: await ``Gate.resolve``, then admit again."""

    def __init__(self, key_id: str, *, weight: int = 0, rate: Rate | None = None, otherwise: Refusal | None = None) -> None:
        super().__init__("the key is not in memory")
        self.otherwise = otherwise
        """The request's refusal if the key cannot be fetched: it is needed only to attribute that refusal to its owner."""
        self.key_id = key_id
        """The key id, or the name of the limit's ledger."""
        self.weight = weight
        self.rate = rate


class Claim:
    """A claim to be made at the replay guard."""

    __slots__ = ("advice", "key_id", "outage", "shared", "signature", "ttl_ms")

    def __init__(self, key_id: str, signature: bytes, ttl_ms: int, *, outage: str, shared: bool = False, advice: str = "") -> None:
        self.key_id = key_id
        self.signature = signature
        """The signature, or the signed bytes where the same bytes can have several signatures."""
        self.ttl_ms = ttl_ms
        """How long from now the same request could pass every other check, in milliseconds."""
        self.outage = outage
        """``deny`` or ``allow``: what happens to the request while the guard is unavailable."""
        self.shared = shared
        """Whether reads with the same signature may pass, too."""
        self.advice = advice
        """For the client, appended to the refusal of a replay."""


class Admitted:
    """An admitted request, which may be forwarded once :attr:`replay` has been claimed."""

    __slots__ = ("answer_headers", "client_ip", "expires_ms", "identity", "principal", "replay", "route", "secure", "weighed")

    def __init__(  # noqa: PLR0917  # in the order of its story, by position, where it is made
        self, route: Route, identity: Identity | None, client_ip: str, secure: bool | None = None, answer_headers: bytes = b"",
        replay: Claim | None = None, expires_ms: int | None = None, principal: Principal | None = None, weighed: bool = False,
    ) -> None:  # fmt: skip
        self.route = route
        self.identity = identity
        """``None`` on a public route."""
        self.client_ip = client_ip
        """In canonical text; ``""`` when it could not be determined (then no key with an allowlist comes this far)."""
        self.secure = secure
        """Whether the client used TLS, per a trusted proxy; ``None``: per the connection itself."""
        self.answer_headers = answer_headers
        """Rendered ``RateLimit-*`` field lines for the answer."""
        self.replay = replay
        self.expires_ms = expires_ms
        """When the key expires, in Unix milliseconds: a tunnel must not outlive it."""
        self.principal = principal
        self.weighed = weighed
        """Whether the answer reports weight and orders as Binance's clients expect."""
