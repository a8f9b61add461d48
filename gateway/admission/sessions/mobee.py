"""The ``mobee`` session dialect: a login signs the value of its member ``api``; later messages use the key of the login. Pure.

Source: Mobee Open API, "WebSocket subscription".
"""

from collections.abc import Iterator, Mapping
from typing import Final

from gateway.admission.answers import compact
from gateway.admission.dialects.base import Credentials, Mistake, decoded_base64, decoded_hex, detail_beside, loosely_decoded, rewritten
from gateway.admission.dialects.mobee import milliseconds
from gateway.admission.sessions.base import LOG_IN, LOG_OUT, OWN_MEMBER, Message, SessionDialect, Spelling, tag_of
from gateway.admission.sessions.json_text import Value, text_of, without
from gateway.errors import MissingCredentials

WINDOW_MS = 45_000
"""Maximum age of a log-in."""
MAX_EVENTS = 256
"""Maximum number of events in one subscription."""
_IN_SECONDS = "Logins signed within the same second have the same signature: send api.timestamp in milliseconds"
_MEMBERS = Spelling(b"method", b"events", b"api", b"hmac", OWN_MEMBER)
_API = Spelling(b"public_key", b"timestamp")
_CREDENTIALS = frozenset({b"api", b"hmac"})
_SUBSCRIPTIONS = frozenset({b"subscribe", b"unsubscribe"})
_SPACE: Final = 0x20


class MobeeSession(SessionDialect):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("mobee", log_in="login", log_out="logout", members=_MEMBERS, inside=b"api", inner=_API)

    def _read(self, message: Message, members: Mapping[bytes, Value]) -> None:
        text = message.text
        method = text_of(text, members.get(b"method"))
        message.rest = without(text, message.value, _CREDENTIALS)
        if not method:
            message.wrong = "a message must have a method"
            return
        named = members[b"method"]
        message.tag = text[named.start : named.end]
        if method in _SUBSCRIPTIONS:
            message.names = self._events(message, method.decode(), members.get(b"events"))
            return
        if _SPACE in method:  # reserved for subscriptions in the table of methods
            message.wrong = "a method's name must not contain a space: list a subscription's events in the member events"
            return
        message.names = [method.decode()]
        if method == b"login":
            message.act = LOG_IN
        elif method == b"logout":
            message.act = LOG_OUT

    def _events(self, message: Message, method: str, events: Value | None) -> list[str]:
        """The method for each event, named by the event up to its first dot."""
        found = [text_of(message.text, item) for item in (events.items if events is not None else None) or ()]
        if not found or not all(found) or len(found) > MAX_EVENTS:
            message.wrong = f"a subscription must have a member events: a list of 1 to {MAX_EVENTS} names"
            return []
        return [f"{method} {event.partition(b'.')[0].decode()}" for event in found if event is not None]

    def credentials(self, message: Message, max_window_ms: int) -> Credentials | None:
        if message.act != LOG_IN:
            return None
        text, members = message.text, message.value.members or {}
        api = members.get(b"api")
        if api is None or api.members is None:
            raise MissingCredentials("a login requires api, an object with public_key and timestamp, and hmac")
        key_id, encoded = text_of(text, api.members.get(b"public_key")), text_of(text, members.get(b"hmac"))
        time = api.members.get(b"timestamp")
        if key_id is None or encoded is None or time is None:
            raise MissingCredentials("a login requires api, an object with public_key and timestamp, and hmac; one of them is missing")
        digits = text_of(text, time)
        if digits is None:
            digits = text[time.start : time.end]
        return Credentials(
            key_id.decode(),
            decoded_hex(encoded) or decoded_base64(encoded),
            text[api.start : api.end],
            milliseconds(digits, "api.timestamp"),
            window_ms=min(WINDOW_MS, max_window_ms),
            replay_advice=_IN_SECONDS if len(digits) < 12 else "",
        )

    def mistakes(self, message: Message, credentials: Credentials) -> Iterator[Mistake]:
        signed, signature = credentials.signed, credentials.signature
        encoded = text_of(message.text, (message.value.members or {}).get(b"hmac")) or b""
        for decoded in loosely_decoded(encoded):
            yield Mistake("wrong hmac encoding: use hex or standard Base64 with padding", signed, decoded)
        yield Mistake("the entire message was signed: sign only the value of api", message.text, signature)
        for other in rewritten(signed):
            yield Mistake(
                "the signed api is formatted differently from the api sent: serialize it once, then sign and send the same bytes",
                other,
                signature,
            )

    def refusal(self, problem: Mapping[str, object], message: Message | None) -> bytes:
        detail = detail_beside(problem)
        body = compact({"status": "error", "message": detail, "gerbang": problem})
        events = self._refused_events(message, detail) if message is not None else b""
        return b'{"method":%b,%b%b' % (tag_of(message), events, body[1:])

    def _refused_events(self, message: Message, detail: str) -> bytes:
        """The refusal of a subscription, with a status for each event, as in the service's answers."""
        events = (message.value.members or {}).get(b"events")
        if not message.names or " " not in message.names[0] or events is None:
            return b""
        failed = compact({"status": "error", "message": detail})[1:]
        return b'"events":[%b],' % b",".join(
            [b'{"event":%b,%b' % (message.text[item.start : item.end], failed) for item in events.items or ()]
        )
