"""The endpoint table of the account holder's API: paths, parameters, and possible refusals."""

from admin.api import bodies
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
_IMMUTABLE = "A key cannot be changed"


def operations(api: AccountApi) -> tuple[Operation[AccountHolder], ...]:
    """Every endpoint."""
    return (
        Operation("GET", "/api/v1/account", "getAccount", "The account, its factors, its limits", api.account),
        Operation("GET", "/api/v1/audit", "listAudit", "The account's own events, latest first", api.audit, query=AuditQuery),
        Operation(
            "POST", "/api/v1/step-up", "beginStepUp", "A challenge for exactly one intent; one that would be refused is refused here",
            api.step_up, body=bodies.StepUpRequest, status=201,
            refusals=(NotFound, FactorRequired, LastFactor, FactorLimitReached, *_CREATION),
        ),
        *_factors(api),
        *_keys(api),
    )  # fmt: skip


def _factors(api: AccountApi) -> tuple[Operation[AccountHolder], ...]:
    return (
        Operation(
            "POST", "/api/v1/factors/totp", "beginTotp", "Begin to enrol an authenticator app",
            api.begin_totp, body=bodies.FactorCreation, status=201, refusals=_FIRST_OR_PROVEN,
        ),
        Operation(
            "POST", "/api/v1/factors/totp/{id}/confirm", "confirmTotp",
            "Confirm the app by its first code; the first factor brings recovery codes",
            api.confirm_totp, id_pattern=_FACTOR_ID, body=bodies.TotpConfirmation, refusals=(NotFound, StepUpFailed),
        ),
        Operation(
            "POST", "/api/v1/factors/passkeys/options", "beginPasskey", "Begin to enrol a passkey: what navigator.credentials.create takes",
            api.begin_passkey, body=bodies.FactorCreation, refusals=_FIRST_OR_PROVEN,
        ),
        Operation(
            "POST", "/api/v1/factors/passkeys", "addPasskey",
            "Add the passkey that the browser made; the first factor brings recovery codes",
            api.add_passkey, body=bodies.PasskeyRegistration, status=201, refusals=(NotFound, StepUpFailed),
        ),
        Operation(
            "POST", "/api/v1/recovery-codes", "renewRecoveryCodes", "Ten new recovery codes; the old ones are void",
            api.renew_recovery_codes, body=bodies.Proven, status=201, refusals=_PROOF,
        ),
        Operation(
            "DELETE", "/api/v1/factors/{id}", "removeFactor", "Remove a factor",
            api.remove_factor, id_pattern=_FACTOR_ID, body=bodies.Proven, status=204, refusals=(NotFound, LastFactor, *_PROOF),
        ),
    )  # fmt: skip


def _keys(api: AccountApi) -> tuple[Operation[AccountHolder], ...]:
    one_key = "/api/v1/keys/{id}"
    return (
        Operation("GET", "/api/v1/keys", "listKeys", "Every key of the account, oldest first", api.list_keys),
        Operation(
            "POST", "/api/v1/keys", "createKey", "Create a key; the secret is in this answer and nowhere else",
            api.create_key, body=bodies.KeyCreation, status=201, refusals=(*_PROOF, *_CREATION),
        ),
        Operation("GET", one_key, "getKey", "One key", api.show_key, refusals=(NotFound,)),
        Operation(
            "DELETE", one_key, "deleteKey", "Delete a key; no gateway lets it pass afterwards",
            api.delete_key, body=bodies.Proven, status=204, refusals=(NotFound, *_PROOF),
        ),
        # With a clearer answer than a plain 405.
        Operation("PUT", one_key, "putKey", _IMMUTABLE, api.refuse_change, status=405, refusals=(ImmutableKey, NotFound)),
        Operation("PATCH", one_key, "patchKey", _IMMUTABLE, api.refuse_change, status=405, refusals=(ImmutableKey, NotFound)),
    )  # fmt: skip
