"""``gerbang config``: print the commented example of a configuration, or its JSON Schema."""

import json
from pathlib import Path

import click

_SERVICE = click.argument("service", type=click.Choice(["gateway", "admin"]))
_HERE = Path(__file__).parents[1]


@click.group()
def config() -> None:
    """Print commented examples and JSON Schemas of the configuration files."""


@config.command()
@_SERVICE
def example(service: str) -> None:
    r"""Print the commented example: every setting, with its default unless it is marked "required".

    \b
    Example: gerbang config example gateway > gateway.toml
    """
    installed = _HERE / "examples" / f"{service}.toml"
    file = installed if installed.exists() else _HERE.parent / "config" / installed.name  # in a checkout
    click.echo(file.read_text(encoding="utf-8"), nl=False)


@config.command()
@_SERVICE
def schema(service: str) -> None:
    r"""Print the JSON Schema (2020-12) of a configuration, for editors that check TOML while it is written.

    \b
    Example: gerbang config schema gateway > gateway.schema.json
    """
    from admin.config import AdminSettings
    from gateway.config.settings import GatewaySettings

    model = GatewaySettings if service == "gateway" else AdminSettings
    found = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    click.echo(json.dumps({**found, "title": f"{service}.toml of Gerbang"}, indent=2, ensure_ascii=False))
