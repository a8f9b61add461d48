"""Request models of the API, which validate bodies; ``/openapi.json`` is generated from them.

Shapes and types only. Rules over several members, or with messages of their own, are in ``lifecycle.policy``; their bounds are
repeated in the schema here from the same constants, so that the document is correct.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from admin.labels import MAX_LABEL
from admin.lifecycle.addresses import MAX_ADDRESSES
from admin.lifecycle.policy import MAX_EXPIRY_DAYS, KeyDraft
from admin.lifecycle.public_keys import MAX_PEM_CHARACTERS
from admin.stepup.service import Proof


class Body(BaseModel):
    """A request's body: unknown members refused, nothing coerced from another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    @field_validator("*")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        """Refuse NUL, which PostgreSQL cannot store in text."""
        if isinstance(value, str) and "\0" in value:
            raise PydanticCustomError("not_printable", "no NUL")
        return value


Rule = Callable[[dict[str, Any]], None]


def _stated(**schema: object) -> Rule:
    """A bound for the schema only: the policy checks it, because pydantic would refuse with its own code."""
    return lambda target: target.update(schema)


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
        """The methods that were answered."""
        given = {"totp": self.totp, "passkey": self.passkey, "recovery_code": self.recovery_code}
        return {method: answer for method, answer in given.items() if answer is not None}

    @property
    def proof(self) -> Proof:
        """The value for the service."""
        ((method, answer),) = self.answers.items()
        return Proof(self.challenge_id, method, answer)


class Proven(Body):
    """A body with a step-up proof, which some operations require."""

    step_up: Annotated[
        StepUpProof | None,
        Field(
            description="The answer to a challenge that POST /api/v1/step-up made for this very intent.",
            examples=[{"challenge_id": "chl_0123456789abcdefghijkl", "totp": "123456"}],
        ),
    ] = None

    @property
    def proof(self) -> Proof | None:
        """The value for the services."""
        return None if self.step_up is None else self.step_up.proof


_PEM = r"^\s*-----BEGIN PUBLIC KEY-----[\s\S]+-----END PUBLIC KEY-----\s*$"
_ACCESS_RULE: JsonDict = {
    "if": {"properties": {"ip_access": {"const": "whitelisted"}}},
    "then": {"required": ["ip_allowlist"], "properties": {"ip_allowlist": {"type": "array", "minItems": 1}}},
    "else": {"properties": {"ip_allowlist": {"maxItems": 0}}},
}
_ALGORITHM_RULE: JsonDict = {
    "if": {"required": ["algorithm"], "properties": {"algorithm": {"enum": ["ed25519", "rsa-sha256"]}}},
    "then": {"required": ["public_key"], "properties": {"public_key": {"type": "string"}}},
    "else": {"properties": {"public_key": {"type": "null"}}},
}


class KeyMembers(Body):
    """The members of a key."""

    model_config = ConfigDict(json_schema_extra={"allOf": [_ACCESS_RULE, _ALGORITHM_RULE]})

    label: Annotated[
        str,
        Field(
            description="Fixed for ever.", examples=["Grid bot"], json_schema_extra=_stated(minLength=1, maxLength=MAX_LABEL, pattern=r"\S")
        ),
    ]
    scopes: Annotated[
        list[Literal["read", "trade"]],
        Field(
            description="Neither includes the other.",
            examples=[["read"]],
            json_schema_extra=_stated(minItems=1, maxItems=2, uniqueItems=True),
        ),
    ]
    ip_access: Literal["whitelisted", "unrestricted"]
    ip_allowlist: Annotated[
        list[str] | None,
        Field(
            description="Public IPv4 or IPv6 addresses; none, or null, for unrestricted access.",
            examples=[["8.8.8.8"]],
            json_schema_extra=_stated(
                items={"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}, maxItems=MAX_ADDRESSES, uniqueItems=True
            ),
        ),
    ] = None
    algorithm: Literal["hmac-sha256", "ed25519", "rsa-sha256"] = "hmac-sha256"
    public_key: Annotated[
        str | None,
        Field(description="PEM; for ed25519 and rsa-sha256.", json_schema_extra=_stated(maxLength=MAX_PEM_CHARACTERS, pattern=_PEM)),
    ] = None
    expires_in_days: Annotated[
        int | None, Field(description="null: never.", json_schema_extra=_stated(minimum=1, maximum=MAX_EXPIRY_DAYS))
    ] = None

    @property
    def draft(self) -> KeyDraft:
        """The value for the policy."""
        members = {name: getattr(self, name) for name in KeyMembers.model_fields}
        return KeyDraft(**{**members, "ip_allowlist": self.ip_allowlist or ()})


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
    """The complete intent: the challenge is valid for nothing else."""

    intent: Annotated[AnyIntent, Field(discriminator="action")]


class KeyCreation(KeyMembers, Proven):
    """A key to create, with the answer to a challenge made for exactly these members."""


class FactorCreation(Proven):
    """A new authenticator app or passkey. A proof (intent ``add_factor``) is needed unless it is the first factor."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "My phone"}]})

    name: str | None = None


class TotpConfirmation(Body):
    code: Annotated[str, Field(max_length=16, examples=["123456"])]


class PasskeyRegistration(Body):
    """RegistrationResponseJSON, as the browser gives it."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, hide_input_in_errors=True)

    id: str
    type: Literal["public-key"]
    response: dict[str, Any]
