"""The ``binance`` dialect: the key in ``X-MBX-APIKEY``, a signature over query and body without the ``signature`` parameter. Pure.

Source: Binance, "REST API request security". As in Binance's scheme, neither the method nor the path is among the signed bytes.

Query and content are signed as one text with nothing between them, so the signature does not say where one ends: ``price=95000`` could be
sent as ``price=95`` in the query and ``000`` in the content. Therefore each part of either must be ``name=value`` by itself, the name of
letters and digits beginning with a letter, the value without a raw ``=``; and there is no other content than such a form, whatever its
Content-Type says. Parameters signed in one place can then be sent in one place only. Signing a query *and* content leaves one ambiguity,
letters between the query's last value and the content's first name, so clients should send all parameters in one place.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import unquote_to_bytes

from gateway.admission.dialects.base import Credentials, Dialect, Mistake, decoded_base64, decoded_hex, detail_beside, loosely_decoded, urls
from gateway.errors import AmbiguousCredentials, MalformedRequest, MissingCredentials
from gateway.http1.message import Request

KEY = b"x-mbx-apikey"
_READ = re.compile(rb"\b(signature|timestamp|recvWindow)=([^&]*)")
"""For parameters that match :data:`_PARAMETERS`, in which ``=`` only follows a name."""
_PARAMETER = rb"(?:signature=[^&=]*+={0,2}|[A-Za-z][A-Za-z0-9]*+=[^&=]*+)"
"""One parameter. A signature in Base64 may end with raw padding, as some clients send it."""
_PARAMETERS = re.compile(rb"%b(?:&%b)*+" % (_PARAMETER, _PARAMETER))
_SECONDS_BELOW = 100_000_000_000
_MICROSECONDS_FROM = 1_000_000_000_000_000
_TIME_DIGITS = 18
_WINDOW = re.compile(rb"([1-9][0-9]{0,7})(?:\.[0-9]{1,3})?")
_ESCAPED = re.compile(rb"(?:[^%]|%[0-9A-F]{2})+|(?:[^%]|%[0-9a-f]{2})+")
"""Both cases are in use, but not mixed: otherwise one signature would have several spellings."""


class Binance(Dialect):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("binance", {KEY})

    def read(self, request: Request, fields: Mapping[bytes, bytes]) -> Credentials:
        query, body = request.query or b"", request.body
        if query and not _PARAMETERS.fullmatch(query):
            raise MalformedRequest(f"{_SHAPE} in the query")
        found = _READ.findall(query)
        if body:
            if not _PARAMETERS.fullmatch(body):
                raise MalformedRequest(f"{_SHAPE} in the content, which is a form in this dialect, whatever its Content-Type")
            found += _READ.findall(body)
            body = _without_signature(body)
        values = dict(found)
        if len(values) != len(found):
            raise AmbiguousCredentials("one of the parameters signature, timestamp and recvWindow is repeated")
        try:
            signature, timestamp = values[b"signature"], values[b"timestamp"]
        except KeyError as missing:
            raise _incomplete(missing.args[0].decode(), alone=not values) from None
        return Credentials(
            fields[KEY].decode("latin-1"),
            signature_of(signature),
            _without_signature(query) + body,
            milliseconds(timestamp),
            window_ms=window(values[b"recvWindow"]) if b"recvWindow" in values else 0,
            weighed=True,
            portable=True,
        )

    def key_id(self, request: Request, fields: Mapping[bytes, bytes]) -> str:
        """See :meth:`Dialect.key_id`. Signature and timestamp may be in the content."""
        if request.query and not _PARAMETERS.fullmatch(request.query):
            raise MalformedRequest(f"{_SHAPE} in the query")
        return fields[KEY].decode("latin-1")

    def mistakes(  # the signature is in no header field
        self,
        request: Request,
        fields: Mapping[bytes, bytes],  # noqa: ARG002
        credentials: Credentials,
    ) -> Iterator[Mistake]:
        query, body = _without_signature(request.query or b""), _without_signature(request.body)
        both, signature = [part for part in (query, body) if part], credentials.signature
        sent = dict(_READ.findall(request.query or b"") + _READ.findall(request.body))[b"signature"]
        for decoded in loosely_decoded(unquote_to_bytes(sent)):
            yield Mistake("wrong signature encoding for this key: use hex for HMAC, Base64 for Ed25519 and RSA",
                          credentials.signed, decoded)  # fmt: skip
        yield Mistake("query and body were joined with & before signing: concatenate them directly", b"&".join(both), signature)
        if len(both) == 2:
            yield Mistake("the body was not signed: sign the query directly followed by the body", query, signature)
            yield Mistake("the query was not signed: sign the query directly followed by the body", body, signature)
        yield Mistake("the question mark was signed: the query starts after it", b"?" + credentials.signed, signature)
        ordered = b"&".join(sorted(credentials.signed.split(b"&")))
        yield Mistake("the parameters were sent in a different order than they were signed in", ordered, signature)
        yield Mistake("the parameters were signed before percent-encoding: sign the encoded form that is sent",
                      unquote_to_bytes(credentials.signed), signature)  # fmt: skip
        yield from _other_spellings(credentials.signed, signature)
        for url in (request.path, *urls(request, request.path)):
            yield Mistake("the entire URL was signed: sign only the query", url + b"?" + credentials.signed, signature)
        before, _, last = (request.query or request.body).partition(b"&signature=")
        if b"&" in last:
            yield Mistake("a parameter after signature was not signed: put signature last", before, signature)

    def unrouted(self, request: Request) -> str:
        """See :meth:`Dialect.unrouted`. Programs from before 2026 begin with ``POST /api/v3/userDataStream``."""
        fields = dict(request.headers)
        alone = KEY in fields and b"signature=" not in (request.query or b"") and fields.get(b"content-length", b"0") == b"0"
        return f". {_BY_KEY_ALONE} are available only on public routes" if alone else ""

    def refusal(self, problem: Mapping[str, object]) -> tuple[int, Mapping[str, object]]:
        """Binance's own code and message, with the problem beside them."""
        code, phrase = code_and_phrase(problem)
        status = problem["status"]
        return status if isinstance(status, int) else 500, {"code": code, "msg": phrase, "gerbang": problem}


def code_and_phrase(problem: Mapping[str, object]) -> tuple[int, str]:
    """A problem as Binance's code and message."""
    code, phrase = _number(problem)
    detail = detail_beside(problem)
    if callable(phrase):
        phrase = phrase(problem)
    return (
        code,
        phrase if phrase == detail else f"{phrase} {detail[:1].upper()}{detail[1:]}",
    )  # clients show only this text, so it contains the reason


def _number(problem: Mapping[str, object]) -> "tuple[int, str | Callable[[Mapping[str, object]], str]]":
    if problem.get("outcome") == "unknown":
        return _OUTCOME_UNKNOWN
    if problem["code"] == "missing_credentials" and problem.get("missing", "apiKey") == "apiKey":
        return _NO_KEY
    return _CODES.get(str(problem["code"]), _UNKNOWN)


def _other_spellings(signed: bytes, signature: bytes) -> Iterator[Mistake]:
    """Percent-encodings in which libraries differ."""
    encode = "percent-encode once, and sign the very text that is sent"
    yield Mistake(f"brackets were signed as %5B and %5D and sent as [ and ]: {encode}",
                  signed.replace(b"[", b"%5B").replace(b"]", b"%5D"), signature)  # fmt: skip
    yield Mistake(f"a space was signed as %20 and sent as +: {encode}", signed.replace(b"+", b"%20"), signature)
    yield Mistake(f"a space was signed as + and sent as %20: {encode}", signed.replace(b"%20", b"+"), signature)
    yield Mistake(f"letters of a percent-encoding were signed in upper case and sent in lower (%E5, %e5): {encode}",
                  _PERCENT.sub(lambda found: found[0].upper(), signed), signature)  # fmt: skip
    yield Mistake(f"letters of a percent-encoding were signed in lower case and sent in upper (%e5, %E5): {encode}",
                  _PERCENT.sub(lambda found: found[0].lower(), signed), signature)  # fmt: skip


_PERCENT = re.compile(rb"%[0-9A-Fa-f]{2}")


def _without_signature(parameters: bytes) -> bytes:
    """The parameters without ``signature``, wherever it is; all other bytes unchanged."""
    head, mark, value = parameters.rpartition(b"&signature=")
    if mark and b"&" not in value:  # last, as clients send it
        return head
    return b"&".join(parameter for parameter in parameters.split(b"&") if not parameter.startswith(b"signature="))


_BY_KEY_ALONE = "X-MBX-APIKEY alone does not authenticate: calls that Binance serves by key alone (listen keys, historical trades)"
_SHAPE = (
    "send parameters as name=value joined by &, names of letters and digits, = and & in values percent-encoded; nothing else is accepted"
)


def _incomplete(name: str, *, alone: bool) -> MissingCredentials:
    """:param alone: whether the key's header field is the only credential"""
    if alone:
        detail = f"{_BY_KEY_ALONE} are available only on public routes; sign the request with timestamp and, last, signature"
    else:
        detail = f"the parameter {name} is missing; a signed request carries timestamp and, last, signature"
    return MissingCredentials(detail, extras={"missing": name})


def signature_of(signature: bytes) -> bytes:
    """Hex for HMAC, percent-encoded Base64 for the others; ``b""``, which never verifies, for anything else."""
    digest = decoded_hex(signature)
    if digest:
        return digest
    decoded = decoded_base64(unquote_to_bytes(signature)) if _ESCAPED.fullmatch(signature) else b""
    return decoded if len(decoded) != 32 else b""


def milliseconds(value: bytes) -> int:
    """The value of ``timestamp``, in Unix milliseconds.

    :raises MalformedRequest: it is not a valid time
    """
    if not value.isdigit() or value[0] == 0x30 or len(value) > _TIME_DIGITS:
        raise MalformedRequest("the parameter timestamp must be a Unix time in milliseconds or microseconds")
    time = int(value)
    if time < _SECONDS_BELOW:
        raise MalformedRequest("the parameter timestamp is in seconds; send milliseconds")
    return time // 1000 if time >= _MICROSECONDS_FROM else time


def window(value: bytes) -> int:
    """The value of ``recvWindow``, in whole milliseconds.

    :raises MalformedRequest: it is not a positive number
    """
    match = _WINDOW.fullmatch(value)
    if match is None:
        raise MalformedRequest("the parameter recvWindow must be a positive number of milliseconds")
    return int(match[1])


def _clock_phrase(problem: Mapping[str, object]) -> str:
    skew_ms = problem.get("skew_ms")
    if isinstance(skew_ms, int) and skew_ms > 0:
        return "Timestamp for this request was 1000ms ahead of the server's time."
    return "Timestamp for this request is outside of the recvWindow."


_UNKNOWN = (-1001, "Internal error; unable to process your request. Please try again.")
_NOT_AUTHORIZED = (-1002, "You are not authorized to execute this request.")
_OUTCOME_UNKNOWN = (-1007, "Timeout waiting for response from backend server. Send status unknown; execution status unknown.")
_NO_KEY = (-2014, "API-key format invalid.")  # an authentication error to every client, unlike -1102, a missing parameter
_UNSUPPORTED = (-1020, "This operation is not supported.")
_CODES: dict[str, tuple[int, str | Callable[[Mapping[str, object]], str]]] = {
    "maintenance": (-1001, "System is under maintenance."),
    "malformed_request": (-1102, detail_beside),
    "missing_credentials": (-1102, detail_beside),
    "ambiguous_credentials": (-1101, detail_beside),
    "unsigned_query": (-1104, detail_beside),
    "ambiguous_path": (-1100, detail_beside),
    "body_too_large": (-1100, detail_beside),
    "headers_too_large": (-1100, detail_beside),
    "no_route": _UNSUPPORTED,
    "method_not_allowed": _UNSUPPORTED,
    "invalid_credentials": (-1022, "Signature for this request is not valid."),
    "timestamp_out_of_window": (-1021, _clock_phrase),
    "replayed_request": (-2010, "Duplicate order sent."),  # clients do not retry it: the first one may have been executed
    "key_expired": _NOT_AUTHORIZED,  # not -2015, which clients treat as overload once a call has succeeded
    "ip_not_allowed": _NOT_AUTHORIZED,
    "scope_not_granted": _NOT_AUTHORIZED,
    "account_frozen": _NOT_AUTHORIZED,
    "rate_limited": (-1003, "Too many requests."),
    "upstream_timeout": _OUTCOME_UNKNOWN,
}
