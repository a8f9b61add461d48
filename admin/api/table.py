"""The endpoint table of the account holder's API: paths, parameters, and possible refusals."""

from admin.api import answers, bodies
from admin.api.handlers import AccountApi, AccountHolder, AuditQuery
from admin.api.operation import Operation
from admin.errors import (
    AccountIsFrozen,
    FactorLimitReached,
    FactorRequired,
    ImmutableKey,
    KeyLimitReached,
    KycRequired,
    LastFactor,
    LoginTooOld,
    NotFound,
    StepUpFailed,
    StepUpRequired,
)

_PROOF = (FactorRequired, StepUpRequired, StepUpFailed)
_CREATION = (KycRequired, AccountIsFrozen, KeyLimitReached)
_FIRST_OR_PROVEN = (LoginTooOld, StepUpRequired, StepUpFailed, FactorLimitReached)
_FACTOR_ID = r"fac_[A-Za-z0-9_-]{1,60}"


def operations(api: AccountApi) -> tuple[Operation[AccountHolder], ...]:
    """Every endpoint."""
    return (*_account(api), *_factors(api), *_keys(api), *_refused_changes(api))


def _account(api: AccountApi) -> tuple[Operation[AccountHolder], ...]:
    return (
        Operation(
            method="GET",
            path="/api/v1/account",
            name="getAccount",
            summary="The account, its factors, its limits",
            run=api.account,
            answer=answers.AccountView,
        ),
        Operation(
            method="POST",
            path="/api/v1/step-up",
            name="beginStepUp",
            summary="A challenge for exactly one intent; one that would be refused is refused here",
            run=api.step_up,
            status=201,
            body=bodies.StepUpRequest,
            answer=answers.Challenge,
            refusals=(NotFound, FactorRequired, LastFactor, FactorLimitReached, *_CREATION),
        ),
        Operation(
            method="GET",
            path="/api/v1/audit",
            name="listAudit",
            summary="The account's own events, latest first",
            run=api.audit,
            query=AuditQuery,
            answer=answers.AuditPage,
        ),
    )


def _factors(api: AccountApi) -> tuple[Operation[AccountHolder], ...]:
    return (
        Operation(
            method="POST",
            path="/api/v1/factors/totp",
            name="beginTotp",
            summary="Begin to enrol an authenticator app",
            run=api.begin_totp,
            status=201,
            body=bodies.TotpCreation,
            body_required=False,
            answer=answers.TotpStarted,
            refusals=_FIRST_OR_PROVEN,
        ),
        Operation(
            method="POST",
            path="/api/v1/factors/totp/{id}/confirm",
            id_pattern=_FACTOR_ID,
            name="confirmTotp",
            summary="Confirm the app by its first code; the first factor brings recovery codes",
            run=api.confirm_totp,
            body=bodies.TotpConfirmation,
            answer=answers.RecoveryCodes,
            refusals=(NotFound, StepUpFailed),
        ),
        Operation(
            method="POST",
            path="/api/v1/factors/passkeys/options",
            name="beginPasskey",
            summary="Begin to enrol a passkey: what navigator.credentials.create takes",
            run=api.begin_passkey,
            body=bodies.PasskeyCreation,
            body_required=False,
            answer=answers.PasskeyOptions,
            refusals=_FIRST_OR_PROVEN,
        ),
        Operation(
            method="POST",
            path="/api/v1/factors/passkeys",
            name="addPasskey",
            summary="Add the passkey that the browser made; the first factor brings recovery codes",
            run=api.add_passkey,
            status=201,
            body=bodies.PasskeyRegistration,
            answer=answers.PasskeyAdded,
            refusals=(NotFound, StepUpFailed),
        ),
        Operation(
            method="POST",
            path="/api/v1/recovery-codes",
            name="renewRecoveryCodes",
            summary="Ten new recovery codes; the old ones are void",
            run=api.renew_recovery_codes,
            status=201,
            body=bodies.Proven,
            body_required=False,
            answer=answers.RecoveryCodes,
            refusals=_PROOF,
        ),
        Operation(
            method="DELETE",
            path="/api/v1/factors/{id}",
            id_pattern=_FACTOR_ID,
            name="removeFactor",
            summary="Remove a factor",
            run=api.remove_factor,
            status=204,
            body=bodies.Proven,
            body_required=False,
            refusals=(NotFound, LastFactor, *_PROOF),
        ),
    )


def _keys(api: AccountApi) -> tuple[Operation[AccountHolder], ...]:
    return (
        Operation(
            method="GET",
            path="/api/v1/keys",
            name="listKeys",
            summary="Every key of the account, oldest first",
            run=api.list_keys,
            answer=answers.KeyList,
        ),
        Operation(
            method="POST",
            path="/api/v1/keys",
            name="createKey",
            summary="Create a key; the secret is in this answer and nowhere else",
            run=api.create_key,
            status=201,
            body=bodies.KeyCreation,
            answer=answers.KeyCreated,
            refusals=(*_PROOF, *_CREATION),
        ),
        Operation(
            method="GET",
            path="/api/v1/keys/{id}",
            name="getKey",
            summary="One key",
            run=api.show_key,
            answer=answers.Key,
            refusals=(NotFound,),
        ),
        Operation(
            method="DELETE",
            path="/api/v1/keys/{id}",
            name="deleteKey",
            summary="Delete a key; no gateway lets it pass afterwards",
            run=api.delete_key,
            status=204,
            body=bodies.Proven,
            body_required=False,
            refusals=(NotFound, *_PROOF),
        ),
    )


def _refused_changes(api: AccountApi) -> tuple[Operation[AccountHolder], ...]:
    """Changes that keys do not support, with a clearer answer than a plain 405."""
    return tuple(
        Operation(
            method=method,
            path="/api/v1/keys/{id}",
            name=f"{method.lower()}Key",
            summary="A key cannot be changed",
            run=api.refuse_change,
            status=405,
            refusals=(ImmutableKey, NotFound),
        )
        for method in ("PUT", "PATCH")
    )
