"""The account holder's endpoints: each calls one service and shapes its answer."""

from typing import Annotated, NamedTuple, cast

from pydantic import Field

from admin import audit
from admin.api import answers, bodies
from admin.api.bodies import Body
from admin.api.operation import Call
from admin.errors import ImmutableKey
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


class AccountHolder(NamedTuple):
    """The account holder who sent the request."""

    caller: Caller
    account: Account


class AuditQuery(Body):
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    before: Annotated[int | None, Field(ge=1, le=2**62, description="Only events before this id.")] = None


class AccountApi:
    """The handlers; their paths are in ``table``."""

    def __init__(self, stores: Stores, keys: KeyService, enrolment: Enrolment, passkeys: PasskeyEnrolment, step_up: StepUp) -> None:
        self._stores = stores
        self._keys = keys
        self._enrolment = enrolment
        self._passkeys = passkeys
        self._step_up = step_up

    async def account(self, holder: AccountHolder, _call: Call) -> answers.AccountView:
        factors, codes_left = await self._enrolment.factors(holder.account.id)
        return answers.AccountView.of(holder.account, factors, codes_left, self._keys.key_limit)

    async def begin_totp(self, holder: AccountHolder, call: Call) -> answers.TotpStarted:
        started = await self._enrolment.begin_totp(holder.caller, call.body.name, call.body.proof, call.provenance)
        return answers.TotpStarted(
            id=started.id, secret=started.secret.reveal().decode(), otpauth_uri=started.otpauth_uri.reveal().decode()
        )

    async def confirm_totp(self, holder: AccountHolder, call: Call) -> answers.RecoveryCodes:
        codes = await self._enrolment.confirm_totp(holder.caller, call.path["id"], call.body.code, call.provenance)
        return answers.RecoveryCodes(recovery_codes=list(codes) or None)

    async def begin_passkey(self, holder: AccountHolder, call: Call) -> answers.PasskeyOptions:
        options = await self._passkeys.begin(holder.caller, call.body.name, call.body.proof, call.provenance)
        return answers.PasskeyOptions.model_validate(options)

    async def add_passkey(self, holder: AccountHolder, call: Call) -> answers.PasskeyAdded:
        added = await self._passkeys.finish(holder.caller, call.body.model_dump(), call.provenance)
        return answers.PasskeyAdded(factor=answers.FactorView.of(added.factor), recovery_codes=list(added.recovery_codes) or None)

    async def remove_factor(self, holder: AccountHolder, call: Call) -> None:
        await self._enrolment.remove(holder.caller, call.path["id"], call.body.proof, call.provenance)

    async def renew_recovery_codes(self, holder: AccountHolder, call: Call) -> answers.RecoveryCodes:
        codes = await self._enrolment.renew_recovery_codes(holder.caller, call.body.proof, call.provenance)
        return answers.RecoveryCodes(recovery_codes=list(codes))

    async def step_up(self, holder: AccountHolder, call: Call) -> answers.Challenge:
        try:
            async with self._stores.transaction() as connection:
                account = await accounts.lock(connection, holder.caller.account_id)
                allowed = await self._allowed(connection, account, holder.caller, call.body.intent)
                offer = await self._step_up.begin(connection, account, holder.caller, allowed, call.provenance.now_ms)
        except REFUSED_CREATIONS as refusal:
            if isinstance(call.body.intent, bodies.CreateKeyIntent):
                await self._keys.note_refusal(holder.caller, refusal, call.provenance)
            raise
        return answers.Challenge.of(offer)

    async def _allowed(self, connection: Connection, account: Account, caller: Caller, wanted: bodies.AnyIntent) -> Intent:
        """The intent, if the operation would be allowed with a proof, so that no code is wasted."""
        match wanted:
            case bodies.CreateKeyIntent():
                return await self._keys.check_creation(connection, account, caller, wanted.draft)
            case bodies.DeleteKeyIntent():
                return await self._keys.check_deletion(connection, caller, wanted.key_id)
            case bodies.AddFactorIntent():
                about_factors = intent.add_factor(wanted.kind)
            case bodies.RemoveFactorIntent():
                about_factors = intent.remove_factor(wanted.factor_id)
            case bodies.RenewRecoveryCodesIntent():
                about_factors = intent.renew_recovery_codes()
        await self._enrolment.check(connection, account, about_factors)
        return about_factors

    async def create_key(self, holder: AccountHolder, call: Call) -> answers.KeyCreated:
        created = await self._keys.create(holder.caller, call.body.draft, call.body.proof, call.provenance)
        secret = None if created.secret is None else created.secret.reveal().decode()
        return answers.KeyCreated(key=answers.Key.of(created.view), secret=secret)

    async def list_keys(self, holder: AccountHolder, call: Call) -> answers.KeyList:
        views = await self._keys.list_keys(holder.caller, call.provenance.now_ms)
        return answers.KeyList(keys=[answers.Key.of(view) for view in views])

    async def show_key(self, holder: AccountHolder, call: Call) -> answers.Key:
        return answers.Key.of(await self._keys.show(holder.caller, call.path["id"], call.provenance.now_ms))

    async def delete_key(self, holder: AccountHolder, call: Call) -> None:
        await self._keys.delete(holder.caller, call.path["id"], call.body.proof, call.provenance)

    async def refuse_change(self, _holder: AccountHolder, _call: Call) -> None:
        raise ImmutableKey("Nothing about a key can be edited. Delete it and create another.", headers=((b"Allow", b"GET, HEAD, DELETE"),))

    async def audit(self, holder: AccountHolder, call: Call) -> answers.AuditPage:
        query = cast("AuditQuery", call.query)
        async with self._stores.transaction() as connection:
            events = await audit.list_for_account(connection, holder.account.id, limit=query.limit, before_seq=query.before)
        last = events[-1].seq if len(events) == query.limit else None
        return answers.AuditPage(events=[answers.AuditEvent(**event.as_json()) for event in events], next_before=last)
