"""Settings of a worker: plain values that can be serialized as JSON.

The parent validates a configuration and passes it to its workers. They use the attribute names of ``config/settings.py``, but import its
classes for type checking only: pydantic and its models would take some 10 MiB in each worker.
"""

from collections import namedtuple
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

from gateway.config.values import Address, Rate

SCALARS: Final = (bool, int, float, str, type(None))


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


def serialize(value: Any) -> Any:
    """The settings, or a value in them, for the channel to a worker: secrets in the clear.

    A scalar as it is, anything else as an object with one member, named after the type.
    """
    if isinstance(value, SCALARS):
        return value
    if hasattr(type(value), "model_fields"):
        names = [*type(value).model_fields, *type(value).model_computed_fields]
        return {"section": {name: serialize(getattr(value, name)) for name in names}}
    if isinstance(value, dict):
        return {"table": {key: serialize(item) for key, item in value.items()}}
    if hasattr(value, "get_secret_value"):
        return {"secret": value.get_secret_value()}
    for kind, of in (("rate", Rate), ("address", Address)):
        if isinstance(value, of):
            return {kind: list(value)}
    if isinstance(value, tuple):
        return {"tuple": [serialize(item) for item in value]}
    return {"path" if isinstance(value, Path) else "network": str(value)}


def deserialize(value: Any) -> Any:
    """Parse the output of :func:`serialize`."""
    if isinstance(value, SCALARS):
        return value
    ((kind, content),) = value.items()
    return _READ[kind](content)


@lru_cache
def _section(names: tuple[str, ...]) -> type[tuple[Any, ...]]:
    """The type of a section with these settings: immutable, compared by value."""
    return namedtuple("Section", names)  # noqa: PYI024 - the names are known only here


_READ: Final[dict[str, Callable[[Any], object]]] = {
    "section": lambda content: _section(tuple(content))(*map(deserialize, content.values())),
    "table": lambda content: {key: deserialize(item) for key, item in content.items()},
    "tuple": lambda content: tuple(map(deserialize, content)),
    "secret": Hidden,
    "rate": lambda content: Rate(*content),
    "address": lambda content: Address(*content),
    "path": Path,
    "network": ip_network,
}
