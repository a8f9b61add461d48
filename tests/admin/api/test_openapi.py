"""The OpenAPI document: served, complete, and true of what is served."""

import re
from typing import Any

import pytest

from tests.support.admin import KEY, Customer, Service


@pytest.fixture
async def document(service: Service) -> dict[str, Any]:
    reply = await service.send("GET", f"{service.public}/openapi.json")
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    return reply.body


async def test_it_is_openapi_3_1_and_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    schemas = document["components"]["schemas"]
    references = set(re.findall(r"'#/components/schemas/(\w+)'", repr(document)))
    assert references <= set(schemas)
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))


async def test_it_names_every_call_of_the_contract(document: dict[str, Any]) -> None:
    calls = {(method.upper(), path) for path, operations in document["paths"].items() for method in operations}
    assert calls >= {
        ("GET", "/api/v1/account"),
        ("POST", "/api/v1/factors/totp"),
        ("POST", "/api/v1/factors/totp/{id}/confirm"),
        ("POST", "/api/v1/factors/passkeys/options"),
        ("POST", "/api/v1/factors/passkeys"),
        ("DELETE", "/api/v1/factors/{id}"),
        ("POST", "/api/v1/step-up"),
        ("POST", "/api/v1/keys"),
        ("GET", "/api/v1/keys"),
        ("GET", "/api/v1/keys/{id}"),
        ("DELETE", "/api/v1/keys/{id}"),
        ("GET", "/api/v1/audit"),
    }


async def test_every_call_it_names_is_served_and_guarded(document: dict[str, Any], service: Service) -> None:
    for path, operations in document["paths"].items():
        for method in operations:
            reply = await service.send(method.upper(), service.public + path.replace("{id}", "fac_x"))
            assert reply.status == 401, (method, path)


async def test_answers_have_the_members_it_names(document: dict[str, Any], alice: Customer) -> None:
    schemas = document["components"]["schemas"]
    created = (await alice.create()).body
    assert set(created) == set(schemas["KeyCreated"]["properties"])
    assert set(created["key"]) == set(schemas["Key"]["properties"]) == set(schemas["Key"]["required"])
    assert set((await alice.call("GET", "account")).body) == set(schemas["AccountView"]["properties"])
    refused = (await alice.call("POST", "keys", {**KEY, "label": ""})).body
    assert set(schemas["Problem"]["required"]) <= set(refused)
    assert set(refused["errors"][0]) == set(schemas["FieldProblem"]["properties"])


async def test_the_bounds_it_names_are_the_ones_that_hold(document: dict[str, Any], alice: Customer) -> None:
    members = document["components"]["schemas"]["KeyCreation"]["properties"]
    assert (members["label"]["minLength"], members["label"]["maxLength"]) == (1, 64)
    assert members["ip_allowlist"]["maxItems"] == 3
    for days, status in ((members["expires_in_days"]["maximum"], 403), (members["expires_in_days"]["maximum"] + 1, 422)):
        assert (await alice.call("POST", "keys", {**KEY, "expires_in_days": days})).status == status
