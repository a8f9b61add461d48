"""``gerbang check``: validate a configuration, and explain how one request would be routed."""

import base64
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    if is_admin(raw):
        from admin.config import load_settings

        if explain is not None:
            raise click.UsageError("--explain is about a gateway's routes, and this is an admin service's configuration")
        with _stand_ins(raw, lambda: load_settings(file), strict=strict) as notes:
            _print_notes(notes)
            settings = load_settings(file)
            if settings.docs is not None:
                from admin.docs.facts import read_facts

                read_facts(settings.docs.gateway_config)
        click.echo(f"{file}: a valid admin configuration")
        return
    from gateway.admission.verdict import notes as decision_notes
    from gateway.net.client_ip import notes as client_ip_notes
    from gateway.process.configuration import load as compile_gateway

    with _stand_ins(raw, lambda: compile_gateway(file), strict=strict) as notes:
        _print_notes(notes)
        configuration = compile_gateway(file)
        gateway = configuration.settings
        _print_notes([f"{where}: {note}" for where, note in client_ip_notes(gateway.client_ip) + decision_notes(gateway)])
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
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}


def is_admin(raw: dict[str, Any]) -> bool:
    """Whether it is an admin service's configuration; a gateway's when that cannot be determined."""
    return "routes" not in raw and bool({"oidc", "internal", "public_url"} & raw.keys())


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        click.echo(f"note: {note}", err=True)


@contextmanager
def _stand_ins(raw: dict[str, Any], load: Callable[[], object], *, strict: bool) -> Iterator[list[str]]:
    """Set placeholders for missing environment variables during the check; yields a note on each.

    :param load: reads the configuration with the environment as it is
    """
    places = [] if strict else [(where, name) for where, name in _environment(raw, "") if name and name not in os.environ]
    try:
        _set_placeholders({name: [where for where, wanted in places if wanted == name] for _, name in places}, load)
        yield [f"{where}: the environment variable {name} is not set here" for where, name in places]
    finally:
        for _, name in places:
            os.environ.pop(name, None)


def _set_placeholders(places: Mapping[str, Sequence[str]], load: Callable[[], object]) -> None:
    """Set each variable to the first placeholder that the settings of its places accept; if there is none, to plain text.

    :param places: the key paths at which each variable is named
    """
    from gateway.errors import ConfigError

    left = {name: iter(_placeholders(name)) for name in places}
    trying = set(places)
    while trying:
        for name in trying:
            os.environ[name] = next(left[name], f"unset-{name}")
        refused: set[str] = set()
        try:
            load()
        except ConfigError as error:
            refused = {problem.path for problem in error.problems}
        trying = {name for name in trying if not refused.isdisjoint(places[name]) and os.environ[name] != f"unset-{name}"}


def _environment(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _environment(item, f"{where}.{key}" if where else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _environment(item, f"{where}[{index}]")
    elif isinstance(value, str) and value.startswith("env:"):
        yield where, value[4:]


def _placeholders(name: str) -> list[str]:
    """Values of every form that a setting may have. The variables' names make secrets differ, which some must."""
    from gateway.keys.vault import new_entry

    return [
        f"unset-{name}-{'x' * 24}",
        new_entry("unset"),
        "postgresql://unset@localhost/unset",
        "redis://localhost",
        "https://unset.invalid",
        "smtps://unset.invalid",
        "unset@unset.invalid",
        f"whsec_{base64.b64encode(name.encode().ljust(24)[:64]).decode()}",
        "127.0.0.1:0",
        "127.0.0.1/32",
        "1000/minute",
        "1000",
        "true",
    ]
