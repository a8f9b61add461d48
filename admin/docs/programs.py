"""The guide's code examples and client settings, read from the files that the tests run (``deploy/clients``).

They are read as data; nothing of ``deploy`` is imported.
"""

import re
from pathlib import Path
from typing import NamedTuple

CLIENTS = Path(__file__).parents[2] / "deploy" / "clients"

EXAMPLES = {
    "signing": ("python/sign.py", "node/sign.mjs", "php/sign.php", "go/sign.go", "bash/gerbang.sh"),
    "libraries": ("python/with_requests.py", "python/with_httpx.py", "python/with_aiohttp.py", "node/gerbang.mjs", "python/order.py"),
    "sessions": ("python/session.py", "node/session.mjs"),
    "spreadsheets": ("google-apps-script/Gerbang.gs",),
}
"""The files that each section shows."""
_ROW = re.compile(r"^\| `([\w./-]+)` \| (.*) \|$", re.MULTILINE)
"""A row of the table in ``README.md``: a file and its description."""


class Example(NamedTuple):
    """An example file."""

    name: str
    text: str
    about: str
    """Its description, in ``markup``'s syntax, in English."""


class Program(NamedTuple):
    """A section of the guide about trading programs."""

    anchor: str
    name: str
    text: str
    """In ``markup``'s syntax, in English."""


def examples() -> dict[str, list[Example]]:
    """The example files of each section."""
    about = dict(_ROW.findall((CLIENTS / "README.md").read_text("utf-8")))
    return {
        section: [Example(name, (CLIENTS / name).read_text("utf-8"), _sentences(about[name])) for name in names]
        for section, names in EXAMPLES.items()
    }


def _sentences(row: str) -> str:
    what, _, needs = row.partition(" | ")
    return f"{what[0].upper()}{what[1:]}. Needs: {needs}."


def programs() -> list[Program]:
    """Every section of ``GUIDE.md``."""
    parts = re.split(r"^## ", (CLIENTS / "GUIDE.md").read_text("utf-8"), flags=re.MULTILINE)[1:]
    return [_program(*part.split("\n", 1)) for part in parts]


def _program(name: str, text: str) -> Program:
    return Program(re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"), name, text)
