"""The internal API's endpoints: search, KYC, freeze and thaw, revocation, factor reset."""

from typing import Any

from admin import audit, search
from admin.api.operation import Call
from admin.audit import Provenance
from admin.identity.accounts import Account, Accounts
from admin.identity.caller import Kyc
from admin.internal import models
from admin.internal.models import OperatorAccount, OperatorKey
from admin.lifecycle.operations import KeyOperations
from admin.lifecycle.service import KeyView, views_of
from admin.stepup import factors
from admin.stepup.factors import Factor
from admin.stepup.operations import reset_factors
from admin.stores import Stores


class InternalApi:
    """The handlers; their paths are in ``table``."""

    def __init__(self, stores: Stores, accounts: Accounts, keys: KeyOperations) -> None:
        self._stores = stores
        self._accounts = accounts
        self._keys = keys

    # -- queries

    async def show_account(self, _operator: str, call: Call) -> OperatorAccount:
        return OperatorAccount.of(*await self._account(call))

    async def show_key(self, _operator: str, call: Call) -> OperatorKey:
        return OperatorKey.of(await self._keys.show(call.path["id"], call.provenance.now_ms))

    async def list_accounts(self, _operator: str, call: Call) -> models.OperatorAccounts:
        query: Any = call.query
        async with self._stores.transaction() as connection:
            found, count, cursor = await search.accounts(connection, query.filters, query.page, frozen=query.frozen, kyc=query.kyc)
        listed = [models.AccountSummary.of(account) for account in found]
        return models.OperatorAccounts(accounts=listed, count=count, next_cursor=cursor)

    async def list_keys(self, _operator: str, call: Call) -> models.OperatorKeys:
        query: Any = call.query
        views, count, cursor = await self._keys.search(query.filters, query.page, call.provenance.now_ms)
        return models.OperatorKeys(keys=[OperatorKey.of(view) for view in views], count=count, next_cursor=cursor)

    async def list_audit(self, _operator: str, call: Call) -> models.OperatorEvents:
        query: Any = call.query
        async with self._stores.transaction() as connection:
            events, count = await audit.search(connection, query.wanted, limit=query.limit + 1, before_seq=query.cursor)
        shown = events[: query.limit]
        more = shown[-1][0].seq if len(events) > query.limit else None
        listed = [models.OperatorEvent(**event.as_json(), hash=digest.hex()) for event, digest in shown]
        return models.OperatorEvents(events=listed, count=count, next_cursor=more)

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
        await reset_factors(self._stores, call.path["id"], call.body.reason, _by(operator, call))
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

    async def _account(self, call: Call) -> tuple[Account, list[KeyView], list[Factor]]:
        account, keys = await self._accounts.get(call.path["id"])
        views = await views_of(self._stores, [(key, account.suspended) for key in keys], call.provenance.now_ms)
        async with self._stores.transaction() as connection:
            return account, views, await factors.confirmed(connection, account.id)


def _by(operator: str, call: Call) -> Provenance:
    return call.provenance._replace(operator=operator)
