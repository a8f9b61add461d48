"""The endpoint table of the internal API: paths, parameters, and possible refusals."""

from admin.api.operation import Operation
from admin.errors import CountChanged, NotFound
from admin.internal import models
from admin.internal.handlers import InternalApi

_ACCOUNTS = "/internal/v1/accounts"
_KEYS = "/internal/v1/keys"


def operations(api: InternalApi) -> tuple[Operation[str], ...]:
    """Every endpoint."""
    return (*_queries(api), *_commands(api))


def _queries(api: InternalApi) -> tuple[Operation[str], ...]:
    return (
        Operation(
            method="GET",
            path=_ACCOUNTS,
            name="listAccounts",
            summary="Accounts that match, by id",
            run=api.list_accounts,
            query=models.AccountQuery,
            answer=models.OperatorAccounts,
        ),
        Operation(
            method="GET",
            path=_KEYS,
            name="listKeys",
            summary="Keys that match, oldest first",
            run=api.list_keys,
            query=models.KeyQuery,
            answer=models.OperatorKeys,
        ),
        Operation(
            method="GET",
            path="/internal/v1/audit",
            name="listAudit",
            summary="Events of the audit that match, latest first",
            run=api.list_audit,
            query=models.AuditQuery,
            answer=models.OperatorEvents,
        ),
        Operation(
            method="GET",
            path="/internal/v1/refusals",
            name="listRefusals",
            summary="Recent refused requests of keys, latest first",
            run=api.list_refusals,
            query=models.RefusalQuery,
            answer=models.Refusals,
        ),
        Operation(
            method="GET",
            path=_ACCOUNTS + "/{id}",
            name="showAccount",
            summary="An account and its keys",
            run=api.show_account,
            answer=models.OperatorAccount,
            refusals=(NotFound,),
        ),
        Operation(
            method="GET",
            path=_KEYS + "/{id}",
            name="showKey",
            summary="A key, whose it is, and its state",
            run=api.show_key,
            answer=models.OperatorKey,
            refusals=(NotFound,),
        ),
    )


def _commands(api: InternalApi) -> tuple[Operation[str], ...]:
    return (
        Operation(
            method="PUT",
            path=_ACCOUNTS + "/{id}",
            name="decideAccount",
            summary="Lift or revoke the account's verification (revoked stops its keys at once), or set its tier",
            run=api.decide,
            body=models.Decision,
            answer=models.OperatorAccount,
        ),
        Operation(
            method="POST",
            path=_ACCOUNTS + "/{id}/freeze",
            name="freezeAccount",
            summary="Stop every key of the account at once",
            run=api.freeze,
            body=models.OptionalReason,
            body_required=False,
            answer=models.ChangedAccount,
            refusals=(NotFound,),
        ),
        Operation(
            method="POST",
            path=_ACCOUNTS + "/{id}/thaw",
            name="thawAccount",
            summary="End a freeze; its keys pass again only while its verification stands",
            run=api.thaw,
            body=models.OptionalReason,
            body_required=False,
            answer=models.ChangedAccount,
            refusals=(NotFound,),
        ),
        Operation(
            method="POST",
            path=_ACCOUNTS + "/{id}/reset-factors",
            name="resetFactors",
            summary="Remove every factor and recovery code, end every login, freeze the account",
            run=api.reset_factors,
            body=models.RequiredReason,
            answer=models.OperatorAccount,
            refusals=(NotFound,),
        ),
        Operation(
            method="POST",
            path=_KEYS + "/revoke",
            name="revokeKeys",
            summary="Stop every key that matches, if they are as many as expected",
            run=api.revoke_keys,
            body=models.BulkRevocation,
            answer=models.Revoked,
            refusals=(CountChanged,),
        ),
        Operation(
            method="POST",
            path=_KEYS + "/{id}/revoke",
            name="revokeKey",
            summary="Stop a key at once and wipe its secret",
            run=api.revoke_key,
            body=models.RequiredReason,
            answer=models.RevokedKey,
            refusals=(NotFound,),
        ),
    )
