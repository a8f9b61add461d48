"""Renders refusals and JSON documents as HTTP answers: the one place where a refusal becomes bytes. Pure.

``application/problem+json`` (RFC 9457), or the form that the route's dialect prefers, with the problem inside.
"""

import json
from collections.abc import Mapping
from json.encoder import encode_basestring

from gateway.admission.dialects import Dialect
from gateway.errors import PROBLEM_JSON, Refusal, problem_of
from gateway.http1.message import Answer

_NO_STORE = (b"Cache-Control", b"no-store")
_PROBLEM = (b"Content-Type", PROBLEM_JSON.encode())
_JSON = (b"Content-Type", b"application/json")


def render(refusal: Refusal, *, request_id: str, dialect: Dialect | None, docs_url: str = "") -> Answer:
    """The answer to a refused request.

    :param dialect: whose form it has; ``None``: a plain problem
    :param docs_url: of the customers' documentation; ``""``: there is none
    """
    problem = problem_of(refusal, request_id=request_id, docs_url=docs_url)
    own = dialect.refusal(problem) if dialect is not None else None
    if own is None:
        return Answer(refusal.status, (_PROBLEM, _NO_STORE, *refusal.headers), _encode(problem))
    status, body = own
    return Answer(status, (_JSON, _NO_STORE, *refusal.headers), _encode(body))


class Brief:
    """A refusal without its explanation, rendered once: request ids and the problem's further members are put into it."""

    __slots__ = ("_begin", "_end", "_fields", "_status")

    def __init__(self, refusal: Refusal, dialect: Dialect | None, docs_url: str) -> None:
        told = type(refusal)(EXPLAINED_LATER)
        answer = render(told, request_id=_PLACE, dialect=dialect, docs_url=docs_url)
        self._status = answer.status
        self._fields = answer.headers
        self._begin, _, self._end = answer.body.partition(_PLACE.encode())

    def answer(self, refusal: Refusal, request_id: str) -> Answer:
        """What the client reads."""
        fields = self._fields + refusal.headers if refusal.headers else self._fields
        if not refusal.extras:
            return Answer(self._status, fields, b"%b%b%b" % (self._begin, request_id.encode(), self._end))
        more = ",".join([f'"{name}":{_value(value)}' for name, value in refusal.extras.items()])
        body = b'%b%b",%b%b' % (self._begin, request_id.encode(), more.encode("utf-8", "backslashreplace"), self._end[1:])
        return Answer(self._status, fields, body)


def _value(value: object) -> str:
    """A member's value in JSON, for a tenth of what an encoder costs that is made for it."""
    if isinstance(value, str):
        return encode_basestring(value)
    return str(value) if type(value) is int else _compact(value)


_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
EXPLAINED_LATER = "too many requests are refused at the moment for each to be explained: send one alone, and its answer says why"
_PLACE = "<request id>"


def document(body: Mapping[str, object]) -> Answer:
    """A JSON object, 200."""
    return Answer(200, (_JSON, _NO_STORE), _encode(body))


def _encode(body: Mapping[str, object]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
