"""The account holder's endpoints: each asks one service and shapes its answer. No rules."""

from typing import Annotated, NamedTuple, cast

from pydantic import Field

from admin import audit
from admin.api import models
from admin.api.models import Body
from admin.api.operation import Call, Operation
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
from admin.identity import accounts
from admin.identity.accounts import Account
from admin.identity.caller import Caller
from admin.lifecycle.service import REFUSED_CREATIONS, KeyService
from admin.stepup import intent
from admin.stepup.enrolment import Enrolment
from admin.stepup.intent import Intent
from admin.stepup.passkey_factors import PasskeyEnrolment
from admin.stepup.service import StepUp
from admin.stores import Stores
from gateway.keys.postgres import Connection


class Who(NamedTuple):
    """The account holder who asks."""

    caller: Caller
    account: Account


class AuditQuery(Body):
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    before: Annotated[int | None, Field(ge=1, le=2**62, description="Only events before this id.")] = None


class AccountApi:
    """Handlers, and the table of them."""

    def __init__(self, stores: Stores, keys: KeyService, enrolment: Enrolment, passkeys: PasskeyEnrolment, step_up: StepUp) -> None:
        self._stores = stores
        self._keys = keys
        self._enrolment = enrolment
        self._passkeys = passkeys
        self._step_up = step_up

    async def account(self, who: Who, _call: Call) -> models.AccountView:
        factors, codes_left = await self._enrolment.factors(who.account.id)
        return models.AccountView.of(who.account, factors, codes_left, self._keys.key_limit)

    async def begin_totp(self, who: Who, call: Call) -> models.TotpStarted:
        started = await self._enrolment.begin_totp(who.caller, call.body.name, call.body.proof, call.occasion)
        return models.TotpStarted(id=started.id, secret=started.secret.reveal().decode(), otpauth_uri=started.otpauth_uri.reveal().decode())

    async def confirm_totp(self, who: Who, call: Call) -> models.RecoveryCodes:
        codes = await self._enrolment.confirm_totp(who.caller, call.path["id"], call.body.code, call.occasion)
        return models.RecoveryCodes(recovery_codes=list(codes) or None)

    async def begin_passkey(self, who: Who, call: Call) -> models.PasskeyOptions:
        options = await self._passkeys.begin(who.caller, call.body.name, call.body.proof, call.occasion)
        return models.PasskeyOptions.model_validate(options)

    async def add_passkey(self, who: Who, call: Call) -> models.PasskeyAdded:
        response = call.body.model_dump()
        added = await self._passkeys.finish(who.caller, response, None, call.occasion)
        return models.PasskeyAdded(factor=models.FactorView.of(added.factor), recovery_codes=list(added.recovery_codes) or None)

    async def remove_factor(self, who: Who, call: Call) -> None:
        await self._enrolment.remove(who.caller, call.path["id"], call.body.proof, call.occasion)

    async def renew_recovery_codes(self, who: Who, call: Call) -> models.RecoveryCodes:
        codes = await self._enrolment.renew_recovery_codes(who.caller, call.body.proof, call.occasion)
        return models.RecoveryCodes(recovery_codes=list(codes))

    async def step_up(self, who: Who, call: Call) -> models.Challenge:
        try:
            async with self._stores.transaction() as connection:
                account = await accounts.lock(connection, who.caller.account_id)
                allowed = await self._allowed(connection, account, who.caller, call.body.intent)
                offer = await self._step_up.begin(connection, account, who.caller, allowed, call.occasion.now_ms)
        except REFUSED_CREATIONS as refusal:
            if isinstance(call.body.intent, models.CreateKeyIntent):
                await self._keys.note_refusal(who.caller, refusal, call.occasion)
            raise
        return models.Challenge.of(offer)

    async def _allowed(self, connection: Connection, account: Account, caller: Caller, wanted: models.AnyIntent) -> Intent:
        """The intent, if it would not be refused were it proven: no code is spent on what cannot be."""
        match wanted:
            case models.CreateKeyIntent():
                return await self._keys.check_creation(connection, account, caller, wanted.draft)
            case models.DeleteKeyIntent():
                return await self._keys.check_deletion(connection, caller, wanted.key_id)
            case models.AddFactorIntent():
                about_factors = intent.add_factor(wanted.kind)
            case models.RemoveFactorIntent():
                about_factors = intent.remove_factor(wanted.factor_id)
            case models.RenewRecoveryCodesIntent():
                about_factors = intent.renew_recovery_codes()
        await self._enrolment.check(connection, account, about_factors)
        return about_factors

    async def create_key(self, who: Who, call: Call) -> models.KeyCreated:
        created = await self._keys.create(who.caller, call.body.draft, call.body.proof, call.occasion)
        secret = None if created.secret is None else created.secret.reveal().decode()
        return models.KeyCreated(key=models.Key.of(created.view), secret=secret)

    async def list_keys(self, who: Who, call: Call) -> models.KeyList:
        views = await self._keys.list_keys(who.caller, call.occasion.now_ms)
        return models.KeyList(keys=[models.Key.of(view) for view in views])

    async def show_key(self, who: Who, call: Call) -> models.Key:
        return models.Key.of(await self._keys.show(who.caller, call.path["id"], call.occasion.now_ms))

    async def delete_key(self, who: Who, call: Call) -> None:
        await self._keys.delete(who.caller, call.path["id"], call.body.proof, call.occasion)

    async def refuse_change(self, _who: Who, _call: Call) -> None:
        raise ImmutableKey("Nothing about a key can be edited. Delete it and create another.", headers=((b"Allow", b"GET, HEAD, DELETE"),))

    async def audit(self, who: Who, call: Call) -> models.AuditPage:
        query = cast("AuditQuery", call.query)
        async with self._stores.transaction() as connection:
            events = await audit.list_for_account(connection, who.account.id, limit=query.limit, before_seq=query.before)
        last = events[-1].seq if len(events) == query.limit else None
        return models.AuditPage(events=[models.AuditEvent.of(event) for event in events], next_before=last)

    def operations(self) -> tuple[Operation[Who], ...]:
        """Every endpoint of the account holder."""
        proof = (FactorRequired, StepUpRequired, StepUpFailed)
        creation = (KycRequired, AccountIsFrozen, KeyLimitReached)
        return (
            Operation(
                method="GET",
                path="/api/v1/account",
                name="getAccount",
                summary="The account, its factors, its limits",
                run=self.account,
                answer=models.AccountView,
            ),
            Operation(
                method="POST",
                path="/api/v1/factors/totp",
                name="beginTotp",
                summary="Begin to enrol an authenticator app",
                run=self.begin_totp,
                status=201,
                body=models.TotpCreation,
                body_required=False,
                answer=models.TotpStarted,
                refusals=(LoginTooOld, StepUpRequired, StepUpFailed, FactorLimitReached),
            ),
            Operation(
                method="POST",
                path="/api/v1/factors/totp/{id}/confirm",
                id_pattern=r"fac_[A-Za-z0-9_-]{1,60}",
                name="confirmTotp",
                summary="Confirm the app by its first code; the first factor brings recovery codes",
                run=self.confirm_totp,
                body=models.TotpConfirmation,
                answer=models.RecoveryCodes,
                refusals=(NotFound, StepUpFailed),
            ),
            Operation(
                method="POST",
                path="/api/v1/factors/passkeys/options",
                name="beginPasskey",
                summary="Begin to enrol a passkey: what navigator.credentials.create takes",
                run=self.begin_passkey,
                body=models.PasskeyCreation,
                body_required=False,
                answer=models.PasskeyOptions,
                refusals=(LoginTooOld, StepUpRequired, StepUpFailed, FactorLimitReached),
            ),
            Operation(
                method="POST",
                path="/api/v1/factors/passkeys",
                name="addPasskey",
                summary="Add the passkey that the browser made; the first factor brings recovery codes",
                run=self.add_passkey,
                status=201,
                body=models.PasskeyRegistration,
                answer=models.PasskeyAdded,
                refusals=(NotFound, StepUpFailed),
            ),
            Operation(
                method="POST",
                path="/api/v1/recovery-codes",
                name="renewRecoveryCodes",
                summary="Ten new recovery codes; the old ones are void",
                run=self.renew_recovery_codes,
                status=201,
                body=models.Proven,
                body_required=False,
                answer=models.RecoveryCodes,
                refusals=proof,
            ),
            Operation(
                method="DELETE",
                path="/api/v1/factors/{id}",
                id_pattern=r"fac_[A-Za-z0-9_-]{1,60}",
                name="removeFactor",
                summary="Remove a factor",
                run=self.remove_factor,
                status=204,
                body=models.Proven,
                body_required=False,
                refusals=(NotFound, LastFactor, *proof),
            ),
            Operation(
                method="POST",
                path="/api/v1/step-up",
                name="beginStepUp",
                summary="A challenge for exactly one intent; one that would be refused is refused here",
                run=self.step_up,
                status=201,
                body=models.StepUpRequest,
                answer=models.Challenge,
                refusals=(NotFound, FactorRequired, LastFactor, FactorLimitReached, *creation),
            ),
            Operation(
                method="GET",
                path="/api/v1/keys",
                name="listKeys",
                summary="Every key of the account, oldest first",
                run=self.list_keys,
                answer=models.KeyList,
            ),
            Operation(
                method="POST",
                path="/api/v1/keys",
                name="createKey",
                summary="Create a key; the secret is in this answer and nowhere else",
                run=self.create_key,
                status=201,
                body=models.KeyCreation,
                answer=models.KeyCreated,
                refusals=(*proof, *creation),
            ),
            Operation(
                method="GET",
                path="/api/v1/keys/{id}",
                name="getKey",
                summary="One key",
                run=self.show_key,
                answer=models.Key,
                refusals=(NotFound,),
            ),
            Operation(
                method="DELETE",
                path="/api/v1/keys/{id}",
                name="deleteKey",
                summary="Delete a key; no gateway lets it pass afterwards",
                run=self.delete_key,
                status=204,
                body=models.Proven,
                body_required=False,
                refusals=(NotFound, *proof),
            ),
            Operation(
                method="GET",
                path="/api/v1/audit",
                name="listAudit",
                summary="The account's own events, latest first",
                run=self.audit,
                query=AuditQuery,
                answer=models.AuditPage,
            ),
        )

    def refused_changes(self) -> tuple[Operation[Who], ...]:
        """What a key does not take, told more clearly than by a plain 405."""
        return tuple(
            Operation(
                method=method,
                path="/api/v1/keys/{id}",
                name=f"{method.lower()}Key",
                summary="A key cannot be changed",
                run=self.refuse_change,
                status=405,
                refusals=(ImmutableKey, NotFound),
            )
            for method in ("PUT", "PATCH")
        )
