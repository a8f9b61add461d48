"""A secret value whose ``repr`` hides it."""

import hmac
from typing import NoReturn


class Secret:
    """Bytes that are not exposed by ``repr``, ``str``, formatting, logging, pickling or copying. Only ``reveal()`` returns them."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The bytes themselves: for a cryptographic primitive, or for the one answer that shows a new secret."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]  # a secret in a set or as a dict key would be compared in variable time

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled")
