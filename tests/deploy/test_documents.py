"""What an operator or a bot's owner meets is documented: settings, metrics, commands, refusals, alerts, calls. Links and commands hold."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from pydantic import BaseModel

from admin.api.table import operations
from admin.config import AdminSettings
from admin.internal import table as internal_table
from admin.internal.handlers import InternalApi
from admin.metrics import FAMILIES as ADMIN_FAMILIES
from deploy.cli import main
from gateway.admission import explanations, hints
from gateway.config.settings import GatewaySettings
from gateway.errors import Refusal
from gateway.telemetry.metrics import FAMILIES

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "deploy" / "README.md").read_text()
CODES = (ROOT / "deploy" / "REFUSALS.md").read_text()
DECISIONS = sorted((ROOT / "deploy" / "decisions").glob("*.md"))
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "deploy").rglob("*.md")),
]
RULES = [rule for group in yaml.safe_load((ROOT / "deploy/observability/alerts.yaml").read_text())["groups"] for rule in group["rules"]]


def models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from models_in(inner)


def settings_of(model: type[BaseModel], section: str = "", path: str = "") -> Iterator[tuple[str, str, str]]:
    """Section of the file, name, and dotted path of each setting; what lies deeper stands in the table of its section."""
    for attribute, field in model.model_fields.items():
        name = field.alias or attribute
        inner = next(models_in(field.annotation), None)
        dotted = f"{path}.{name}" if path else name
        if inner is None or section:
            yield section, name, dotted
        if inner is not None:
            yield from settings_of(inner, section or name, dotted)


def written_in(file: str) -> dict[str, set[str]]:
    """Names set in each section of an example, in comments too: that is how what has no default is shown, whole tables among them."""
    names: dict[str, set[str]] = {}
    section = ""
    for line in (ROOT / "config" / file).read_text().splitlines():
        if header := re.match(r"(?:# )?\[{1,2}(\w+)", line):
            section = header[1]
        names.setdefault(section, set()).update(re.findall(r"(\w+) = ", line))
    return names


def commands_of(group: click.Group, path: str = "gerbang") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands_of(command, f"{path} {name}")
        else:
            yield f"{path} {name}"


def own_codes() -> set[str]:
    """The gate's and the admin service's; not those that another test module may have made up."""
    classes = [Refusal]
    for above in classes:
        classes.extend(above.__subclasses__())
    return {one.code for one in classes if one.__module__.split(".")[0] in ("gateway", "admin")}


class Anything:
    """Stands for an API whose table of endpoints is read and never called."""

    def __getattr__(self, name: str) -> object:
        return lambda *_: None


def calls() -> list[str]:
    inside = internal_table.operations(InternalApi(Anything(), Anything(), Anything()))  # type: ignore[arg-type]
    all_of_them: list[Any] = [*operations(Anything()), *inside]
    return sorted(f"{one.method} {one.path}" for one in all_of_them)  # type: ignore[arg-type]


def command_lines() -> list[str]:
    blocks = re.findall(r"^ *```console\n(.*?)^ *```", GUIDE, re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line.removeprefix("$ ") for line in lines if re.match(r"\$ (\w+=\S+ )*gerbang ", line)]


@pytest.mark.parametrize(("file", "model"), [("gateway.toml", GatewaySettings), ("admin.toml", AdminSettings)])
def test_every_setting_stands_in_its_example(file, model):
    written = written_in(file)
    assert not [path for section, name, path in settings_of(model) if name not in written.get(section, ())]


ALL_FAMILIES: list[Any] = [*FAMILIES.values(), *ADMIN_FAMILIES]


@pytest.mark.parametrize("name", sorted(family.name for family in ALL_FAMILIES))
def test_the_guide_names_every_metric(name):
    assert f"| `{name}` |" in GUIDE


def events() -> set[str]:
    """What the services log, by the calls of their loggers."""
    trees = [ast.walk(ast.parse(file.read_text())) for service in ("gateway", "admin") for file in (ROOT / service).rglob("*.py")]
    calls = [node for tree in trees for node in tree if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("_log.")]
    return {
        text.value for call in calls for text in ast.walk(call.args[0]) if isinstance(text, ast.Constant) and isinstance(text.value, str)
    }


@pytest.mark.parametrize("event", sorted(events()))
def test_the_guide_names_every_event_of_the_logs(event):
    rows = GUIDE.partition("| Event | Meaning |")[2].partition("\n\n")[0].splitlines()
    assert len([row for row in rows if f"`{event}`" in row.split(" | ")[0]]) == 1


@pytest.mark.parametrize("command", sorted(commands_of(main)))
def test_the_guide_names_every_command(command):
    assert f"| `{command}" in GUIDE


@pytest.mark.parametrize("code", sorted(own_codes()))
def test_every_refusal_is_explained(code):
    assert f"`{code}` |" in CODES


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_has_its_heading_in_the_runbook(rule):
    assert f"\n### {rule['alert']}\n" in GUIDE


def test_the_runbook_speaks_of_no_other_alert():
    assert set(re.findall(r"^### (Gerbang\w+)$", GUIDE, re.MULTILINE)) == {rule["alert"] for rule in RULES}


@pytest.mark.parametrize("call", calls())
def test_the_guide_names_every_call(call):
    assert f"`{call}`" in GUIDE


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file(document):
    links = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", document.read_text())
    assert not [link for link in links if not (document.parent / link).exists()]


@pytest.mark.parametrize("document", [ROOT / "SECURITY.md", ROOT / "deploy" / "README.md", *DECISIONS], ids=lambda path: path.name)
def test_every_file_named_in_the_text_exists(document):
    named = set(re.findall(r"`((?:gateway|admin|deploy|config|tests)/[\w./-]+)`", document.read_text()))
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("line", command_lines())
def test_a_command_line_of_the_guide_parses(line, monkeypatch):
    words = shlex.split(line.partition(" | ")[0])
    while words[0] != "gerbang":
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    words = words[1:]
    command: Any = main
    context = click.Context(main, info_name="gerbang")
    while isinstance(command, click.Group):
        command, context = command.commands[words[0]], click.Context(command.commands[words[0]], parent=context)
        words = words[1:]
    command.parse_args(context, words)


def test_the_guide_shows_commands():
    assert len(command_lines()) >= 10


def test_whoever_writes_a_dump_is_told_that_others_can_read_it():
    sections = [section for section in GUIDE.split("\n### ") if "$ pg_dump " in section]
    assert len(sections) == 2
    assert [section.partition("\n")[0] for section in sections if "`umask 077`" not in section] == []


def test_decisions_are_numbered_in_turn():
    assert [int(path.name[:4]) for path in DECISIONS] == list(range(1, len(DECISIONS) + 1))


def defined_in(file: Path) -> set[str]:
    """Names of the classes, functions and methods of a module, methods as ``Class.method``."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)}
    return found


@pytest.mark.parametrize("document", ["deploy/REQUEST.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_the_files_and_functions_that_a_page_names_exist(document: str):
    text = (ROOT / document).read_text()
    files = set(re.findall(r"`((?:gateway|admin|deploy|config|tests)/[\w./-]*)`", text))
    functions = set(re.findall(r"`((?:gateway|admin|deploy)/[\w./]+\.py):([\w.]+)`", text))
    assert [name for name in files if not (ROOT / name).exists()] == []
    assert [f"{file}:{name}" for file, name in sorted(functions) if name not in defined_in(ROOT / file)] == []
    assert document != "deploy/REQUEST.md" or len(functions) > 20


def test_the_refusals_page_names_the_limits_in_force():
    for limit in (
        f"at most {explanations.PER_ADDRESS} refusals per second and address",
        f"and {explanations.IN_ALL} per second in total",
        f"{hints.PER_KEY} times per minute for each key",
    ):
        assert limit in CODES


def test_each_member_that_a_hint_or_a_signature_adds_to_a_refusal_is_named():
    row = next(line for line in CODES.splitlines() if line.startswith("| `invalid_credentials`"))
    assert {"`hint`", "`string_to_sign`"} <= set(re.findall(r"`\w+`", row))
