"""Statements are called with as many values as they take: asyncpg says so when one runs, in the words of a connection that is away."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
RUNS = {"fetch", "fetchrow", "fetchval", "execute"}
MODULES = sorted(
    path for room in ("gateway", "admin") for path in (ROOT / room).rglob("*.py") if re.search(rf"\.({'|'.join(RUNS)})\(", path.read_text())
)


def statement_of(node: ast.expr, module: ModuleType) -> str | None:
    """The text of a literal, of a constant of the module or of a module that it imports; None of what is put together at the call."""
    if isinstance(node, ast.Constant):
        found: object = node.value
    elif isinstance(node, ast.Name):
        found = getattr(module, node.id, None)
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        found = getattr(getattr(module, node.value.id, None), node.attr, None)
    else:
        return None
    return found if isinstance(found, str) and " " in found.strip() else None


def calls_in(path: Path) -> Iterator[tuple[int, int, int]]:
    """Line, values given, values taken, of each statement whose text stands in a constant."""
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in RUNS and node.args):
            continue
        text = statement_of(node.args[0], module)
        if text is not None and not any(isinstance(value, ast.Starred) for value in node.args):
            yield node.lineno, len(node.args) - 1, max(map(int, re.findall(r"\$(\d+)", text)), default=0)


@pytest.mark.parametrize("path", [path for path in MODULES if "migrations" not in path.parts], ids=lambda path: str(path.relative_to(ROOT)))
def test_each_statement_is_given_as_many_values_as_it_takes(path):
    assert not [f"line {line}: {given} given, {taken} taken" for line, given, taken in calls_in(path) if given != taken]


def test_the_statements_are_found():
    """What is looked at: most of them, the feed's among them."""
    assert sum(1 for path in MODULES if "migrations" not in path.parts for _ in calls_in(path)) > 50
    assert any(taken == 2 for _, _, taken in calls_in(ROOT / "gateway/keys/invalidation.py"))
