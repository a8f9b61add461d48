"""Loads and compiles a configuration, and reports every error in it without connecting to anything.

``gerbang check``, start-up and reload all use it.
"""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from gateway.admission.routes import RouteTable
from gateway.admission.sessions import SESSIONS
from gateway.config.loading import Raw, read, validate
from gateway.config.settings import GatewaySettings, RouteConfig, Rule
from gateway.errors import ConfigError, ConfigProblem
from gateway.keys import redis_client
from gateway.keys.postgres import check_dsn
from gateway.keys.vault import Vault
from gateway.net.tls import server_context
from gateway.process.version import Configuration
from gateway.telemetry.tracing import check_installed

T = TypeVar("T")


def load(path: Path) -> Configuration:
    """Read and compile a configuration file.

    :raises ConfigError: with every problem found
    """
    return prepare_raw(read(path))


def prepare_raw(raw: Raw) -> Configuration:
    """Compile a configuration that was read. Opens the files that the settings name, nothing else.

    :raises ConfigError: with every problem found
    """
    problems: list[ConfigProblem] = []
    settings = _collect(problems, lambda: validate(raw, GatewaySettings))
    routes = _collect(problems, lambda: RouteTable.compile(_routes(raw, problems), settings.methods if settings is not None else {}))
    for section, key, check in _CHECKED:
        value = _at(raw.values, section, key)
        if isinstance(value, str) and f"{section}.{key}" not in {problem.path for problem in problems}:
            _collect(problems, lambda: check(value))  # noqa: B023 - called at once
    if settings is not None:
        problems += _problems_of_files(settings) + _problems_of_weights(settings) + _problems_of_sessions(settings)
    if problems or settings is None or routes is None:
        raise ConfigError(problems, raw.source)
    return Configuration.of(settings, routes)


_CHECKED: tuple[tuple[str, str, Callable[[str], object]], ...] = (
    ("stores", "postgres", check_dsn),
    ("stores", "redis", redis_client.connect),  # connects on first use
    ("vault", "keys", Vault.parse),
    ("telemetry", "traces", check_installed),
)
"""Values with their own syntax, checked even if the file has other errors."""


def _collect(problems: list[ConfigProblem], make: Callable[[], T]) -> T | None:
    """The result of ``make``; its problems are added to ``problems``."""
    try:
        return make()
    except ConfigError as error:
        problems += error.problems
        return None


def _at(values: dict[str, Any], section: str, key: str) -> object:
    found = values.get(section)
    return found.get(key) if isinstance(found, dict) else None


def _routes(raw: Raw, known: list[ConfigProblem]) -> list[RouteConfig]:
    """The routes to check for conflicts, even if the file has other errors; none if a pattern is invalid."""
    if any(problem.path.startswith("routes") and problem.path.endswith(".match") for problem in known):
        return []
    try:
        return [_route(written) for written in raw.values.get("routes", [])]
    except (ValidationError, TypeError, LookupError):
        return []


def _route(written: Any) -> RouteConfig:
    """A route, reduced to its pattern if it has other errors, so that all errors are reported together.

    :raises ValidationError, TypeError, LookupError: it has no usable pattern
    """
    try:
        return RouteConfig.model_validate(written)
    except ValidationError:
        return RouteConfig(match=written["match"], scope="public", upstream="")


def _problems_of_files(settings: GatewaySettings) -> list[ConfigProblem]:
    problems: list[ConfigProblem] = []
    tls = settings.listen.tls
    if tls is not None:
        _collect(problems, lambda: server_context(tls))
    for name, upstream in settings.upstreams.items():
        if upstream.tls is not None and upstream.tls.ca is not None:
            try:
                ssl.create_default_context(cafile=upstream.tls.ca)
            except OSError as error:  # ssl.SSLError is one, too
                problems.append(ConfigProblem(f"upstreams.{name}.tls.ca", f"{upstream.tls.ca}: {error.strerror or error}"))
    return problems


def _problems_of_weights(settings: GatewaySettings) -> list[ConfigProblem]:
    """Problems of routes whose weight no key could ever pay."""
    units = settings.limits.per_key.units
    rules = [(f"routes[{index}]", cast("Rule", route)) for index, route in enumerate(settings.routes)]
    rules += [(f'methods.{table}."{name}"', rule) for table, methods in settings.methods.items() for name, rule in methods.items()]
    return [
        ConfigProblem(f"{path}.weight", f"{rule.weight} is above the whole of limits.per_key, {settings.limits.per_key}")
        for path, rule in rules
        if rule.weight > units and rule.scope != "public"
    ]


def _problems_of_sessions(settings: GatewaySettings) -> list[ConfigProblem]:
    """Problems of log-in methods that require no key."""
    return [
        ConfigProblem(f'methods.{route.methods}."{log_in}".scope', "a log-in needs a key: any, read or trade")
        for route in settings.routes
        if route.session and (log_in := SESSIONS[route.session].log_in)
        if (rule := settings.methods.get(route.methods or "", {}).get(log_in)) is not None and rule.scope == "public"
    ]
