"""Compares two configurations: what changed, by key path and without secrets, and what needs a restart. Pure."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, SecretStr

from gateway.config.fields import Section
from gateway.config.settings import GatewaySettings

RESTART_ONLY = ("listen", "stores", "vault", "client_ip.proxy_protocol")
"""Sections that a reload cannot apply: sockets, connections to the stores and the key ring are created once."""


class Change(NamedTuple):
    """One difference: ``upstreams.spot.servers[0]`` changed from one value to another. Secrets are shown as ``***``."""

    kind: Literal["added", "removed", "changed"]
    path: str
    before: object
    after: object


def changes(before: Section, after: Section) -> list[Change]:
    """All differences, in file order. Routes are identified by their match, so that inserting one is a single change."""
    return list(_differences("", _tree(before), _tree(after)))


def needs_restart(found: list[Change]) -> list[str]:
    """Key paths among the changes that a reload cannot apply."""
    return [change.path for change in found if f"{change.path}.".startswith(tuple(f"{path}." for path in RESTART_ONLY))]


def shown(settings: GatewaySettings) -> dict[str, Any]:
    """The settings for display to operators, routes by their match; without the stores and the vault."""
    tree: dict[str, Any] = _tree(settings)
    return {section: values for section, values in tree.items() if section not in ("stores", "vault")}


class _Hidden(NamedTuple):
    """A secret: compared by value, shown as ``***``."""

    value: str


def _tree(value: Any) -> Any:
    """Settings as nested dicts of plain values; lists of routes become dicts by match."""
    if isinstance(value, GatewaySettings):
        return {**_fields(value), "routes": {route.match: _fields(route) for route in value.routes}}
    if isinstance(value, BaseModel):
        return _fields(value)
    if isinstance(value, dict):
        return {key: _tree(item) for key, item in value.items()}
    if isinstance(value, SecretStr):
        return _Hidden(value.get_secret_value())
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return [_tree(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _fields(model: BaseModel) -> dict[str, Any]:
    return {field.alias or name: _tree(getattr(model, name)) for name, field in type(model).model_fields.items()}


def _differences(path: str, before: Any, after: Any) -> Iterator[Change]:
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            where = _below(path, key)
            if key not in after:
                yield Change("removed", where, None, None)
            elif key not in before:
                yield Change("added", where, None, None)
            else:
                yield from _differences(where, before[key], after[key])
        return
    yield Change("changed", path, _shown(before), _shown(after))


def _below(path: str, key: str) -> str:
    if path == "routes":
        return f"routes[{key}]"
    return f"{path}.{key}" if path else key


def _shown(value: Any) -> object:
    return "***" if isinstance(value, _Hidden) else value
