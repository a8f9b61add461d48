"""The settings that the clients' guide prints, taken from it: what a customer copies is what the tests run."""

import json
import re
from pathlib import Path
from typing import Any

GUIDE = Path(__file__).parents[2] / "deploy" / "clients" / "GUIDE.md"
NAMES = ("GATE", "STREAM", "KEY_ID", "SECRET")


def block(heading: str) -> str:
    """The first fenced block below a heading."""
    _, found, rest = GUIDE.read_text().partition(f"\n## {heading}\n")
    assert found, f"the guide has no part {heading}"
    return re.search(r"^```\w+\n(.*?)^```", rest.partition("\n## ")[0], re.DOTALL | re.MULTILINE)[1]


def values(system, key) -> dict[str, str]:
    """What stands for the guide's names here."""
    stream = system.gateway_url.replace("http://", "ws://")
    return {"GATE": system.gateway_url, "STREAM": stream, "KEY_ID": key["key_id"], "SECRET": key["secret"]}


def python(heading: str, names: dict[str, str]) -> dict[str, Any]:
    """What a Python block defines when it is run with these names."""
    defined: dict[str, object] = dict(names)
    exec(compile(block(heading), f"GUIDE.md: {heading}", "exec"), defined)  # our own file
    return defined


def configuration(heading: str, names: dict[str, str]) -> dict:
    """A JSON block with its names put in."""
    text = block(heading)
    for name in NAMES:
        text = text.replace(f'"{name}', f'"{json.dumps(names[name])[1:-1]}')
    return json.loads(text)
