"""``gerbang audit``: whether the audit trail is whole."""

import re
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from admin.audit import Verdict

_NOTED = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")


@click.group()
def audit() -> None:
    """The audit trail: each event holds the hash of the one before it."""


@audit.command()
@click.option("--dsn", required=True, envvar="GERBANG_DSN", show_envvar=True, help="postgresql://… of the admin service's role.")
@click.option("--expect", metavar="SEQ:HASH", help="What an earlier run printed: that event must still be there, unchanged.")
def verify(dsn: str, expect: str | None) -> None:
    r"""Walk the whole trail; find a changed, missing or inserted event. Prints SEQ:HASH of the last one: keep it elsewhere.

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
        raise click.ClickException("the audit trail is not whole\n" + "\n".join(verdict.problems))
    click.echo(f"{verdict.events} events, whole\n{verdict.seq}:{verdict.hash.hex()}")


async def _verify(dsn: str, noted: tuple[int, bytes] | None) -> "Verdict":
    from admin.audit import verify as walk
    from deploy.cli.database import connected

    async with connected(dsn) as connection:
        return await walk(connection, expected=noted)
