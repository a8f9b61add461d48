"""``gerbang shadow``: report what shadow mode would have refused."""

from collections import Counter
from typing import Any

import click

from deploy.cli.arguments import OPS_ADVICE, service_url
from deploy.cli.operator import show


@click.group()
def shadow() -> None:
    """Shadow mode: auth.enforce = "shadow"."""


@shadow.command()
@click.option(
    "--ops",
    "urls",
    callback=lambda context, option, urls: tuple(service_url(context, option, url) for url in urls),
    multiple=True,
    default=("http://127.0.0.1:8081",),
    show_default=True,
    envvar="GERBANG_OPS_URL",
    show_envvar=True,
    help="A gateway's ops port; once for each gateway.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def report(urls: tuple[str, ...], *, as_json: bool) -> None:
    r"""Show what would have been decided in shadow mode, by route and code, since the gateways were started.

    For the reason of each request, see the events shadow_refused in the log.

    \b
    Example: gerbang shadow report --ops http://10.0.0.1:8081 --ops http://10.0.0.2:8081
    """
    reports = {url: _asked(url) for url in urls}
    counts: Counter[tuple[str, str]] = Counter()
    for each in reports.values():
        for decision in each["decisions"]:
            counts[decision["route"], decision["outcome"]] += decision["count"]
    would_pass = sum(count for (_, outcome), count in counts.items() if outcome == "admitted")
    refused = [(route, outcome, count) for (route, outcome), count in counts.most_common() if outcome != "admitted"]
    if as_json:
        show(
            {
                "enforce": {url: each["enforce"] for url, each in reports.items()},
                "would_pass": would_pass,
                "would_refuse": [{"route": route, "code": code, "count": count} for route, code, count in refused],
            }
        )
        return
    for url, each in reports.items():
        click.echo(f'{url}: auth.enforce = "{each["enforce"]}"', err=True)
    click.echo(f"{would_pass} would pass, {sum(count for *_, count in refused)} would be refused", err=True)
    for route, code, count in refused:
        click.echo(f"{count:10}  {code:28} {route or '(no route)'}")


def _asked(url: str) -> dict[str, Any]:
    from deploy.client import ask, explanation

    reply = ask("GET", f"{url}/shadow", advice=OPS_ADVICE)
    if reply.status != 200 or not isinstance(reply.content, dict):
        raise click.ClickException(f"{url}: {explanation(reply)}")
    if "decisions" not in reply.content:
        raise click.ClickException(f"{url} is not a gateway's ops port, though it answered: set --ops to its listen.ops")
    return reply.content
