"""Renders refusals and JSON documents as HTTP answers: the one place where a refusal becomes bytes. Pure.

``application/problem+json`` (RFC 9457), or the form that the route's dialect prefers, with the problem inside.
"""

import json
from collections.abc import Mapping

from gateway.admission.dialects import Dialect
from gateway.errors import PROBLEM_JSON, Refusal, problem_of
from gateway.http1.message import Answer

_NO_STORE = (b"Cache-Control", b"no-store")
_PROBLEM = (b"Content-Type", PROBLEM_JSON.encode())
_JSON = (b"Content-Type", b"application/json")


def render(refusal: Refusal, *, request_id: str, dialect: Dialect | None, docs_url: str = "") -> Answer:
    """The answer to a refused request.

    :param dialect: the dialect whose form it takes; ``None``: a plain problem
    :param docs_url: URL of the customers' documentation; ``""``: none
    """
    problem = problem_of(refusal, request_id=request_id, docs_url=docs_url)
    own = dialect.refusal(problem) if dialect is not None else None
    if own is None:
        return Answer(refusal.status, (_PROBLEM, _NO_STORE, *refusal.headers), compact(problem))
    status, body = own
    return Answer(status, (_JSON, _NO_STORE, *refusal.headers), compact(body))


def document(body: Mapping[str, object]) -> Answer:
    """A 200 answer with a JSON object."""
    return Answer(200, (_JSON, _NO_STORE), compact(body))


def compact(body: Mapping[str, object]) -> bytes:
    """A JSON object without white space."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
