"""An API endpoint as a value, and the request handling that all endpoints of both JSON APIs share.

Routes and ``/openapi.json`` are created from the same values, so that the document is correct.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from admin.api.bodies import Body
from admin.api.problems import of_validation
from admin.api.reading import read_body, read_json
from admin.audit import Provenance
from admin.errors import InvalidJson, NotFound, ServiceUnavailable, UnsupportedMediaType
from gateway.errors import Refusal
from gateway.net.addresses import Network
from gateway.net.client_ip import client_ip
from gateway.runtime import clock

CallerT = TypeVar("CallerT")
ModelT = TypeVar("ModelT", bound=BaseModel)

ANY_ID = "[!-~]{1,255}"
_ID = re.compile(ANY_ID)


class Call(NamedTuple):
    """One parsed request: later code sees no raw headers or bytes."""

    provenance: Provenance
    path: Mapping[str, str]
    query: BaseModel | None
    body: Any
    """An instance of the operation's ``body``; ``None`` if it has none."""


@dataclass(frozen=True, slots=True)
class Operation(Generic[CallerT]):
    """An endpoint."""

    method: str
    path: str
    name: str
    """OpenAPI's ``operationId``."""
    summary: str
    run: Callable[[CallerT, Call], Awaitable[BaseModel | None]]
    _: KW_ONLY
    status: int = 200
    body: type[Body] | None = None
    query: type[Body] | None = None
    id_pattern: str | None = None
    """Pattern of ``{id}`` in the path, if needed to distinguish it from another path; 404 for anything else."""
    refusals: tuple[type[Refusal], ...] = ()
    """The refusals of this operation, in addition to those of all operations."""

    @property
    def pattern(self) -> str:
        """The path for aiohttp's router."""
        return self.path if self.id_pattern is None else self.path.replace("{id}", f"{{id:{self.id_pattern}}}")

    @property
    def answer(self) -> type[BaseModel] | None:
        """The model that ``run`` returns, from its annotation; ``None``: no content."""
        model: type[BaseModel] | None = self.run.__annotations__["return"]
        return model

    @property
    def body_required(self) -> bool:
        """Whether the body has a required member; otherwise an empty body counts as ``{}``."""
        return self.body is not None and any(field.is_required() for field in self.body.model_fields.values())


@dataclass(frozen=True, slots=True)
class Dispatcher(Generic[CallerT]):
    """Turns operations into aiohttp handlers.

    :param admit: authenticates the caller; raises the refusal
    :param timeout_s: time limit for the body, and again for everything else
    """

    admit: Callable[[web.Request, Provenance], Awaitable[CallerT]]
    trusted_proxies: Sequence[Network]
    timeout_s: float
    done: Callable[[web.Request, web.Response, Any], Awaitable[None]] | None = None
    """Called after an operation, with its body, to add to the response. Must not raise: the operation is committed."""

    def routes(self, operations: Iterable[Operation[CallerT]]) -> list[web.RouteDef]:
        """For ``Application.add_routes``, which also serves HEAD for GET."""
        return [web.route(operation.method, operation.pattern, self.handler(operation)) for operation in operations]

    def handler(self, operation: Operation[CallerT]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """The aiohttp handler of an operation."""

        async def handle(request: web.Request) -> web.StreamResponse:
            forwarded_for = request.headers.getall("X-Forwarded-For", [])
            provenance = Provenance(clock.now_ms(), client_ip(request.remote, forwarded_for, self.trusted_proxies))
            try:
                async with asyncio.timeout(self.timeout_s):
                    caller = await self.admit(request, provenance)
            except TimeoutError:
                raise _busy() from None
            query = None if operation.query is None else read_query(request, operation.query)
            body = None if operation.body is None else await self._read_body(request, operation.body, required=operation.body_required)
            try:
                async with asyncio.timeout(self.timeout_s):
                    answer = await operation.run(caller, Call(provenance, _path(request), query, body))
            except TimeoutError:
                raise _busy() from None
            response = _answer(operation.status, answer)
            if self.done is not None:
                await self.done(request, response, body)
            return response

        return handle

    async def _read_body(self, request: web.Request, model: type[Body], *, required: bool) -> Body:
        data = await read_body(request, timeout_s=self.timeout_s)
        if not data and not required:
            data = b"{}"
        elif not data:
            raise InvalidJson("Send a JSON body.")
        elif request.content_type != "application/json":
            raise UnsupportedMediaType("Send Content-Type: application/json.")
        return read_model(data, model)


def read_model(data: bytes, model: type[ModelT]) -> ModelT:
    """Parse JSON as the model; duplicate member names are refused, because parsers treat them differently.

    :raises InvalidJson, InvalidRequest: with every invalid member
    """
    try:
        parsed = model.model_validate_json(data)
    except ValidationError as error:
        raise of_validation(error) from None
    read_json(data)
    return parsed


def read_query(request: web.Request, model: type[Body]) -> Body:
    """The query's parameters; a repeated one is refused as unknown.

    :raises InvalidRequest: with every invalid parameter
    """
    given = dict(request.query) if len(request.query) == len(set(request.query)) else dict.fromkeys(request.query)
    try:
        return model.model_validate_strings(given)
    except ValidationError as error:
        raise of_validation(error) from None


def _path(request: web.Request) -> Mapping[str, str]:
    """:raises NotFound: for a malformed id, before the database is queried"""
    if not all(_ID.fullmatch(value) for value in request.match_info.values()):
        raise NotFound("There is no resource with this id.")
    return request.match_info


def _answer(status: int, answer: BaseModel | None) -> web.Response:
    if answer is None:
        return web.Response(status=status)
    return web.Response(status=status, body=answer.model_dump_json().encode(), content_type="application/json")


def _busy() -> ServiceUnavailable:
    return ServiceUnavailable(
        "The request timed out. Check whether the change was made before you try again.", headers=((b"Retry-After", b"2"),)
    )
