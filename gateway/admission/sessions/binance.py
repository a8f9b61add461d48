"""The ``binance`` session dialect: messages are signed over their sorted ``params``, or use the session's key. Pure.

Source: Binance, "WebSocket API", request security and session authentication.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import quote

from gateway.admission.answers import compact
from gateway.admission.dialects.base import Credentials, Mistake, loosely_decoded
from gateway.admission.dialects.binance import code_and_phrase, milliseconds, signature_of, window
from gateway.admission.sessions.base import CALL, LOG_IN, LOG_OUT, OWN_MEMBER, STATUS, Message, SessionDialect, Spelling, tag_of
from gateway.admission.sessions.json_text import Value, ranges_without, text_of, unescaped
from gateway.admission.sessions.shape import Part, Shape, Template, variables_of
from gateway.errors import MalformedRequest, MissingCredentials

_CREDENTIALS = frozenset({b"apiKey", b"signature"})
_ACTS = {"session.logon": LOG_IN, "session.logout": LOG_OUT, "session.status": STATUS}
_QUOTE: Final = 0x22
_EQUALS: Final = 0x3D
_MEMBERS = Spelling(b"id", b"method", b"params", OWN_MEMBER)
_PARAMS = Spelling(b"apiKey", b"signature", b"timestamp", b"recvWindow")


class BinanceSession(SessionDialect):
    """See the module."""

    def __init__(self) -> None:
        super().__init__(
            "binance",
            log_in="session.logon",
            log_out="session.logout",
            state="session.status",
            members=_MEMBERS,
            inside=b"params",
            inner=_PARAMS,
            signs_messages=True,
        )

    def _read(self, message: Message, members: Mapping[bytes, Value]) -> None:
        text, params = message.text, members.get(b"params")
        own_id = members.get(b"id")
        if own_id is not None and own_id.members is None and own_id.items is None:
            message.tag = text[own_id.start : own_id.end]
        method = text_of(text, members.get(b"method"))
        if not method:
            message.wrong = "a message must have a method"
        else:
            message.names = [method.decode().removeprefix("v3/")]
            message.act = _ACTS.get(message.names[0], 0)
        message.rest = b"".join(
            [part if isinstance(part, bytes) else text[part[0] : part[1]] for part in _forwarded(message.value, params)]
        )

    def _shape(self, message: Message) -> Shape | None:
        text, inner = message.text, _params(message)
        own_id = (message.value.members or {}).get(b"id")
        variables = variables_of(text, [*([own_id] if own_id is not None and message.tag else []), *inner.values()])
        if message.act != CALL or variables is None or any(_EQUALS in name for name in inner):
            return None
        window_member = inner.get(b"recvWindow")
        if window_member is not None and _index(text, variables, window_member) < 0:
            return None
        shape = _Known(message, variables, inner)
        return shape if shape.is_readable else None

    def credentials(self, message: Message, max_window_ms: int) -> Credentials | None:  # noqa: ARG002  # it asks for a window itself
        shape = message.shape
        if isinstance(shape, _Known):
            return shape.credentials(message.values)
        text, members = message.text, _params(message)
        key, signature, time = members.get(b"apiKey"), members.get(b"signature"), members.get(b"timestamp")
        if (
            message.act != LOG_IN
            and signature is None
            and (key is None or (message.key_id and _signed_value(text, key) == message.key_id.encode()))
        ):
            return None
        if key is None or signature is None or time is None:
            missing = "apiKey" if key is None else "signature" if signature is None else "timestamp"
            raise MissingCredentials(
                f"params.{missing} is missing; a signed message carries apiKey, timestamp and signature", extras={"missing": missing}
            )
        return Credentials(
            _signed_value(text, key).decode(),
            signature_of(_signed_value(text, signature)),
            _signed(text, members),
            milliseconds(_signed_value(text, time)),
            window_ms=window(_signed_value(text, members[b"recvWindow"])) if b"recvWindow" in members else 0,
            portable=True,
        )

    def mistakes(self, message: Message, credentials: Credentials) -> Iterator[Mistake]:
        text, members = message.text, _params(message)
        signed, signature = credentials.signed, credentials.signature
        for other in loosely_decoded(_signed_value(text, members[b"signature"])):
            yield Mistake("wrong signature encoding for this key: use hex for HMAC, Base64 for Ed25519 and RSA", signed, other)
        pairs = [name + b"=" + _signed_value(text, member) for name, member in members.items() if name != b"signature"]
        yield Mistake("the parameters were signed in the order they were sent in: sort them by name", b"&".join(pairs), signature)
        without_key = b"&".join(sorted(pair for pair in pairs if not pair.startswith(b"apiKey=")))
        yield Mistake("apiKey was not signed: it is signed like every other parameter", without_key, signature)
        encoded = b"&".join(
            sorted(
                b"%b=%b" % (name, quote(_signed_value(text, member)).encode()) for name, member in members.items() if name != b"signature"
            )
        )
        yield Mistake("the values were percent-encoded before signing: sign them unencoded", encoded, signature)
        raw = [name + b"=" + text[member.start : member.end] for name, member in members.items() if name != b"signature"]
        yield Mistake("the quotes around strings were signed: sign the strings without quotes", b"&".join(sorted(raw)), signature)

    def refusal(self, problem: Mapping[str, object], message: Message | None) -> bytes:
        code, phrase = code_and_phrase(problem)
        body = compact({"status": problem["status"], "error": {"code": code, "msg": phrase}, "gerbang": problem})
        return b'{"id":%b,%b' % (tag_of(message), body[1:])

    def status(self, message: Message, *, since_ms: int, logged_in_ms: int) -> bytes:
        key_id = message.key_id
        result = {
            "apiKey": key_id or None,
            "authorizedSince": logged_in_ms if key_id else None,
            "connectedSince": since_ms,
            "returnRateLimits": False,
            "serverTime": message.received_ms,
        }
        return b'{"id":%b,%b' % (tag_of(message), compact({"status": 200, "result": result})[1:])

    def shutdown_notice(self, now_ms: int) -> bytes:
        return compact({"event": {"e": "serverShutdown", "E": now_ms}})


class _Known(Shape):
    """A shape of this dialect, for messages that are signed individually or carry no credentials."""

    __slots__ = ("_carries", "_key_at", "_pairs", "_payload", "_signature_at", "_time_at", "_window_at")

    def __init__(self, message: Message, variables: list[tuple[int, int]], params: Mapping[bytes, Value]) -> None:
        text, members = message.text, message.value.members or {}
        tag: list[Part] = [(members[b"id"].start, members[b"id"].end)] if message.tag else []
        rest = _forwarded(message.value, members.get(b"params"))
        super().__init__(text, variables, names=message.names, tag=tag, rest=rest)
        self._carries = not _CREDENTIALS.isdisjoint(params)
        self._key_at = _index(text, variables, params.get(b"apiKey"))
        self._signature_at = _index(text, variables, params.get(b"signature"))
        self._time_at = _index(text, variables, params.get(b"timestamp"))
        self._window_at = _index(text, variables, params.get(b"recvWindow"))
        payload: list[Part] = []
        for name in sorted(params):
            if name != b"signature":
                payload += [b"&%b=" % name if payload else name + b"=", _signed_range(text, params[name])]
        self._pairs = len(payload) // 2
        self._payload = Template(text, payload, variables)

    @property
    def is_readable(self) -> bool:
        """Whether its credentials, if any, are all among the variables."""
        return not self._carries or min(self._key_at, self._signature_at, self._time_at) >= 0

    def credentials(self, values: list[bytes]) -> Credentials | None:
        """As :meth:`SessionDialect.credentials`, for a message with these values."""
        if not self._carries:
            return None
        signed = self._payload.fill(values)
        _check_unambiguous(signed, self._pairs)
        return Credentials(
            values[self._key_at].decode(),
            signature_of(values[self._signature_at]),
            signed,
            milliseconds(values[self._time_at]),
            window_ms=window(values[self._window_at]) if self._window_at >= 0 else 0,
            portable=True,
        )


def _params(message: Message) -> Mapping[bytes, Value]:
    """The members of a message's ``params``."""
    params = (message.value.members or {}).get(b"params")
    return (params.members if params is not None else None) or {}


def _index(text: bytes, variables: Sequence[tuple[int, int]], value: Value | None) -> int:
    """The index of a value among the variables; -1: it is not one, or is absent."""
    if value is None:
        return -1
    signed = _signed_range(text, value)
    return variables.index(signed) if signed in variables else -1


def _forwarded(value: Value, params: Value | None) -> list[Part]:
    """The members to forward; ``params`` is changed only if it contains credentials."""
    if params is None or not params.members or _CREDENTIALS.isdisjoint(params.members):
        return _listed(ranges_without(value, frozenset()))
    parts: list[Part] = []
    for member in (value.members or {}).values():
        if parts:
            parts.append(b",")
        if member is params:
            parts += [(params.name_start, params.start), b"{", *_listed(ranges_without(params, _CREDENTIALS)), b"}"]
        else:
            parts.append((member.name_start, member.end))
    return parts


def _listed(pieces: list[tuple[int, int]]) -> list[Part]:
    parts: list[Part] = []
    for piece in pieces:
        if parts:
            parts.append(b",")
        parts.append(piece)
    return parts


def _signed_value(text: bytes, value: Value) -> bytes:
    """A value as it is signed: a string decoded, anything else as written."""
    token = text[value.start : value.end]
    return unescaped(token) if token[0] == _QUOTE else token


def _signed_range(text: bytes, value: Value) -> tuple[int, int]:
    """The byte range of that value in a text without escapes."""
    return (value.start + 1, value.end - 1) if text[value.start] == _QUOTE else (value.start, value.end)


def _signed(text: bytes, members: Mapping[bytes, Value]) -> bytes:
    """The signed payload.

    :raises MalformedRequest: other params would have the same payload
    """
    names = [name for name in sorted(members) if name != b"signature"]
    signed = b"&".join([name + b"=" + _signed_value(text, members[name]) for name in names])
    _check_unambiguous(signed, len(names), equals=_EQUALS in b"".join(names))
    return signed


def _check_unambiguous(signed: bytes, pairs: int, *, equals: bool = False) -> None:
    """:param equals: whether a name contains an ``=``

    :raises MalformedRequest: other params would have the same payload
    """
    if equals or signed.count(b"&") >= max(pairs, 1):
        raise MalformedRequest("params contains an & or, in a name, an =: the signed payload would be ambiguous")
