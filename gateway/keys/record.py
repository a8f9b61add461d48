"""The immutable record of one API key. Pure: no I/O, no clock."""

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address

from gateway.keys.secret import Secret


class Scope(StrEnum):
    """What a key may do. ``READ`` can change nothing; ``TRADE`` places and cancels orders. Neither includes the other."""

    READ = "read"
    TRADE = "trade"


class Algorithm(StrEnum):
    """How a key signs. The key's own algorithm decides, never the request."""

    HMAC_SHA256 = "hmac-sha256"
    ED25519 = "ed25519"
    RSA_SHA256 = "rsa-sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """One key, as the gate uses it. Immutable, like the key itself."""

    key_id: str
    account_id: str
    label: str
    scopes: frozenset[Scope]
    algorithm: Algorithm
    secret: Secret | None = field(repr=False)
    """The UTF-8 bytes of the secret as shown to its owner (``hmac-sha256``), else ``None``."""
    public_key: bytes | None = field(repr=False)
    """SubjectPublicKeyInfo in DER (``ed25519``, ``rsa-sha256``), else ``None``."""
    ip_allowlist: tuple[IPv4Address | IPv6Address, ...] | None
    """At most three public addresses; ``None`` is unrestricted."""
    created_ms: int
    expires_ms: int | None
    """Unix milliseconds from which the key is refused; ``None`` is never."""
    frozen: bool
    """Whether the account is frozen, or its KYC state is not (or no longer) ``verified``."""
    tier: str | None = None
    """The account's tier, which selects its limits; set by the back office. ``None``: no tier."""

    def __post_init__(self) -> None:
        """Refuse a record that could not have been issued.

        :raises ValueError: no scope, no address in an allow list, or not exactly the material that the algorithm needs
        """
        if not self.scopes or self.ip_allowlist == ():
            raise ValueError("a key without any scope, or with an empty allow list")
        symmetric = self.algorithm is Algorithm.HMAC_SHA256
        if (self.secret is not None) is not symmetric or (self.public_key is not None) is symmetric:
            raise ValueError(f"{self.algorithm} with the wrong kind of key material")
