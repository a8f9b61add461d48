"""Bodies of the API, in and out: the models that validate are the ones that ``/openapi.json`` is generated from.

Shapes and types only. Rules that need more than one member, or words of their own, are in ``lifecycle.policy``; their bounds are
repeated in the schema here from the same constants.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from admin.audit import Recorded
from admin.identity.accounts import Account
from admin.lifecycle.addresses import MAX_ADDRESSES
from admin.lifecycle.policy import MAX_EXPIRY_DAYS, MAX_LABEL, KeyDraft
from admin.lifecycle.public_keys import MAX_PEM_CHARACTERS
from admin.lifecycle.service import KeyView
from admin.stepup.factors import Factor
from admin.stepup.service import Offer, Proof

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Body(BaseModel):
    """A request's body: unknown members refused, nothing coerced from another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class Answer(BaseModel):
    """An answer's body."""

    model_config = ConfigDict(frozen=True)


def rfc3339(milliseconds: int) -> str:
    """Unix milliseconds as RFC 3339 in UTC."""
    return (_EPOCH + timedelta(milliseconds=milliseconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-11-24T21:05:57.123Z"])]
Rule = Callable[[dict[str, Any]], None]


def _told(**schema: object) -> Rule:
    """A bound that the policy checks, told in the schema: pydantic would refuse with a code of its own."""
    return lambda target: target.update(schema)


# -- step-up -----------------------------------------------------------------------------------------------------------


_METHODS = {"totp": "string", "passkey": "object", "recovery_code": "string"}
_ONE_METHOD: JsonDict = {
    "oneOf": [
        {"required": [method], "properties": {other: {"type": kind if other == method else "null"} for other, kind in _METHODS.items()}}
        for method in _METHODS
    ]
}


class StepUpProof(Body):
    """The answer to a challenge: exactly one of the methods that it offered."""

    model_config = ConfigDict(json_schema_extra=_ONE_METHOD)

    challenge_id: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9_-]*$")]
    totp: Annotated[str | None, Field(max_length=16, description="What the authenticator app shows now: six digits.")] = None
    passkey: Annotated[dict[str, Any] | None, Field(description="AuthenticationResponseJSON, as the browser gives it.")] = None
    recovery_code: Annotated[str | None, Field(max_length=32, description="Not for creating a key.")] = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.answers) != 1:
            raise ValueError("Send exactly one of totp, passkey, recovery_code.")
        return self

    @property
    def answers(self) -> Mapping[str, object]:
        """The methods that are answered."""
        given = {"totp": self.totp, "passkey": self.passkey, "recovery_code": self.recovery_code}
        return {method: answer for method, answer in given.items() if answer is not None}

    @property
    def proof(self) -> Proof:
        """As the service takes it."""
        ((method, answer),) = self.answers.items()
        return Proof(self.challenge_id, method, answer)


class Proven(Body):
    """A body that may carry a proof, and must where one is needed."""

    step_up: StepUpProof | None = None

    @property
    def proof(self) -> Proof | None:
        """As the services take it."""
        return None if self.step_up is None else self.step_up.proof


_PEM = r"^\s*-----BEGIN PUBLIC KEY-----[\s\S]+-----END PUBLIC KEY-----\s*$"
_ACCESS_RULE: JsonDict = {
    "if": {"properties": {"ip_access": {"const": "whitelisted"}}},
    "then": {"required": ["ip_allowlist"], "properties": {"ip_allowlist": {"minItems": 1}}},
    "else": {"properties": {"ip_allowlist": {"maxItems": 0}}},
}
_ALGORITHM_RULE: JsonDict = {
    "if": {"required": ["algorithm"], "properties": {"algorithm": {"enum": ["ed25519", "rsa-sha256"]}}},
    "then": {"required": ["public_key"], "properties": {"public_key": {"type": "string"}}},
    "else": {"properties": {"public_key": {"type": "null"}}},
}


class KeyMembers(Body):
    """What a key is made of."""

    model_config = ConfigDict(json_schema_extra={"allOf": [_ACCESS_RULE, _ALGORITHM_RULE]})

    label: Annotated[str, Field(description="Fixed for ever.", json_schema_extra=_told(minLength=1, maxLength=MAX_LABEL, pattern=r"\S"))]
    scopes: Annotated[
        list[Literal["read", "trade"]],
        Field(description="Neither includes the other.", json_schema_extra=_told(minItems=1, maxItems=2, uniqueItems=True)),
    ]
    ip_access: Literal["whitelisted", "unrestricted"]
    ip_allowlist: Annotated[
        list[str],
        Field(
            description="Public IPv4 or IPv6 addresses; none for unrestricted access.",
            examples=[["8.8.8.8"]],
            json_schema_extra=_told(
                items={"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}, maxItems=MAX_ADDRESSES, uniqueItems=True
            ),
        ),
    ] = []
    algorithm: Literal["hmac-sha256", "ed25519", "rsa-sha256"] = "hmac-sha256"
    public_key: Annotated[
        str | None,
        Field(description="PEM; for ed25519 and rsa-sha256.", json_schema_extra=_told(maxLength=MAX_PEM_CHARACTERS, pattern=_PEM)),
    ] = None
    expires_in_days: Annotated[
        int | None, Field(description="null: never.", json_schema_extra=_told(minimum=1, maximum=MAX_EXPIRY_DAYS))
    ] = None

    @property
    def draft(self) -> KeyDraft:
        """As the policy takes it."""
        return KeyDraft(
            label=self.label,
            scopes=self.scopes,
            ip_access=self.ip_access,
            ip_allowlist=self.ip_allowlist,
            algorithm=self.algorithm,
            public_key=self.public_key,
            expires_in_days=self.expires_in_days,
        )


class CreateKeyIntent(KeyMembers):
    """Every member of the creation that will follow."""

    action: Literal["create_key"]


class DeleteKeyIntent(Body):
    action: Literal["delete_key"]
    key_id: Annotated[str, Field(max_length=64)]


class AddFactorIntent(Body):
    action: Literal["add_factor"]
    kind: Literal["totp", "passkey"]


class RemoveFactorIntent(Body):
    action: Literal["remove_factor"]
    factor_id: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9_-]*$")]


class RenewRecoveryCodesIntent(Body):
    action: Literal["renew_recovery_codes"]


AnyIntent = CreateKeyIntent | DeleteKeyIntent | AddFactorIntent | RemoveFactorIntent | RenewRecoveryCodesIntent


class StepUpRequest(Body):
    """What will be done with the proof, completely: the challenge is good for nothing else."""

    intent: Annotated[AnyIntent, Field(discriminator="action")]


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


# -- keys --------------------------------------------------------------------------------------------------------------


class KeyCreation(KeyMembers, Proven):
    """A key to create, with the answer to a challenge made for exactly these members."""


class Key(Answer):
    id: str = Field(examples=["gbk_0123456789abcdefghijklmnopqr"])
    label: str
    scopes: list[Literal["read", "trade"]]
    ip_access: Literal["whitelisted", "unrestricted"]
    ip_allowlist: list[str]
    algorithm: Literal["hmac-sha256", "ed25519", "rsa-sha256"]
    status: Literal["active", "expired", "suspended", "revoked"] = Field(
        description="suspended: the account is frozen, or its identity is not verified. revoked: by an operator."
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


# -- account and factors -----------------------------------------------------------------------------------------------


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


class AccountView(Answer):
    id: str
    email: str | None
    kyc: Literal["verified", "unverified", "revoked"]
    frozen: bool
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


class TotpCreation(Proven):
    """A new authenticator app. A proof (intent ``add_factor``) is needed unless it is the first factor."""

    name: str | None = None


class TotpStarted(Answer):
    id: str
    secret: str = Field(description="Base32, shown this once.", repr=False)
    otpauth_uri: str = Field(description="What an authenticator app scans.", repr=False)


class TotpConfirmation(Body):
    code: Annotated[str, Field(max_length=16)]


class PasskeyCreation(Proven):
    """A new passkey. A proof (intent ``add_factor``) is needed unless it is the first factor."""

    name: str | None = None


class PasskeyOptions(Answer):
    """PublicKeyCredentialCreationOptionsJSON."""

    model_config = ConfigDict(frozen=True, extra="allow")


class PasskeyRegistration(Body):
    """RegistrationResponseJSON, as the browser gives it."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, hide_input_in_errors=True)

    id: str
    type: Literal["public-key"]
    response: dict[str, Any]


class PasskeyAdded(Answer):
    factor: FactorView
    recovery_codes: list[str] | None = Field(description="For the first factor; shown this once.", repr=False)


class RecoveryCodes(Answer):
    recovery_codes: list[str] | None = Field(description="Shown this once; null when the account has some already.", repr=False)


# -- audit -------------------------------------------------------------------------------------------------------------


class AuditEvent(Answer):
    id: int
    at: Time
    event: str
    actor: Literal["account", "operator", "provider"]
    key_id: str | None
    client_ip: str | None
    detail: dict[str, Any]

    @classmethod
    def of(cls, event: Recorded) -> Self:
        return cls.model_validate(
            {**event._asdict(), "id": event.seq, "at": rfc3339(event.at_ms), "detail": json.loads(event.detail)}, extra="ignore"
        )


class AuditPage(Answer):
    events: list[AuditEvent] = Field(description="Latest first.")
    next_before: int | None = Field(description="For the next page; null on the last one.")


# -- refusals ----------------------------------------------------------------------------------------------------------


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
