"""Reads requests: the Host, and the body as bytes, JSON or a form, with limits on size and time.

Handlers must not read bodies in any other way: aiohttp's own readers have no time limit, and their decoding errors are not
refusals.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from admin.errors import InvalidJson, TooLarge, TooSlow, UnsupportedMediaType

FORM = "application/x-www-form-urlencoded"

_MOST_FIELDS = 20
_HOST = re.compile(r"([A-Za-z0-9\-._~]+|\[[0-9A-Fa-f:.]{2,45}\])?(?::([0-9]{1,5}))?")
_LAST_PORT = 65_535


def host_of(request: web.Request) -> str:
    """The name or address in ``Host``, without port and brackets; ``""`` if there is none.

    :raises InvalidJson: it is repeated, or is not a host (RFC 9112 §3.2)
    """
    given = request.headers.getall("Host", [])
    match = _HOST.fullmatch(given[0] if given else "")
    if match is None or len(given) > 1 or int(match[2] or 0) > _LAST_PORT:
        raise InvalidJson("The Host header field is invalid.")
    return (match[1] or "").strip("[]").lower()


async def read_body(request: web.Request, *, timeout_s: float, limit: int | None = None) -> bytes:
    """The complete body.

    :param limit: in bytes; ``None``: the application's
    :raises TooSlow, TooLarge: it exceeds the time or size limit
    :raises UnsupportedMediaType: it is compressed
    :raises InvalidJson: its framing is malformed, or the connection was lost
    """
    if any(coding.strip().lower() not in ("", "identity") for coding in request.headers.getall("Content-Encoding", [])):
        raise UnsupportedMediaType("Send the body without Content-Encoding.", headers=((b"Accept-Encoding", b"identity"),))  # RFC 7694 §3
    most = request.client_max_size if limit is None else limit
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > most:
                    raise TooLarge(f"The body exceeds {most} bytes.", extras={"limit": most})
    except TimeoutError:
        raise TooSlow(f"The body did not arrive within {timeout_s:g} s.") from None
    except (web.RequestPayloadError, HttpProcessingError, ConnectionError) as error:
        raise InvalidJson("The body could not be read.", reason=f"body: {type(error).__name__}") from None
    return bytes(body)


def read_json(body: bytes) -> Any:
    """:raises InvalidJson: not JSON in UTF-8 (RFC 8259), or a member name is repeated in an object"""
    try:
        return json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise InvalidJson("The body is not JSON.") from None


async def read_form(request: web.Request, *, timeout_s: float) -> Mapping[str, str]:
    """The fields of a form in UTF-8; empty for an empty body.

    :raises UnsupportedMediaType: another type or charset
    :raises InvalidJson: not decodable, or a field is repeated
    :raises TooSlow, TooLarge: see :func:`read_body`
    """
    body = await read_body(request, timeout_s=timeout_s)
    if not body:
        return {}
    if request.content_type != FORM or (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
        raise UnsupportedMediaType(f"Send Content-Type: {FORM}.")
    return form_of(body)


def form_of(body: bytes) -> Mapping[str, str]:
    """:raises InvalidJson: not decodable, or a field is repeated"""
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise InvalidJson("The form could not be decoded.") from None
    if len(dict(fields)) < len(fields):
        raise InvalidJson("The form repeats a field.")
    return dict(fields)


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        raise InvalidJson("An object in the body repeats a member name.")
    return found


def _no_constant(name: str) -> object:
    raise ValueError(name)
