"""Brief refusals, without an explanation, for unauthenticated clients when too many of their requests are refused. Pure.

A flood consists of these, so each is a value instead of an exception. Its answer is rendered once for each code and form; each
request adds only its id and the members that belong to the code.
"""

import json
from json.encoder import encode_basestring
from typing import Final

from gateway.admission import answers
from gateway.admission.dialects import Dialect
from gateway.admission.dialects.base import invalid, shown
from gateway.admission.rules import rate_limited
from gateway.errors import InvalidCredentials, RateLimited, Refusal, Requester
from gateway.http1.message import Answer
from gateway.http1.response import status_line

EXPLAINED_LATER: Final = "too many requests are refused at the moment for each to be explained: send one alone, and its answer says why"
THROTTLED: Final = "per_ip_failures"
"""The exhausted resource of a throttled address, as a metric's label."""
_PLACE: Final = "<request id>"


class BriefRefusal:
    """The refusal of invalid credentials, already counted."""

    __slots__ = ("_address", "_key_id", "_signed_bytes", "_throttled_ms")

    def __init__(self, key_id: str | None, address: str, throttled_ms: float, signed: bytes) -> None:
        self._key_id = key_id
        """Claimed; of an existing key."""
        self._address = address
        self._throttled_ms = throttled_ms
        self._signed_bytes = signed

    @property
    def kind(self) -> type[Refusal]:
        """The class of the refusal."""
        return RateLimited if self._throttled_ms else InvalidCredentials

    @property
    def wait_ms(self) -> int:
        """Milliseconds for which the address is throttled; -1: it is not."""
        return max(1, round(self._throttled_ms)) if self._throttled_ms else -1

    @property
    def members(self) -> bytes:
        """The problem's extension members, in JSON."""
        if self._throttled_ms:
            return b'"retry_after_ms":%d' % self.wait_ms
        return b'"string_to_sign":' + encode_basestring(shown(self._signed_bytes)).encode("utf-8", "backslashreplace")

    def refusal(self) -> Refusal:
        """As an exception, for callers that can only raise."""
        refusal = throttled(self._throttled_ms) if self._throttled_ms else invalid(EXPLAINED_LATER, self._signed_bytes)
        refusal.brief = True
        refusal.requester = Requester(self._key_id, None, self._address)
        return refusal


def throttled(throttled_ms: float) -> Refusal:
    """The refusal of an address with too many failures."""
    return rate_limited("too many failed authentication attempts from your IP address", throttled_ms, THROTTLED)


class BriefAnswer:
    """The answer to one code of refusal in one form."""

    __slots__ = ("_begin", "_end", "_fields", "_length", "_lines", "_size", "_status", "_status_line")

    def __init__(self, kind: type[Refusal], dialect: Dialect | None, docs_url: str) -> None:
        answer = answers.render(kind(EXPLAINED_LATER), request_id=_PLACE, dialect=dialect, docs_url=docs_url)
        self._status = answer.status
        self._fields = answer.headers
        begin, _, end = answer.body.partition(_PLACE.encode())
        self._begin: bytes = begin
        self._end: bytes = end
        self._status_line = status_line(answer.status)
        self._lines = b"".join([name + b": " + value + b"\r\n" for name, value in answer.headers])
        self._size = -1
        self._length = b""
        """The Content-Length line of a body of ``_size`` bytes, and the end of the head."""

    def answer(self, refusal: Refusal, request_id: str) -> Answer:
        """The answer to a refusal that was raised."""
        fields = self._fields + refusal.headers if refusal.headers else self._fields
        members = ",".join([f'"{name}":{_value(value)}' for name, value in refusal.extras.items()])
        return Answer(self._status, fields, self._body(request_id, members.encode("utf-8", "backslashreplace")))

    def whole(self, refused: BriefRefusal, request_id: str, date: bytes) -> bytes:
        """Head and body, for a connection that is kept open.

        :param date: the ``Date`` field line
        """
        body = self._body(request_id, refused.members)
        if len(body) != self._size:
            self._size = len(body)
            self._length = b"content-length: %d\r\n\r\n" % len(body)
        wait_ms = refused.wait_ms
        wait = b"" if wait_ms < 0 else b"Retry-After: %d\r\n" % -(-wait_ms // 1000)
        return b"".join((self._status_line, date, self._lines, wait, self._length, body))

    def _body(self, request_id: str, members: bytes) -> bytes:
        if not members:
            return b"".join((self._begin, request_id.encode(), self._end))
        return b"".join((self._begin, request_id.encode(), b'",', members, self._end[1:]))


def _value(value: object) -> str:
    """A member's value in JSON, ten times faster than a JSON encoder."""
    if isinstance(value, str):
        return encode_basestring(value)
    return str(value) if type(value) is int else _compact(value)


_compact: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
