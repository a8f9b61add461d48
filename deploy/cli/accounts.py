"""``gerbang accounts``: search, show, freeze and thaw accounts; reset second factors."""

import sys
from typing import Any
from urllib.parse import quote

import click

from deploy.cli.arguments import identifier, words
from deploy.cli.operator import Internal, always_json, filters, given, internal, listing, show, show_found, telling

_REASON = click.option("--reason", callback=words, help="Recorded in the audit log, for operators only; prompted for on a terminal.")


@click.group()
def accounts() -> None:
    """Search, show, freeze and thaw accounts; reset their second factors."""


@accounts.command("list")
@filters("account", "email", "since", "until")
@click.option("--frozen/--not-frozen", default=None, help="Accounts that are frozen; or that are not.")
@click.option("--kyc", type=click.Choice(["verified", "unverified", "revoked"]), help="State of the identity verification.")
@listing
def list_accounts(office: Internal, limit: int, as_json: bool, **wanted: Any) -> None:
    r"""List the accounts that match, by id: id, verification, whether frozen, number of keys, e-mail address.

    \b
    Example: gerbang accounts list --email @example.com --frozen
    """
    show_found(office.search("accounts", given(wanted), limit), "accounts", _line, as_json=as_json)


@accounts.command("show")
@click.argument("account", callback=identifier)
@always_json
@internal
def show_account(office: Internal, account: str) -> None:
    r"""Show an account and its keys as JSON, with their last use.

    \b
    Example: gerbang accounts show demo
    """
    show(office.call("GET", _path(account)))


@accounts.command()
@click.argument("account", callback=identifier)
@_REASON
@internal
def freeze(office: Internal, account: str, reason: str | None) -> None:
    r"""Stop all keys of an account at once, until it is thawed.

    \b
    Example: gerbang accounts freeze demo --reason "case 4711"
    """
    answer = office.call("POST", f"{_path(account)}/freeze", _reason_body(reason))
    with telling() as tell:
        tell(f"{account} {'is' if answer['changed'] else 'was already'} frozen: its keys are refused")


@accounts.command()
@click.argument("account", callback=identifier)
@_REASON
@internal
def thaw(office: Internal, account: str, reason: str | None) -> None:
    r"""End a freeze. Prints which of the account's keys are valid again.

    \b
    Example: gerbang accounts thaw demo --reason "case 4711 is closed"
    """
    answer = office.call("POST", f"{_path(account)}/thaw", _reason_body(reason))
    with telling() as tell:
        tell(f"{account} {'is thawed' if answer['changed'] else 'was not frozen'}: {_valid_keys(answer)}")


@accounts.command("reset-factors")
@click.argument("account", callback=identifier)
@click.option("--reason", required=True, callback=words, help="Kept in the audit trail and shown to the account's holder.")
@internal
def reset_factors(office: Internal, account: str, reason: str) -> None:
    r"""Remove every second factor and recovery code of an account whose holder has lost them all. It cannot be undone.

    Every login ends and the account is frozen: its holder logs in again, enrols a factor and checks the keys; then thaw it.

    \b
    Example: gerbang accounts reset-factors demo --reason "lost phone, identity checked by video, case 4711"
    """
    office.call("POST", f"{_path(account)}/reset-factors", {"reason": reason})
    with telling() as tell:
        tell(f"{account} has no second factor, is logged out everywhere, and frozen until gerbang accounts thaw")


def _path(account: str) -> str:
    return f"accounts/{quote(account, safe='')}"


def _reason_body(reason: str | None) -> dict[str, str]:
    """The reason as a body; prompted for on a terminal, optional in scripts."""
    if reason is None and sys.stdin.isatty():
        reason = str(click.prompt("Reason (kept in the audit)", err=True)).strip() or None
    return {} if reason is None else {"reason": reason}


def _valid_keys(account: dict[str, Any]) -> str:
    """Which of the account's keys are valid now, and why the others are not."""
    if account["kyc"] != "verified":
        word = "was revoked" if account["kyc"] == "revoked" else "is missing"
        return f"its keys are still refused, because its identity verification {word}"
    active, others = 0, 0
    for key in account["keys"]:
        active, others = (active + 1, others) if key["status"] == "active" else (active, others + 1)
    if not account["keys"]:
        return "it has no keys"
    if not others:
        return "its keys are accepted again" if active > 1 else "its key is accepted again"
    return f"{active} of its {active + others} keys {'is' if active == 1 else 'are'} accepted, the others are revoked or expired"


def _line(account: dict[str, Any]) -> str:
    state = "frozen" if account["frozen"] else "-"
    keys = f"{account['keys']:3} key{' ' if account['keys'] == 1 else 's'}"
    return f"{account['id']:36} {account['kyc']:10} {state:6} {keys}  {account['email'] or '-'}"
