"""``POST /reports/secrets``: reports of leaked secrets, in the format of GitHub's secret scanning partner program.

https://docs.github.com/en/code-security/secret-scanning/secret-scanning-partnership-program/secret-scanning-partner-program.
The signature is over the raw body and is verified before the body is parsed.
"""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any, Literal
from weakref import WeakValueDictionary

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, RootModel

from admin.api.operation import read_model
from admin.api.reading import read_body
from admin.api.reporters import ReporterKeys
from admin.errors import ReportNotSigned
from admin.lifecycle.leaks import Found, Leaks
from gateway.net.addresses import most_of_site, owners
from gateway.runtime import clock

PATH = "/reports/secrets"
IDENTIFIER, SIGNATURE = "Github-Public-Key-Identifier", "Github-Public-Key-Signature"
MAX_BODY = 1_048_576
_MAX_REPORTS = 10_000
_MAX_CONCURRENT = 4
"""Concurrent reports per network. Further ones wait unread; none is refused, since a reporter may send many."""
_SMALL_BODY = 65_536
_MAX_LARGE = 32
"""Concurrent reports, of all networks, that may have a body above the size of any other request's. Smaller ones do not wait for these."""
_MAX_URL_LENGTH = 4_096
_NOT_SIGNED = "The signature is not one of the reporter's over this body."


class Report(BaseModel):
    """One finding. Other members are ignored, so that an unexpected one does not prevent the others' revocation."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    token: str = Field(repr=False)
    type: str
    url: str | None = Field(None, description="Where it was found; may be empty.")
    source: str | None = None


class Reports(RootModel[list[Report]]):
    root: list[Report] = Field(max_length=_MAX_REPORTS)


class Answered(BaseModel):
    token_hash: str = Field(description="SHA-256 of the token, in hexadecimal.")
    token_type: str
    label: Literal["true_positive", "false_positive"]


class AllAnswered(RootModel[list[Answered]]):
    """In the order of the report."""


class SecretReports:
    """The handler. Memory for unverified reports is limited per network, and for large ones in total."""

    def __init__(self, leaks: Leaks, reporters: ReporterKeys, *, client_ip: Callable[[web.Request], str | None], timeout_s: float) -> None:
        self._leaks = leaks
        self._reporters = reporters
        self._client_ip = client_ip
        self._timeout_s = timeout_s
        self._semaphores: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._large = asyncio.Semaphore(_MAX_LARGE)
        self._large_of_sites: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def handle(self, request: web.Request) -> web.Response:
        """:raises ReportNotSigned, TooLarge, TooSlow, InvalidJson, InvalidRequest, ServiceUnavailable: nothing was changed"""
        whose = owners(self._client_ip(request) or "")
        async with self._semaphores.setdefault(whose[-1], asyncio.Semaphore(_MAX_CONCURRENT)):
            if request.content_length is not None and request.content_length <= _SMALL_BODY:
                return await self._answer(request)
            most = asyncio.Semaphore(most_of_site(_MAX_CONCURRENT, _MAX_LARGE))
            async with self._large_of_sites.setdefault(whose[0], most), self._large:
                return await self._answer(request)

    async def _answer(self, request: web.Request) -> web.Response:
        body = await read_body(request, timeout_s=self._timeout_s, limit=MAX_BODY)
        signed = await self._reporters.verifies(
            body, identifier=_only(request, IDENTIFIER), signature=_only(request, SIGNATURE), now_ms=clock.monotonic_ms()
        )
        if not signed:
            raise ReportNotSigned(_NOT_SIGNED)
        reports = read_model(body, Reports).root
        known = await self._leaks.revoke([Found(report.token, _found_at(report)) for report in reports], clock.now_ms())
        answered = [_answer(report, is_known) for report, is_known in zip(reports, known, strict=True)]
        return web.Response(body=AllAnswered(answered).model_dump_json().encode(), content_type="application/json")


def described() -> dict[str, Any]:
    """Its description in ``/openapi.json``."""
    header = {"in": "header", "required": True, "schema": {"type": "string"}}
    problem = {"content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    return {
        "operationId": "reportSecrets",
        "summary": "Report secrets found in public, as GitHub's secret scanning does; their keys are revoked at once",
        "security": [],
        "parameters": [
            {**header, "name": IDENTIFIER, "description": "Which of the reporter's published keys signed."},
            {**header, "name": SIGNATURE, "description": "ECDSA on P-256 with SHA-256 over the raw body, DER, in Base64."},
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _array_of(Report)}}},
        "responses": {
            "200": {"description": "Done, in the order of the report.", "content": {"application/json": {"schema": _array_of(Answered)}}},
            **{status: {"description": said, **problem} for status, said in _REFUSED.items()},
        },
    }


def _array_of(model: type[BaseModel]) -> dict[str, Any]:
    return {"type": "array", "maxItems": _MAX_REPORTS, "items": model.model_json_schema()}


_REFUSED = {
    "400": "malformed_request",
    "403": "report_not_signed",
    "408": "request_timeout",
    "413": "body_too_large",
    "422": "invalid_request",
    "503": "service_unavailable",
}


def _answer(report: Report, known: bool) -> Answered:
    digest = hashlib.sha256(report.token.encode("utf-8", "surrogatepass")).hexdigest()
    return Answered(token_hash=digest, token_type=report.type, label="true_positive" if known else "false_positive")


def _found_at(report: Report) -> str | None:
    """The URL for the audit and the owner, if it can be opened."""
    return report.url if report.url and len(report.url) <= _MAX_URL_LENGTH and report.url.isprintable() else None


def _only(request: web.Request, name: str) -> str:
    """The field's value; ``""`` if it is repeated."""
    values = request.headers.getall(name, [])
    return values[0] if len(values) == 1 else ""
