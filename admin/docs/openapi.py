"""OpenAPI 3.1 for the gateway's own endpoints, ``/gateway/v1/*``. Pure."""

from typing import Any

from admin.docs.facts import GateFacts

_STRING, _INTEGER = {"type": "string"}, {"type": "integer"}
_MOMENT = {"type": "string", "format": "date-time"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


_PROBLEM = _object(type=_STRING, title=_STRING, status=_INTEGER, code=_STRING, detail=_STRING, request_id=_STRING)
_TIME = _object(server_time_ms=_INTEGER, server_time=_MOMENT)
_ADDRESS = _object(client_ip=_STRING, family={"type": "string", "enum": ["ipv4", "ipv6"]})
_KEY = _object(
    key_id=_STRING,
    label=_STRING,
    scopes={"type": "array", "items": {"type": "string", "enum": ["read", "trade"]}},
    algorithm={"type": "string", "enum": ["hmac-sha256", "ed25519", "rsa-sha256"]},
    ip_access={"type": "string", "enum": ["unrestricted", "whitelisted"]},
    ip_allowlist={"type": "array", "items": _STRING},
    created_at=_MOMENT,
    expires_at={"type": ["string", "null"], "format": "date-time"},
    limits=_object(per_key=_STRING, limit=_INTEGER, period_ms=_INTEGER, remaining=_INTEGER, reset_ms=_INTEGER),
)
_SCHEMES = {
    "mobee": [("X-API-Key", "The key id."), ("X-Request-Timestamp", "Unix time."), ("X-Request-Signature", "Base64 of the signature.")],
    "binance": [("X-MBX-APIKEY", "The key id; timestamp and signature are parameters.")],
    "rfc9421": [("Signature-Input", "Covered components and the key id."), ("Signature", "The signature (RFC 9421).")],
}


def document(facts: GateFacts, *, version: str, server: str) -> dict[str, Any]:
    """The document; its security schemes are the header fields of the configured dialects.

    :param server: the gateway's URL
    """
    schemes = {dialect: [f"{dialect} {name}" for name, _ in _SCHEMES[dialect]] for dialect in facts.auth.dialects}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Gateway", "version": version, "description": "Endpoints that the gateway answers itself."},
        "servers": [{"url": server}],
        "paths": {
            "/gateway/v1/time": {"get": _operation("time", "The gateway's time", _TIME)},
            "/gateway/v1/ip": {"get": _operation("ip", "The client IP address that the gateway sees", _ADDRESS, "400")},
            "/gateway/v1/key": {
                "get": _operation(
                    "key", "The key that signed the request: permissions, IP allowlist, remaining limits", _KEY, "401", "403", "429"
                )
                | {"security": [{name: [] for name in names} for names in schemes.values()]}
            },
        },
        "components": {
            "schemas": {"Problem": _PROBLEM},
            "securitySchemes": {
                f"{dialect} {name}": {"type": "apiKey", "in": "header", "name": name, "description": text}
                for dialect in facts.auth.dialects
                for name, text in _SCHEMES[dialect]
            },
        },
    }


def _operation(name: str, summary: str, answer: dict[str, Any], *refusals: str) -> dict[str, Any]:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [],
        "security": [],
        "responses": {"200": {"description": "Done.", "content": {"application/json": {"schema": answer}}}}
        | {status: {"description": "Refused.", "content": problem} for status in refusals},
    }
