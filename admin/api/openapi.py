"""Generates ``/openapi.json`` (OpenAPI 3.1) from the served operations and their models. Pure."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from admin.api.answers import Problem
from admin.api.operation import ANY_ID, Operation
from admin.errors import (
    IdentityProviderUnavailable,
    InvalidJson,
    InvalidRequest,
    ServiceUnavailable,
    TooLarge,
    TooSlow,
    Unauthenticated,
    UnsupportedMediaType,
)
from admin.identity.browser import CSRF_HEADER, SESSION_COOKIE
from gateway.errors import RateLimited, Refusal

_ALWAYS: tuple[type[Refusal], ...] = (Unauthenticated, RateLimited, ServiceUnavailable, IdentityProviderUnavailable)
_WITH_BODY: tuple[type[Refusal], ...] = (InvalidJson, TooSlow, TooLarge, UnsupportedMediaType, InvalidRequest)
_PARAMETER = re.compile(r"{(\w+)}")
_Schemas = dict[Any, dict[str, Any]]
"""References by model."""
_REFERENCE = "#/components/schemas/{model}"


def document(operations: Sequence[Operation[Any]], *, version: str, server: str) -> dict[str, Any]:
    """The whole document.

    :param server: the service's address, without the operations' paths
    """
    bodies = [operation.body for operation in operations if operation.body is not None]
    answers: list[type[BaseModel]] = [Problem, *(operation.answer for operation in operations if operation.answer is not None)]
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in dict.fromkeys(bodies)]
    wanted += [(model, "serialization") for model in dict.fromkeys(answers)]
    references, definitions = models_json_schema(wanted, ref_template=_REFERENCE)
    schemas: _Schemas = {model: reference for (model, _mode), reference in references.items()}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Gerbang admin API",
            "version": version,
            "description": "API keys of an account: create, list, delete; factors and the proof that each change needs.",
        },
        "servers": [{"url": server}],
        "security": [{"bearer": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "A token of the OpenID issuer."},
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": SESSION_COOKIE,
                    "description": f"For the service's own pages: unsafe calls also need their origin and the header {CSRF_HEADER}.",
                },
            },
        },
    }


def _operation(operation: Operation[Any], schemas: _Schemas) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [*_path_parameters(operation), *_query_parameters(operation)],
        "responses": _responses(operation, schemas),
    }
    if operation.body is not None:
        entry["requestBody"] = {
            "required": operation.body_required,
            "content": {"application/json": {"schema": schemas[operation.body]}},
        }
    return entry


def _responses(operation: Operation[Any], schemas: _Schemas) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    if operation.status < 400:
        responses[str(operation.status)] = {"description": "Done."}
        if operation.answer is not None:
            responses[str(operation.status)]["content"] = {"application/json": {"schema": schemas[operation.answer]}}
    refusals = [*operation.refusals, *_ALWAYS, *(_WITH_BODY if operation.body else (InvalidRequest,) if operation.query else ())]
    for status, codes in sorted(_by_status(refusals).items()):
        responses[str(status)] = {
            "description": " or ".join(codes),
            "content": {"application/problem+json": {"schema": schemas[Problem]}},
        }
    return responses


def _by_status(refusals: Iterable[type[Refusal]]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for refusal in refusals:
        codes = found.setdefault(refusal.status, [])
        if refusal.code not in codes:
            codes.append(refusal.code)
    return found


def _path_parameters(operation: Operation[Any]) -> list[dict[str, Any]]:
    schema = {"type": "string", "pattern": f"^{operation.id_pattern or ANY_ID}$"}
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name in _PARAMETER.findall(operation.path)]


def _query_parameters(operation: Operation[Any]) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    properties = operation.query.model_json_schema()["properties"]
    return [{"name": name, "in": "query", "required": False, "schema": _without_null(schema)} for name, schema in properties.items()]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without null: an absent parameter is omitted, never sent as null."""
    choices = [choice for choice in schema.get("anyOf", []) if choice.get("type") != "null"]
    if len(choices) != 1:
        return schema
    return {**{name: value for name, value in schema.items() if name not in ("anyOf", "default")}, **choices[0]}
