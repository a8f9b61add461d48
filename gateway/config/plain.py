"""Settings of a worker: plain values that can be serialized as JSON.

The parent validates a configuration and passes it to its workers. They use the attribute names of ``config/settings.py``, but import its
classes for type checking only: pydantic and its models would take some 10 MiB in each worker.
"""

from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from gateway.config.values import Address, Rate

if TYPE_CHECKING:
    from gateway.config.settings import GatewaySettings

SCALARS: Final = (bool, int, float, str, type(None))


class Plain:
    """A section: attributes are read-only, comparison is by value."""

    def __init__(self, values: dict[str, object]) -> None:
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"settings are immutable: {name}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plain) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]  # it has dicts


class Hidden:
    """A secret, like pydantic's ``SecretStr``: hidden in its representation."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def get_secret_value(self) -> str:
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hidden) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)


def serialize(settings: "GatewaySettings") -> dict[str, Any]:
    """The settings for a worker, secrets in the clear: only for the channel to it."""
    return cast("dict[str, Any]", _written(settings))


def deserialize(written: dict[str, Any]) -> "GatewaySettings":
    """Parse the output of :func:`serialize`."""
    return cast("GatewaySettings", _read(written))


def _written(value: Any) -> object:
    """A scalar as it is, anything else as an object with one member, named after the type."""
    if isinstance(value, SCALARS):
        return value
    if hasattr(type(value), "model_fields"):
        names = [*type(value).model_fields, *type(value).model_computed_fields]
        return {"section": {name: _written(getattr(value, name)) for name in names}}
    if isinstance(value, dict):
        return {"table": {key: _written(item) for key, item in value.items()}}
    if hasattr(value, "get_secret_value"):
        return {"secret": value.get_secret_value()}
    for kind, of in (("rate", Rate), ("address", Address)):
        if isinstance(value, of):
            return {kind: list(value)}
    if isinstance(value, tuple):
        return {"tuple": [_written(item) for item in value]}
    return {"path" if isinstance(value, Path) else "network": str(value)}


def _read(value: Any) -> object:
    if isinstance(value, SCALARS):
        return value
    ((kind, content),) = value.items()
    return _READ[kind](content)


_READ: Final[dict[str, Callable[[Any], object]]] = {
    "section": lambda content: Plain({name: _read(item) for name, item in content.items()}),
    "table": lambda content: {key: _read(item) for key, item in content.items()},
    "tuple": lambda content: tuple(map(_read, content)),
    "secret": Hidden,
    "rate": lambda content: Rate(*content),
    "address": lambda content: Address(*content),
    "path": Path,
    "network": ip_network,
}
