"""Renders the guide's pages in both languages, once per start or reload. Pure."""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from admin.docs import markup, programs, refusals
from admin.docs.facts import GateFacts

LANGUAGES = ("id", "en")
_HERE = Path(__file__).parent
TEXTS = tomllib.loads((_HERE / "texts.toml").read_text("utf-8"))
CAUSES: dict[str, dict[str, list[str]]] = tomllib.loads((_HERE / "refusals.toml").read_text("utf-8"))


class Source(NamedTuple):
    """The data that the pages show."""

    facts: GateFacts
    gateway_url: str
    admin_api: Mapping[str, Any]
    """An OpenAPI document, like ``gateway_api``."""
    gateway_api: Mapping[str, Any]


class Section(NamedTuple):
    """A section of the guide."""

    id: str
    title: str
    text: Markup
    block: str
    examples: list[programs.Example]


def pages(source: Source, environment: jinja2.Environment) -> dict[tuple[str, str], str]:
    """Every page by name (``guide``, ``reference``) and language."""
    environment.filters.update(md=markup.html, line=markup.inline, code=markup.code)
    return {
        (name, language): environment.get_template(f"{name}.html").render(_values(source, language))
        for name in ("guide", "reference")
        for language in LANGUAGES
    }


def _values(source: Source, language: str) -> dict[str, Any]:
    return {
        "language": language,
        "languages": LANGUAGES,
        "gateway": source.gateway_url,
        "word": {name: text[language] for name, text in TEXTS["words"].items()},
        "sections": _sections(source, language),
        "facts": source.facts,
        "limits": _limits(source.facts, language),
        "codes": [
            (code, *(CAUSES[code.code][what][LANGUAGES[::-1].index(language)] for what in ("cause", "cure"))) for code in refusals.codes()
        ],
        "programs": programs.programs(),
        "apis": [
            ("gateway", source.gateway_api, _operations(source.gateway_api)),
            ("admin", source.admin_api, _operations(source.admin_api)),
        ],
    }


def _sections(source: Source, language: str) -> list[Section]:
    found, auth = programs.examples(), source.facts.auth
    names = {
        **_addresses(source.gateway_url),
        "window_s": f"{auth.clock_window_ms / 1000:g}",
        "max_window_s": f"{auth.max_clock_window_ms / 1000:g}",
    }
    made = []
    for section in TEXTS["sections"]:
        if section.get("dialect", auth.dialects[0]) not in auth.dialects:
            continue
        title, text = section["en" if language == "en" else "id_"]
        text = re.sub(r"{(gateway|stream|window_s|max_window_s)}", lambda name: names[name[1]], text)
        examples = [_with_addresses(example, names) for part in section.get("examples", ()) for example in found[part]]
        if language != "en":
            examples = [example._replace(about=TEXTS["examples"][example.name]) for example in examples]
        made.append(Section(section["id"], title, markup.html(text), section.get("block", ""), examples))
    return made


def examples(gateway_url: str) -> list[programs.Example]:
    """Every example of the guide for download, with this gateway's address."""
    return [_with_addresses(example, _addresses(gateway_url)) for part in programs.examples().values() for example in part]


def _addresses(gateway_url: str) -> dict[str, str]:
    return {"gateway": gateway_url, "stream": re.sub("^http", "ws", gateway_url)}


def _with_addresses(example: programs.Example, names: Mapping[str, str]) -> programs.Example:
    """An example with this gateway's address instead of that of ``gerbang up``."""
    text = example.text.replace("ws://127.0.0.1:8080", names["stream"]).replace("http://127.0.0.1:8080", names["gateway"])
    return example._replace(text=text)


def _limits(facts: GateFacts, language: str) -> list[tuple[str, str, str]]:
    """Name, description and value of each limit that is set."""
    values = {**dict(facts.auth), **dict(facts.limits)}
    texts = {name: text[language] for name, text in TEXTS["limits"].items()}
    found = [(name, text, str(values[name])) for name, text in texts.items() if values.get(name) is not None]
    return found + [
        (f"{tier}.{name}", f"{texts[name]} ({tier})", str(rate))
        for tier, rates in facts.tiers.items()
        for name, rate in rates
        if rate is not None
    ]


class Operation(NamedTuple):
    """One operation of an OpenAPI document, as the reference page shows it."""

    method: str
    path: str
    id: str
    summary: str
    signed: bool
    example: str
    """An example body, as JSON; ``""``: it has none."""
    statuses: list[tuple[str, str]]


def _operations(document: Mapping[str, Any]) -> list[Operation]:
    return [
        Operation(
            method.upper(),
            path,
            operation.get("operationId") or re.sub(r"\W+", "-", f"{method}{path}"),
            operation.get("summary", ""),
            bool(operation.get("security", document.get("security"))),
            example(document, operation),
            [(status, answer["description"]) for status, answer in operation.get("responses", {}).items()],
        )
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def example(document: Mapping[str, Any], operation: Mapping[str, Any]) -> str:
    """An example of the operation's JSON body; ``""``: it has none."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    return "" if content is None else json.dumps(_of_schema(document, content.get("schema", {}), 0), indent=2)


def _of_schema(document: Mapping[str, Any], schema: Mapping[str, Any], depth: int) -> Any:
    """An example value of a schema: its example, default or first choice, or an empty value of its type."""
    if "$ref" in schema:
        found: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    if schema.get("examples"):
        return schema["examples"][0]
    for known in ("default", "const"):
        if known in schema:
            return schema[known]
    if schema.get("enum"):
        return schema["enum"][0]
    if "properties" in schema and depth < 4:  # before "allOf", which contains constraints on them
        return {name: _of_schema(document, inner, depth + 1) for name, inner in schema["properties"].items()}
    choices = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if choices:
        return _of_schema(document, choices[0], depth)
    return {"array": [], "object": {}, "integer": 0, "number": 0, "boolean": False, "null": None}.get(str(schema.get("type")), "")
