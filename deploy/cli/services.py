"""``gerbang gateway``, ``admin``, ``reload`` and ``migrate``."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from deploy.cli.arguments import OPS_ADVICE, service_url
from deploy.plural import counted

_CONFIG = click.option("--config", "path", required=True, type=click.Path(path_type=Path), help="The configuration file (TOML).")


@click.command()
@_CONFIG
def gateway(path: Path) -> None:
    r"""Run the gateway in the foreground.

    SIGTERM drains and ends it, SIGHUP re-reads the configuration.

    \b
    Example: gerbang gateway --config config/gateway.toml
    """
    from deploy.cli.checking import is_admin, tables_of
    from gateway.process.supervisor import run

    if is_admin(tables_of(path)):
        raise click.ClickException(f"{path} is an admin service's configuration: gerbang admin --config {path}")
    raise SystemExit(run(path))


@click.command()
@_CONFIG
def admin(path: Path) -> None:
    r"""Run the admin service in the foreground.

    \b
    Example: gerbang admin --config config/admin.toml
    """
    from admin.app import run
    from deploy.cli.checking import tables_of

    if "routes" in tables_of(path):
        raise click.ClickException(f"{path} is a gateway's configuration: gerbang gateway --config {path}")
    raise SystemExit(run(path))


@click.command()
@click.option(
    "--ops",
    callback=service_url,
    default="http://127.0.0.1:8081",
    show_default=True,
    envvar="GERBANG_OPS_URL",
    show_envvar=True,
    help="The gateway's ops port.",
)
@click.option("--dry-run", is_flag=True, help="Change nothing; report what would change, also for the requests of the last ten minutes.")
def reload(ops: str, *, dry_run: bool) -> None:
    r"""Reload the configuration of a running gateway. Prints what changed, or why it was refused.

    \b
    Example: gerbang reload --ops http://127.0.0.1:8081 --dry-run
    """
    from deploy.client import ask, explanation

    reply = ask("POST", f"{ops}/reload{'?dry_run=true' if dry_run else ''}", seconds=60, advice=OPS_ADVICE)
    if reply.status != 200 or not isinstance(reply.content, dict):
        raise click.ClickException(explanation(reply))
    answer = reply.content
    if "outcome" not in answer:
        raise click.ClickException(
            f"{ops} is not a gateway's ops port, though it answered. Nothing was reloaded: set --ops to its listen.ops"
        )
    click.echo(f"{answer['outcome'].replace('_', ' ')}: version {answer['version']}")
    for change in answer["changes"]:
        click.echo(f"  {_change_line(**change)}")
    if "traffic" in answer:
        for line in _effect_lines(answer["traffic"]):
            click.echo(line)


def _effect_lines(traffic: dict[str, Any]) -> Iterator[str]:
    """The recent requests whose decision would change, as lines."""
    since = datetime.fromtimestamp(traffic["since_ms"] / 1000, UTC).strftime("%H:%M:%S UTC")
    yield f"since {since}: {counted(traffic['admitted'], 'request')} admitted, {traffic['refused']} refused"
    for effect in traffic["otherwise"]:
        yield f"  {effect['requests']:>7}  {effect['call']}: {effect['now']} → {effect['then']}"
    if not traffic["otherwise"]:
        yield "  no decision would change by routes, permissions, maintenance or the clock window"


def _change_line(*, kind: str, path: str, before: object, after: object) -> str:
    """One difference as a line: changed, added or removed."""
    return f"{path}: {_value_text(before)} → {_value_text(after)}" if kind == "changed" else f"{path}: {kind}"


def _value_text(value: object) -> str:
    """A value for display, as the file writes it: a text in quotes, a list in brackets."""
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)


@click.command()
@click.option("--dsn", required=True, envvar="GERBANG_DSN", show_envvar=True, help="postgresql://… of the database's owner.")
def migrate(dsn: str) -> None:
    r"""Bring the database's schema up to date. Idempotent.

    \b
    Example: gerbang migrate --dsn postgresql://owner@db.internal/gerbang
    """
    from gateway.keys.migrate import head, upgrade
    from gateway.keys.postgres import check_dsn

    check_dsn(dsn, where="--dsn")
    upgrade(dsn)
    click.echo(f"schema is at {head()}")
