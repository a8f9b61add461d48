"""``gerbang check``: validate a configuration, and explain how one request would be routed."""

import os
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.plural import counted

if TYPE_CHECKING:
    from gateway.admission.routes import Route
    from gateway.process.version import Configuration


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--explain", metavar='"METHOD /path"', help="Print the route, scope, upstream and limits of this request.")
@click.option("--strict", is_flag=True, help="An environment variable that is not set here is an error, not a note.")
def check(file: Path, explain: str | None, strict: bool) -> None:
    r"""Validate a gateway's or an admin service's configuration: all errors at once, each with its key path.

    A configuration is often checked on another machine than it runs on: an "env:NAME" whose variable is not set gives a note, and
    a placeholder value is used.

    \b
    Example: gerbang check config/gateway.toml --explain "GET /v1/markets/BTC-IDR/summary"
    """
    raw = tables_of(file)
    with _stand_ins(raw, strict=strict) as notes:
        for note in notes:
            click.echo(f"note: {note}", err=True)
        if is_admin(raw):
            from admin.config import load_settings

            if explain is not None:
                raise click.UsageError("--explain is about a gateway's routes, and this is an admin service's configuration")
            settings = load_settings(file)
            if settings.docs is not None:
                from admin.docs.facts import read_facts

                read_facts(settings.docs.gateway_config)
            click.echo(f"{file}: a valid admin configuration")
            return
        from gateway.admission.verdict import notes as decision_notes
        from gateway.net.client_ip import notes as client_ip_notes
        from gateway.process.configuration import load as compile_gateway

        configuration = compile_gateway(file)
        gateway = configuration.settings
        for where, note in client_ip_notes(gateway.client_ip) + decision_notes(gateway):
            click.echo(f"note: {where}: {note}", err=True)
    if explain is None:
        click.echo(f"{file}: a valid gateway configuration, {counted(len(configuration.settings.routes), 'route')}")
        return
    for name, value in _explained(configuration, explain):
        click.echo(f"{name:10}{value}")


def _explained(configuration: "Configuration", request: str) -> list[tuple[str, str]]:
    """Route, scope, upstream and limits of one request, as lines to print.

    :raises ClickException: the refusal that the gate would give
    """
    from gateway.errors import Refusal

    method, _, path = request.strip().partition(" ")
    path = path.strip()
    if not method.isascii() or not method.isalpha() or not path.startswith("/") or not path.isascii() or " " in path:
        raise click.UsageError('write the request as "METHOD /path", e.g. --explain "GET /v1/wallets"')
    try:
        route = configuration.routes.match(method.upper().encode(), path.partition("?")[0].encode())
    except Refusal as refusal:
        raise click.ClickException(f"{refusal.status} {refusal.code}: {refusal.detail}") from None
    settings, limits, public = configuration.settings, configuration.settings.limits, route.scope == "public"
    if route.builtin:
        return [("route", str(route.pattern)), ("scope", str(route.scope)), ("answered", "by the gate itself")]
    return [
        ("route", f"{route.pattern} (routes[{route.position}])"),
        ("scope", str(route.scope)),
        ("upstream", f"{route.upstream}: {', '.join(settings.upstreams[route.upstream].servers)}"),
        *([("closed", f"503 maintenance, retry after {route.maintenance_retry_ms} ms: {route.maintenance}")] if route.maintenance else []),
        ("weight", f"{route.weight} of {limits.per_address} per address" if public else f"{route.weight} of {limits.per_key} per key"),
        ("replay", _replay(route, settings.auth.dialects)),
        ("body", f"at most {limits.max_body_bytes} bytes"),
        *([("websocket", route.session or "a tunnel")] if route.websocket else []),
        *([("message", f"at most {limits.max_message_bytes} bytes")] if route.session else []),
        *[("method", _method(name, method)) for name, method in sorted(route.methods.items())],
    ]


def _replay(route: "Route", dialects: Sequence[str]) -> str:
    if not route.strict_replay:
        claims = "binance" in dialects and route.scope != "public" and not route.replay_off
        return "off, but for the dialect binance: reads may share a signature, never with a trade" if claims else "off"
    return (
        "strict: each signature is accepted once" if route.scope == "trade" else "strict: reads may share a signature, never with a trade"
    )


def _method(name: str, rule: "Route") -> str:
    """One line on one method of a session."""
    return f"{name:32} scope {rule.scope:7} weight {rule.weight:<5} replay {'strict' if rule.strict_replay else 'off'}"


def tables_of(file: Path) -> dict[str, Any]:
    """The file's tables; empty if it cannot be read, which validation reports."""
    try:
        return tomllib.loads(file.read_text())
    except (OSError, ValueError):
        return {}


def is_admin(raw: dict[str, Any]) -> bool:
    """Whether it is an admin service's configuration; a gateway's when that cannot be determined."""
    return "routes" not in raw and bool({"oidc", "internal", "public_url"} & raw.keys())


@contextmanager
def _stand_ins(raw: dict[str, Any], *, strict: bool) -> Iterator[list[str]]:
    """Set placeholders for missing environment variables during the check; yields a note on each."""
    wanted = {} if strict else {name: where for where, name in _environment(raw, "") if name and name not in os.environ}
    os.environ.update({name: _stand_in(where) for name, where in wanted.items()})
    try:
        yield [f"{where}: the environment variable {name} is not set here" for name, where in wanted.items()]
    finally:
        for name in wanted:
            del os.environ[name]


def _environment(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _environment(item, f"{where}.{key}" if where else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _environment(item, f"{where}[{index}]")
    elif isinstance(value, str) and value.startswith("env:"):
        yield where, value[4:]


def _stand_in(where: str) -> str:
    """A placeholder of the right form."""
    if where == "vault.keys":
        from gateway.keys.vault import new_entry

        return new_entry("unset")
    return {"stores.postgres": "postgresql://unset@localhost/unset", "stores.redis": "redis://localhost"}.get(where, "unset-" + "x" * 24)
