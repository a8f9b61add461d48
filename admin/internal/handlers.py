"""The back office's endpoints: KYC, freeze and thaw, look at an account or key, revoke a key, reset factors."""

import hmac
from typing import Annotated, Literal, Self

from aiohttp import web
from pydantic import Field, SecretStr, field_validator, model_validator

from admin.api.answers import Answer, FactorView, Key, Time, rfc3339
from admin.api.bodies import Body
from admin.api.operation import Call, Operation
from admin.audit import Occasion
from admin.errors import NotFound, Unauthenticated
from admin.identity.accounts import Account, Accounts
from admin.identity.caller import Kyc
from admin.labels import clean_label
from admin.lifecycle.operations import KeyOperations
from admin.lifecycle.service import KeyView, status_of
from admin.stepup.factors import Factor
from admin.stepup.operations import FactorOperations
from gateway.keys.store import StoredKey


class Decision(Body):
    """What the back office says of an account; what is left out stays as it is."""

    kyc: Literal["verified", "revoked"] | None = None
    tier: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Whose limits apply; null: no tier.")] = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.kyc is None and "tier" not in self.model_fields_set:
            raise ValueError("Say kyc or tier.")
        return self


class Reasoned(Body):
    """What cannot be undone is said why."""

    reason: Annotated[str, Field(min_length=1, max_length=500, description="Shown to the account's holder.")]

    @field_validator("reason")
    @classmethod
    def _readable(cls, reason: str) -> str:
        cleaned = clean_label(reason)
        if not cleaned or not cleaned.isprintable():
            raise ValueError("Say why, in printable characters.")
        return cleaned


class OperatorKey(Key):
    """A key as the back office sees it: whose it is, too."""

    account_id: str
    revoked_at: Time | None

    @classmethod
    def of(cls, view: KeyView) -> Self:
        own = Key.of(view).model_dump()
        revoked_ms = view.key.revoked_ms
        return cls(**own, account_id=view.key.account_id, revoked_at=None if revoked_ms is None else rfc3339(revoked_ms))


class OperatorAccount(Answer):
    id: str
    email: str | None
    kyc: Literal["verified", "unverified", "revoked"]
    frozen: bool
    tier: str | None
    factors: list[FactorView]
    keys: list[OperatorKey]

    @classmethod
    def of(cls, account: Account, keys: list[StoredKey], factors: list[Factor], now_ms: int) -> Self:
        suspended = account.frozen or account.kyc is not Kyc.VERIFIED
        views = [KeyView(key=key, status=status_of(key, suspended=suspended, now_ms=now_ms)) for key in keys]
        return cls(
            id=account.id,
            email=account.email,
            kyc=account.kyc.value,
            frozen=account.frozen,
            tier=account.tier,
            factors=[FactorView.of(factor) for factor in factors],
            keys=[OperatorKey.of(view) for view in views],
        )


class ServiceToken:
    """Admits whoever sends the one token, compared in constant time."""

    def __init__(self, token: SecretStr) -> None:
        self._expected = b"Bearer " + token.get_secret_value().encode()

    async def __call__(self, request: web.Request, _occasion: Occasion) -> None:
        """:raises Unauthenticated: another token, none, or two"""
        given = request.headers.getall("Authorization", [])
        value = given[0].encode("utf-8", "surrogateescape") if len(given) == 1 else b""
        if not hmac.compare_digest(value, self._expected):
            raise Unauthenticated.because("Send the service token: Authorization: Bearer TOKEN.", token_given=bool(given))


class InternalApi:
    """Handlers, and the table of them."""

    def __init__(self, accounts: Accounts, keys: KeyOperations, factors: FactorOperations) -> None:
        self._accounts = accounts
        self._keys = keys
        self._factors = factors

    async def show_account(self, _who: None, call: Call) -> OperatorAccount:
        account, keys = await self._accounts.get(call.path["id"])
        return OperatorAccount.of(account, keys, await self._factors.counted(account.id), call.occasion.now_ms)

    async def decide(self, who: None, call: Call) -> OperatorAccount:
        if call.body.kyc is not None:
            await self._accounts.set_kyc(call.path["id"], Kyc(call.body.kyc), call.occasion)
        if "tier" in call.body.model_fields_set:
            await self._accounts.set_tier(call.path["id"], call.body.tier, call.occasion)
        return await self.show_account(who, call)

    async def freeze(self, who: None, call: Call) -> OperatorAccount:
        await self._accounts.set_frozen(call.path["id"], True, call.occasion)
        return await self.show_account(who, call)

    async def thaw(self, who: None, call: Call) -> OperatorAccount:
        await self._accounts.set_frozen(call.path["id"], False, call.occasion)
        return await self.show_account(who, call)

    async def reset_factors(self, who: None, call: Call) -> OperatorAccount:
        await self._factors.reset(call.path["id"], call.body.reason, call.occasion)
        return await self.show_account(who, call)

    async def show_key(self, _who: None, call: Call) -> OperatorKey:
        return OperatorKey.of(await self._keys.show(call.path["id"], call.occasion.now_ms))

    async def revoke_key(self, who: None, call: Call) -> OperatorKey:
        await self._keys.revoke(call.path["id"], call.body.reason, call.occasion)
        return await self.show_key(who, call)

    def operations(self) -> tuple[Operation[None], ...]:
        """Every endpoint of the back office."""
        account, key = "/internal/v1/accounts/{id}", "/internal/v1/keys/{id}"
        return (
            Operation(
                method="GET",
                path=account,
                name="showAccount",
                summary="An account and its keys",
                run=self.show_account,
                answer=OperatorAccount,
                refusals=(NotFound,),
            ),
            Operation(
                method="PUT",
                path=account,
                name="decideAccount",
                summary="Lift or revoke the account's verification (revoked stops its keys at once), or set its tier",
                run=self.decide,
                body=Decision,
                answer=OperatorAccount,
            ),
            Operation(
                method="POST",
                path=account + "/freeze",
                name="freezeAccount",
                summary="Stop every key of the account at once",
                run=self.freeze,
                answer=OperatorAccount,
                refusals=(NotFound,),
            ),
            Operation(
                method="POST",
                path=account + "/thaw",
                name="thawAccount",
                summary="End a freeze",
                run=self.thaw,
                answer=OperatorAccount,
                refusals=(NotFound,),
            ),
            Operation(
                method="POST",
                path=account + "/reset-factors",
                name="resetFactors",
                summary="Remove every factor and recovery code, end every login, freeze the account",
                run=self.reset_factors,
                body=Reasoned,
                answer=OperatorAccount,
                refusals=(NotFound,),
            ),
            Operation(
                method="GET",
                path=key,
                name="showKey",
                summary="A key, whose it is, and its state",
                run=self.show_key,
                answer=OperatorKey,
                refusals=(NotFound,),
            ),
            Operation(
                method="POST",
                path=key + "/revoke",
                name="revokeKey",
                summary="Stop a key at once and wipe its secret",
                run=self.revoke_key,
                body=Reasoned,
                answer=OperatorKey,
                refusals=(NotFound,),
            ),
        )
