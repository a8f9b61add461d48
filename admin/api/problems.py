"""Error handling of the admin service: exceptions as ``application/problem+json`` (RFC 9457).

Callers receive the refusal's public members only. Internal errors are logged, without bodies or credentials.
"""

import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from aiohttp import web
from pydantic import ValidationError

from admin.api.reading import host_of
from admin.errors import FieldError, InvalidJson, InvalidRequest, NoEndpoint, ServiceUnavailable, WrongMethod
from gateway.errors import PROBLEM_JSON, InternalError, Refusal, StoreUnavailable, problem_of
from gateway.runtime import clock
from gateway.telemetry import AccessLog

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

REQUEST_ID = web.RequestKey("request_id", str)
CODE = web.ResponseKey("refusal_code", str)
REASON = web.ResponseKey("refusal_reason", str)
"""For the log only."""
ACCOUNT = web.RequestKey("account", str)
OPERATOR = web.RequestKey("operator", str)
"""The caller, once known."""
DOCS_URL = web.AppKey("docs_url", str)
"""URL of the guide that explains each code; ``""``: none."""

_log = structlog.get_logger(__name__)
_budget = AccessLog(0.0)
"""Of requests that a store did not answer: anyone can send them."""


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The outermost middleware: renders exceptions as problems, and adds the request id to every response."""
    request[REQUEST_ID] = secrets.token_hex(16)
    try:
        host_of(request)
        response = await handler(request)
    except Refusal as refusal:
        response = answer_of(refusal, request)
    except web.HTTPException as error:
        response = error if error.status < 400 else answer_of(of_aiohttp(error, request), request)
    except StoreUnavailable as error:
        if _budget.takes(clock.monotonic_ms()):
            _log.error("store_unavailable", path=request.path, request_id=request[REQUEST_ID], reason=str(error))
        response = answer_of(_unavailable(), request)
    except Exception:  # noqa: BLE001  # the outermost boundary: logged whole, answered without details
        _log.exception("request_failed", path=request.path, request_id=request[REQUEST_ID])
        response = answer_of(InternalError("An internal error occurred. Quote the request id when you contact support."), request)
    return response


def answer_of(refusal: Refusal, request: web.Request) -> web.Response:
    """The problem document of a refusal."""
    body = problem_of(refusal, request_id=request[REQUEST_ID], docs_url=request.config_dict.get(DOCS_URL, ""))
    headers = [(name.decode("ascii"), value.decode("ascii")) for name, value in refusal.headers]
    response = web.Response(
        status=refusal.status, body=json.dumps(body, ensure_ascii=False).encode(), headers=headers, content_type=PROBLEM_JSON
    )
    response[CODE] = refusal.code
    response[REASON] = refusal.reason
    return response


async def finish_headers(request: web.Request, response: web.StreamResponse) -> None:
    """A signal handler for every response."""
    common_headers(response, request.get(REQUEST_ID, ""))


def common_headers(response: web.StreamResponse, request_id: str) -> None:
    """Forbid caching unless the handler allows it, and hide the server version."""
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "no-referrer")
    response.headers["Server"] = "gerbang"
    if request_id:
        response.headers["X-Request-Id"] = request_id


def of_aiohttp(error: web.HTTPException, request: web.Request) -> Refusal:
    """Translate aiohttp's own errors, from its router and its body reader."""
    if isinstance(error, web.HTTPNotFound):
        return NoEndpoint("There is no such endpoint: see /openapi.json.")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allow = ", ".join(sorted(error.allowed_methods))
        return WrongMethod(f"{request.path} takes {allow}.", headers=((b"Allow", allow.encode("ascii")),))
    if error.status < 500:
        return InvalidJson("The request could not be parsed.", reason=f"aiohttp: {type(error).__name__}")
    return InternalError("An internal error occurred. Quote the request id when you contact support.")


def _unavailable() -> ServiceUnavailable:
    return ServiceUnavailable(
        "The database did not answer. Check whether the change was made before you try again.", headers=((b"Retry-After", b"2"),)
    )


def of_validation(error: ValidationError) -> Refusal:
    """The errors of a body, by member; 400 if it is not JSON. No input is repeated."""
    found = error.errors(include_url=False)
    if any(item["type"] == "json_invalid" for item in found):
        where = next(item["ctx"]["error"] for item in found if item["type"] == "json_invalid")
        return InvalidJson(f"The body is not JSON: {where}.")
    return InvalidRequest([_field_error(item) for item in found])


def _field_error(item: Any) -> FieldError:
    kind, context = str(item["type"]), item.get("ctx", {})
    field = _path(item["loc"])
    if item["input"] is None and kind != "extra_forbidden":
        kind = "missing"
    for prefix, (code, message) in _MESSAGES.items():
        if kind.startswith(prefix):
            return FieldError(field, code, message.format(**context))
    if kind == "value_error":
        return FieldError(field, "invalid", str(context["error"]))
    if kind.endswith("_type"):
        return FieldError(field, "wrong_type", f"Send {_TYPES.get(kind, 'another type')}.")
    return FieldError(field, "invalid", "The value is not valid here.")


_MESSAGES = {
    "missing": ("required", "This is required."),
    "extra_forbidden": ("unknown", "There is no such member."),
    "literal_error": ("not_a_choice", "Choose from: {expected}."),
    "union_tag_not_found": ("required", "Say which action: {discriminator}."),
    "union_tag_invalid": ("not_a_choice", "Choose an action from: {expected_tags}."),
    "not_printable": ("not_printable", "Letters, digits, spaces and symbols only: no control characters."),
    "string_pattern_mismatch": ("malformed", "Not in the form that these have."),
    "string_too_short": ("required", "At least {min_length} characters."),
    "string_too_long": ("too_long", "At most {max_length} characters."),
    "less_than_equal": ("out_of_range", "At most {le}."),
    "greater_than_equal": ("out_of_range", "At least {ge}."),
}
_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}


def _path(location: tuple[str | int, ...]) -> str:
    # Within an intent, the names of the creation itself: a form's fields are found by them in both calls.
    parts = location[2:] if location[0:1] == ("intent",) and len(location) > 2 else location
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path
