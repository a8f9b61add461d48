"""``gerbang doctor``: connect to everything that a configuration names, and report what is wrong."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy.cli.checking import is_admin, tables_of

if TYPE_CHECKING:
    from admin.config import AdminSettings
    from gateway.config.settings import GatewaySettings

_MARKS = {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}


@click.command()
@click.option("--config", "path", required=True, type=click.Path(path_type=Path), help="A gateway's or an admin service's configuration.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list of findings.")
def doctor(path: Path, as_json: bool) -> None:
    r"""Connect to everything that a configuration names. Prints a line for each check, with advice for each problem.

    Checks the stores, the role's privileges, the vault's keys against every stored secret and second factor, Redis's eviction policy, the
    identity provider, mail server, webhook receivers, upstreams, clocks, certificate expiry, and untrusted proxies.
    Nothing is changed or sent. Exit status 1 if there is any problem.

    Run it as the service runs: same user, machine and environment.

    \b
    Example: gerbang doctor --config /etc/gerbang/gateway.toml
    """
    import asyncio

    settings = _settings(path)
    wrong = asyncio.run(_print(settings, as_json=as_json))
    if wrong:
        raise click.ClickException(f"{wrong} {'thing is' if wrong == 1 else 'things are'} wrong")


def _settings(path: Path) -> "GatewaySettings | AdminSettings":
    """:raises ConfigError: the configuration itself cannot be used"""
    if is_admin(tables_of(path)):
        from admin.config import load_settings

        return load_settings(path)
    from gateway.process.configuration import load

    return load(path).settings


async def _print(settings: "GatewaySettings | AdminSettings", *, as_json: bool) -> int:
    """Print findings as they arrive. Returns the number of problems."""
    from deploy.doctor import examine

    findings = []
    async for finding in examine(settings):
        findings.append(finding)
        if not as_json:
            click.echo(f"{_MARKS[finding.level]}  {finding.about}: {finding.text}")
            if finding.advice and finding.level != "ok":
                click.echo(f"       → {finding.advice}")
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in findings], indent=2, ensure_ascii=False))
    return sum(finding.level == "wrong" for finding in findings)
