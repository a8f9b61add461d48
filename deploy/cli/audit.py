"""``gerbang audit``: verify and search the audit log."""

import json
import re
from typing import TYPE_CHECKING, Any

import click

from deploy.cli.operator import Internal, filters, given, listing, show_found

if TYPE_CHECKING:
    from admin.audit import Verdict

_NOTED = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")


@click.group()
def audit() -> None:
    """The audit log: each event contains the hash of its predecessor."""


@audit.command("list")
@filters("account", "email", "key", "ip", "since", "until")
@click.option("--event", help="Kind of event, e.g. key_revoked.")
@click.option("--actor", help="Actor: account, provider, or the name of an operator's token.")
@listing
def list_events(office: Internal, limit: int, as_json: bool, **wanted: Any) -> None:
    r"""List events, latest first: number, time, event, who, account, key, client address, details.

    \b
    Example: gerbang audit list --account demo --since 7d
             gerbang audit list --actor alice --event account_frozen --json
    """
    show_found(office.search("events", given(wanted), limit), "events", _line, as_json=as_json)


def _line(event: dict[str, Any]) -> str:
    about = "  ".join(event[name] or "-" for name in ("account_id", "key_id", "client_ip"))
    detail = json.dumps(event["detail"], ensure_ascii=False) if event["detail"] else ""
    return f"{event['id']:8} {event['at']}  {event['event']:20} {event['actor']:10} {about}  {detail}".rstrip()


@audit.command()
@click.option("--dsn", required=True, envvar="GERBANG_DSN", show_envvar=True, help="postgresql://… of the admin service's role.")
@click.option("--expect", metavar="SEQ:HASH", help="The output of an earlier run: that event must still exist, unchanged.")
def verify(dsn: str, expect: str | None) -> None:
    r"""Verify the whole audit log: detects changed, missing and inserted events. Prints SEQ:HASH of the last one: store it elsewhere.

    \b
    Example: gerbang audit verify --dsn postgresql://gerbang_admin@db.internal/gerbang
    """
    import asyncio

    noted = None
    if expect is not None:
        match = _NOTED.fullmatch(expect)
        if match is None:
            raise click.UsageError("--expect is written SEQ:HASH, as this command prints it")
        noted = int(match[1]), bytes.fromhex(match[2])
    verdict = asyncio.run(_verify(dsn, noted))
    if verdict.problems:
        raise click.ClickException("the audit trail is not intact\n" + "\n".join(verdict.problems))
    click.echo(f"{verdict.events} events, intact\n{verdict.seq}:{verdict.hash.hex()}")


async def _verify(dsn: str, noted: tuple[int, bytes] | None) -> "Verdict":
    from admin.audit import verify as walk
    from deploy.cli.database import connected

    async with connected(dsn) as connection:
        return await walk(connection, expected=noted)
