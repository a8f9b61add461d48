"""``gerbang up``: run the whole system on this machine."""

from pathlib import Path

import click


@click.command()
@click.option("--data", type=click.Path(path_type=Path), default=Path(".gerbang"), show_default=True, help="Folder for all data.")
@click.option(
    "--port", type=click.IntRange(1, 65522), default=8080, show_default=True, help="Port of the gateway; others are relative to it."
)
def up(data: Path, port: int) -> None:
    r"""Run the whole system on loopback: PostgreSQL, Redis, demo identity provider, demo exchange, gateway, admin.

    Ports: gateway P, ops P+1, mailbox P+2 (its mail server P+3), admin P+10, identity provider P+11, demo exchange P+12, internal API
    P+13. The data folder survives restarts. Ctrl-C stops everything.

    \b
    Example: gerbang up --data .gerbang --port 8080
    """
    from deploy.local.up import run

    raise SystemExit(run(data, port))
