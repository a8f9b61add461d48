"""The guide's list of error codes, read from the classes that raise them. Pure."""

from types import ModuleType
from typing import NamedTuple

import admin.errors
import gateway.errors
from gateway.errors import Refusal


class Code(NamedTuple):
    """One error code, and which service returns it."""

    code: str
    statuses: tuple[int, ...]
    title: str
    by_gate: bool


def codes() -> list[Code]:
    """Each code once, ordered by status; a code of both services is listed as the gateway's."""
    found: dict[str, Code] = {}
    for module, by_gate in ((gateway.errors, True), (admin.errors, False)):
        for kind in _refusals(module):
            known = found.get(kind.code)
            if known is None:
                found[kind.code] = Code(kind.code, (kind.status,), kind.title, by_gate)
            elif kind.status not in known.statuses:
                found[kind.code] = known._replace(statuses=(*known.statuses, kind.status))
    return sorted(found.values(), key=lambda code: (not code.by_gate, code.statuses, code.code))


def _refusals(module: ModuleType) -> list[type[Refusal]]:
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Refusal)]
    return [kind for kind in kinds if kind.__module__ == module.__name__ and kind is not Refusal]
