"""Response models of the API; ``/openapi.json`` is generated from them."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from admin.identity.accounts import Account
from admin.lifecycle.service import KeyView
from admin.stepup.factors import Factor
from admin.stepup.service import Offer
from gateway.runtime.moments import rfc3339


class Answer(BaseModel):
    """An answer's body."""

    model_config = ConfigDict(frozen=True)


Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-11-24T21:05:57.123Z"])]


class Challenge(Answer):
    challenge_id: str
    methods: list[Literal["totp", "passkey", "recovery_code"]]
    passkey: dict[str, Any] | None = Field(description="PublicKeyCredentialRequestOptionsJSON, when the account has a passkey.")
    expires_at: Time

    @classmethod
    def of(cls, offer: Offer) -> Self:
        return cls(
            challenge_id=offer.challenge.id,
            methods=list(offer.methods),
            passkey=None if offer.passkey is None else dict(offer.passkey),
            expires_at=rfc3339(offer.challenge.expires_ms),
        )


class Key(Answer):
    id: str = Field(examples=["gbk_0123456789abcdefghijklmnopqr"])
    label: str
    scopes: list[Literal["read", "trade"]]
    ip_access: Literal["whitelisted", "unrestricted"]
    ip_allowlist: list[str]
    algorithm: Literal["hmac-sha256", "ed25519", "rsa-sha256"]
    status: Literal["active", "expired", "suspended", "revoked", "idle"] = Field(
        description=(
            "suspended: the account is frozen, or its identity is not verified. revoked: by the exchange, or because its secret leaked. "
            "idle: ended because it was unused."
        )
    )
    revoked_reason: str | None
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None
    last_used_ip: str | None

    @classmethod
    def of(cls, view: KeyView) -> Self:
        key, used = view.key, view.last_use
        return cls(
            id=key.key_id,
            label=key.label,
            scopes=sorted(scope.value for scope in key.scopes),
            ip_access="unrestricted" if key.ip_allowlist is None else "whitelisted",
            ip_allowlist=[str(address) for address in key.ip_allowlist or ()],
            algorithm=key.algorithm.value,
            status=view.status,
            revoked_reason=key.revoked_reason,
            created_at=rfc3339(key.created_ms),
            expires_at=None if key.expires_ms is None else rfc3339(key.expires_ms),
            last_used_at=None if used is None else rfc3339(used.at_ms),
            last_used_ip=None if used is None else used.client_ip,
        )


class KeyList(Answer):
    keys: list[Key]


class KeyCreated(Answer):
    key: Key
    secret: str | None = Field(description="Shown this once. null for ed25519 and rsa-sha256.", repr=False)


class FactorView(Answer):
    id: str
    kind: Literal["totp", "passkey"]
    name: str
    created_at: Time
    last_used_at: Time | None

    @classmethod
    def of(cls, factor: Factor) -> Self:
        return cls(
            id=factor.id,
            kind=factor.kind.value,
            name=factor.name,
            created_at=rfc3339(factor.created_ms),
            last_used_at=None if factor.last_used_ms is None else rfc3339(factor.last_used_ms),
        )


class AccountState(Answer):
    id: str
    email: str | None
    kyc: Literal["verified", "unverified", "revoked"]
    frozen: bool


class AccountView(AccountState):
    factors: list[FactorView]
    recovery_codes_left: int | None = Field(description="null: none were ever given.")
    key_limit: int

    @classmethod
    def of(cls, account: Account, factors: list[Factor], codes_left: int | None, key_limit: int) -> Self:
        return cls(
            id=account.id,
            email=account.email,
            kyc=account.kyc.value,
            frozen=account.frozen,
            factors=[FactorView.of(factor) for factor in factors],
            recovery_codes_left=codes_left,
            key_limit=key_limit,
        )


class TotpStarted(Answer):
    id: str
    secret: str = Field(description="Base32, shown this once.", repr=False)
    otpauth_uri: str = Field(description="What an authenticator app scans.", repr=False)


class PasskeyOptions(Answer):
    """PublicKeyCredentialCreationOptionsJSON."""

    model_config = ConfigDict(frozen=True, extra="allow")


class PasskeyAdded(Answer):
    factor: FactorView
    recovery_codes: list[str] | None = Field(description="For the first factor; shown this once.", repr=False)


class RecoveryCodes(Answer):
    recovery_codes: list[str] | None = Field(description="Shown this once; null when the account has some already.", repr=False)


class AuditEvent(Answer):
    id: int
    at: Time
    event: str
    actor: Literal["account", "operator", "provider", "system"]
    key_id: str | None
    client_ip: str | None
    detail: dict[str, Any]


class AuditPage(Answer):
    events: list[AuditEvent] = Field(description="Latest first.")
    next_before: int | None = Field(description="For the next page; null on the last one.")


class FieldProblem(Answer):
    field: str = Field(description="The member, e.g. ip_allowlist[1]; within an intent, the name it has in the creation.")
    code: str
    message: str


class Problem(BaseModel):
    """RFC 9457. Some codes have further members."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str
    errors: list[FieldProblem] | None = None
