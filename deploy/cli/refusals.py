"""``gerbang refusals``: recent refusals and their reasons, without a log."""

from typing import Any
from urllib.parse import quote

import click

from deploy.cli.operator import Internal, filters, given, listing, show_found


@click.group()
def refusals() -> None:
    """Recent refused requests of keys that exist."""


@refusals.command("list")
@filters("account", "email", "key", "label", "ip", "scope", "since", "until")
@click.option("--code", help="The refusal's code, e.g. ip_not_allowed.")
@listing
def list_refusals(office: Internal, limit: int, as_json: bool, **wanted: Any) -> None:
    r"""List refused requests, latest first: time, code, account, key, client address, route.

    The latest fifty of each key are kept, for a week. A gateway hands them over every few seconds.

    --ip is the address that the gate saw. Requests with an unknown key are in the gateway's log alone.

    \b
    Example: gerbang refusals list --account demo
    """
    found = office.search("refusals", given(wanted), limit)
    if not found["count"]:
        _check_known(office, "account", wanted["account"])
        _check_known(office, "key", wanted["key"])
    show_found(found, "refusals", _line, as_json=as_json)


def _check_known(office: Internal, what: str, its_id: str | None) -> None:
    """:raises click.ClickException: nothing was refused, because there is no such account or key"""
    if its_id is not None and office.found("GET", f"{what}s/{quote(its_id, safe='')}") is None:
        raise click.ClickException(f"there is no {what} {its_id}")


def _line(refused: dict[str, Any]) -> str:
    who = f"{refused['account_id']}  {refused['key_id']}  {refused['client_ip'] or '-'}"
    return f"{refused['at']}  {refused['code']:24} {who}  {refused.get('route') or '-'}"
