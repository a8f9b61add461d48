"""The internal API's endpoints: search, KYC, freeze and thaw, revocation, factor reset."""

from typing import Any, NamedTuple

from admin.api.operation import Call
from admin.audit import Provenance, Trail
from admin.identity.accounts import Accounts
from admin.identity.caller import Kyc
from admin.internal import models
from admin.internal.models import OperatorAccount, OperatorKey
from admin.lifecycle.operations import KeyOperations
from admin.stepup.operations import FactorOperations


class _Seen(NamedTuple):
    """Members of an account's answer."""

    account: Any
    keys: Any
    factors: Any


class InternalApi:
    """The handlers; their paths are in ``table``."""

    def __init__(self, accounts: Accounts, keys: KeyOperations, factors: FactorOperations, trail: Trail) -> None:
        self._accounts = accounts
        self._keys = keys
        self._factors = factors
        self._trail = trail

    # -- queries

    async def show_account(self, _operator: str, call: Call) -> OperatorAccount:
        return OperatorAccount.of(*await self._account(call))

    async def show_key(self, _operator: str, call: Call) -> OperatorKey:
        return OperatorKey.of(await self._keys.show(call.path["id"], call.provenance.now_ms))

    async def list_accounts(self, _operator: str, call: Call) -> models.OperatorAccounts:
        query: Any = call.query
        found, count, cursor = await self._accounts.search(query.filters, query.page, frozen=query.frozen, kyc=query.kyc)
        listed = [models.AccountSummary.of(account) for account in found]
        return models.OperatorAccounts(accounts=listed, count=count, next_cursor=cursor)

    async def list_keys(self, _operator: str, call: Call) -> models.OperatorKeys:
        query: Any = call.query
        views, count, cursor = await self._keys.search(query.filters, query.page, call.provenance.now_ms)
        return models.OperatorKeys(keys=[OperatorKey.of(view) for view in views], count=count, next_cursor=cursor)

    async def list_audit(self, _operator: str, call: Call) -> models.OperatorEvents:
        query: Any = call.query
        events, count = await self._trail.search(query.wanted, limit=query.limit + 1, before_seq=query.cursor)
        shown = events[: query.limit]
        more = shown[-1][0].seq if len(events) > query.limit else None
        return models.OperatorEvents(events=[models.OperatorEvent.of(*event) for event in shown], count=count, next_cursor=more)

    async def list_refusals(self, _operator: str, call: Call) -> models.Refusals:
        query: Any = call.query
        found, count, cursor = await self._keys.refusals(query.filters, query.page, key_id=query.key, code=query.code)
        return models.Refusals(refusals=[models.Refused.of(each) for each in found], count=count, next_cursor=cursor)

    # -- changes

    async def decide(self, operator: str, call: Call) -> OperatorAccount:
        if call.body.kyc is not None:
            await self._accounts.set_kyc(call.path["id"], Kyc(call.body.kyc), _by(operator, call))
        if "tier" in call.body.model_fields_set:
            await self._accounts.set_tier(call.path["id"], call.body.tier, _by(operator, call))
        return await self.show_account(operator, call)

    async def freeze(self, operator: str, call: Call) -> models.ChangedAccount:
        changed = await self._accounts.set_frozen(call.path["id"], True, call.body.reason, _by(operator, call))
        return models.ChangedAccount.of(*await self._account(call), changed=changed)

    async def thaw(self, operator: str, call: Call) -> models.ChangedAccount:
        changed = await self._accounts.set_frozen(call.path["id"], False, call.body.reason, _by(operator, call))
        return models.ChangedAccount.of(*await self._account(call), changed=changed)

    async def reset_factors(self, operator: str, call: Call) -> OperatorAccount:
        await self._factors.reset(call.path["id"], call.body.reason, _by(operator, call))
        return await self.show_account(operator, call)

    async def revoke_key(self, operator: str, call: Call) -> models.RevokedKey:
        changed = await self._keys.revoke(call.path["id"], call.body.reason, _by(operator, call))
        return models.RevokedKey.of(await self._keys.show(call.path["id"], call.provenance.now_ms), changed=changed)

    async def revoke_keys(self, operator: str, call: Call) -> models.Revoked:
        wanted: models.BulkRevocation = call.body
        filters = wanted.where.filters
        if wanted.dry_run or wanted.expected_count is None:
            ids = await self._keys.would_revoke(filters)
        else:
            where = models.written(wanted.where)
            count = wanted.expected_count
            ids = await self._keys.revoke_matching(filters, wanted.reason, _by(operator, call), expected_count=count, where=where)
        return models.Revoked(count=len(ids), revoked=not wanted.dry_run, keys=ids)

    async def _account(self, call: Call) -> _Seen:
        account, keys = await self._accounts.get(call.path["id"])
        suspended = account.frozen or account.kyc is not Kyc.VERIFIED
        views = await self._keys.views(keys, suspended=suspended, now_ms=call.provenance.now_ms)
        return _Seen(account, views, await self._factors.counted(account.id))


def _by(operator: str, call: Call) -> Provenance:
    return call.provenance._replace(operator=operator)
