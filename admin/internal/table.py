"""The endpoint table of the internal API: paths, parameters, and possible refusals."""

from admin.api.operation import Operation
from admin.errors import CountChanged, NotFound
from admin.internal import models
from admin.internal.handlers import InternalApi

_ACCOUNTS, _ACCOUNT = "/internal/v1/accounts", "/internal/v1/accounts/{id}"
_KEYS, _KEY = "/internal/v1/keys", "/internal/v1/keys/{id}"


def operations(api: InternalApi) -> tuple[Operation[str], ...]:
    """Every endpoint."""
    return (
        Operation("GET", _ACCOUNTS, "listAccounts", "Accounts that match, by id", api.list_accounts, query=models.AccountQuery),
        Operation("GET", _KEYS, "listKeys", "Keys that match, oldest first", api.list_keys, query=models.KeyQuery),
        Operation(
            "GET", "/internal/v1/audit", "listAudit", "Events of the audit that match, latest first",
            api.list_audit, query=models.AuditQuery,
        ),
        Operation(
            "GET", "/internal/v1/refusals", "listRefusals", "Recent refused requests of keys, latest first",
            api.list_refusals, query=models.RefusalQuery,
        ),
        Operation("GET", _ACCOUNT, "showAccount", "An account and its keys", api.show_account, refusals=(NotFound,)),
        Operation("GET", _KEY, "showKey", "A key, whose it is, and its state", api.show_key, refusals=(NotFound,)),
        Operation(
            "PUT", _ACCOUNT, "decideAccount",
            "Lift or revoke the account's verification (revoked stops its keys at once), or set its tier",
            api.decide, body=models.Decision,
        ),
        Operation(
            "POST", f"{_ACCOUNT}/freeze", "freezeAccount", "Stop every key of the account at once",
            api.freeze, body=models.OptionalReason, refusals=(NotFound,),
        ),
        Operation(
            "POST", f"{_ACCOUNT}/thaw", "thawAccount", "End a freeze; keys are accepted again if the account's identity is verified",
            api.thaw, body=models.OptionalReason, refusals=(NotFound,),
        ),
        Operation(
            "POST", f"{_ACCOUNT}/reset-factors", "resetFactors",
            "Remove every factor and recovery code, end every login, freeze the account",
            api.reset_factors, body=models.RequiredReason, refusals=(NotFound,),
        ),
        Operation(
            "POST", f"{_KEYS}/revoke", "revokeKeys", "Stop every key that matches, if they are as many as expected",
            api.revoke_keys, body=models.BulkRevocation, refusals=(CountChanged,),
        ),
        Operation(
            "POST", f"{_KEY}/revoke", "revokeKey", "Stop a key at once and wipe its secret",
            api.revoke_key, body=models.RequiredReason, refusals=(NotFound,),
        ),
    )  # fmt: skip
