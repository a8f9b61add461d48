"""Manifests judged strictly by Kubernetes' own schemas, which ``kubernetes-validate`` ships: no object has a member it does not know."""

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator
from kubernetes_validate.utils import major_minor, schema_contents
from referencing import Registry, Resource


def complaints(document: dict[str, Any], version: str) -> list[str]:
    """What the schemas hold against a manifest.

    :param version: of Kubernetes, ``1.37.0``
    :raises FileNotFoundError: that version of Kubernetes has no such kind
    """
    group, _, rest = document["apiVersion"].partition("/")
    api = f"{group.partition('.')[0]}-{rest}" if rest else group
    found = _validator(version, f"{document['kind'].lower()}-{api}").iter_errors(document)
    return [f"{document['kind']} {error.json_path}: {error.message[:200]} (Kubernetes {major_minor(version)})" for error in found]


def spoiled(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Copies of a manifest, each with one member that nobody knows, in each of its objects in turn; with where that is."""
    for path in _objects(document, ()):
        other = copy.deepcopy(document)
        inside: Any = other
        for step in path:
            inside = inside[step]
        inside["unheardOf"] = [True]
        yield f"{document['kind']} {'.'.join(map(str, path))}", other


def _objects(value: object, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, dict):
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, each in inner:
        yield from _objects(each, (*path, step))


@cache
def _validator(version: str, name: str) -> Draft202012Validator:
    folder = f"kubernetes-json-schema/v{version}-local-strict"
    schema = schema_contents(f"{folder}/{name}.json", version)
    return Draft202012Validator(schema, registry=_definitions(version))


@cache
def _definitions(version: str) -> Registry[Any]:
    definitions = Resource.from_contents(schema_contents(f"kubernetes-json-schema/v{version}-local-strict/_definitions.json", version))
    return definitions @ Registry()
