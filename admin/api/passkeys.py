"""The endpoints that add a passkey. Bodies are WebAuthn's own JSON (Level 3 §5.1), as the browser makes and takes it."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from admin.api import models
from admin.api.handlers import Who
from admin.api.models import Answer, Body, FactorView, Proven, RecoveryCodes
from admin.api.operation import Call, Operation
from admin.errors import FactorLimitReached, LoginTooOld, NotFound, StepUpFailed, StepUpRequired
from admin.stepup.passkey_factors import PasskeyEnrolment


class PasskeyCreation(Proven):
    """A new passkey. A proof (intent ``add_factor``) is needed unless it is the first factor."""

    name: str | None = None


class PasskeyOptions(Answer):
    """PublicKeyCredentialCreationOptionsJSON: hand it whole to ``navigator.credentials.create``."""

    model_config = ConfigDict(frozen=True, extra="allow")

    challenge: str
    rp: dict[str, Any]
    user: dict[str, Any]


class PasskeyRegistration(Body):
    """RegistrationResponseJSON. Members that the browser adds and nothing here needs are let be."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, hide_input_in_errors=True)

    id: Annotated[str, Field(max_length=2048)]
    raw_id: Annotated[str, Field(alias="rawId", max_length=2048)]
    type: Literal["public-key"]
    response: dict[str, Any]
    name: str | None = Field(None, description="Instead of the one given at the beginning.")

    @property
    def credential(self) -> dict[str, Any]:
        """What the ceremony checks."""
        return {"id": self.id, "rawId": self.raw_id, "type": self.type, "response": self.response}


class PasskeyAdded(RecoveryCodes):
    """A passkey that counts from now on."""

    factor: FactorView


class PasskeyApi:
    """Handlers, and the table of them."""

    def __init__(self, enrolment: PasskeyEnrolment) -> None:
        self._enrolment = enrolment

    async def begin(self, who: Who, call: Call) -> PasskeyOptions:
        options = await self._enrolment.begin(who.caller, call.body.name, call.body.proof, call.occasion)
        return PasskeyOptions.model_validate(options)

    async def finish(self, who: Who, call: Call) -> PasskeyAdded:
        added = await self._enrolment.finish(who.caller, call.body.credential, call.body.name, call.occasion)
        return PasskeyAdded(factor=models.FactorView.of(added.factor), recovery_codes=list(added.recovery_codes) or None)

    def operations(self) -> tuple[Operation[Who], ...]:
        """Both steps."""
        return (
            Operation(
                method="POST",
                path="/api/v1/factors/passkeys/options",
                name="beginPasskey",
                summary="Begin to enrol a passkey: options for navigator.credentials.create",
                run=self.begin,
                body=PasskeyCreation,
                body_required=False,
                answer=PasskeyOptions,
                refusals=(LoginTooOld, StepUpRequired, StepUpFailed, FactorLimitReached),
            ),
            Operation(
                method="POST",
                path="/api/v1/factors/passkeys",
                name="finishPasskey",
                summary="Enrol the passkey that the browser made; the first factor brings recovery codes",
                run=self.finish,
                status=201,
                body=PasskeyRegistration,
                answer=PasskeyAdded,
                refusals=(NotFound, StepUpFailed),
            ),
        )
