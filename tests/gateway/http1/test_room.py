"""What the room says of itself: which files refuse request smuggling, and that they can be read at one sitting."""

import ast
import re
from pathlib import Path

from gateway import http1

ROOM = Path(http1.__file__).parent
NAMED = {name for line in (http1.__doc__ or "").splitlines() if line.startswith("* ") for name in re.findall(r"``(\w+)``", line)}


def imported(module: str) -> set[str]:
    """Modules of the room that a module of it imports."""
    tree = ast.parse((ROOM / f"{module}.py").read_text())
    named = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {name.removeprefix("gateway.http1.") for name in named if name.startswith("gateway.http1.")}


def test_smuggling_is_refused_in_fewer_than_1000_lines() -> None:
    assert len(NAMED) > 5
    assert sum(len((ROOM / f"{name}.py").read_text().splitlines()) for name in NAMED) < 1_000


def test_no_other_file_has_a_part_in_reading_a_request() -> None:
    read, found = {"request_reader"}, {"request_reader"}
    while found:
        found = {name for module in found for name in imported(module)} - read
        read |= found
    assert read | {"headers"} == NAMED
