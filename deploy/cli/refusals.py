"""``gerbang refusals``: recent refusals and their reasons, without a log."""

from typing import Any

import click

from deploy.cli.operator import Internal, filters, given, listing, show_found


@click.group()
def refusals() -> None:
    """Recent refused requests of existing keys."""


@refusals.command("list")
@filters("account", "email", "key", "label", "ip", "scope", "since", "until")
@click.option("--code", help="The refusal's code, e.g. ip_not_allowed.")
@listing
def list_refusals(office: Internal, limit: int, as_json: bool, **wanted: Any) -> None:
    r"""List refused requests, latest first: time, code, account, key, client address, route.

    The latest fifty of each key are kept for a week. Gateways report them every few seconds.

    --ip is the address that the gateway saw. Requests with an unknown key are only in the gateway's log.

    \b
    Example: gerbang refusals list --account demo
    """
    show_found(office.search("refusals", given(wanted), limit), "refusals", _line, as_json=as_json)


def _line(refused: dict[str, Any]) -> str:
    who = f"{refused['account_id']}  {refused['key_id']}  {refused['client_ip'] or '-'}"
    return f"{refused['at']}  {refused['code']:24} {who}  {refused.get('route') or '-'}"
