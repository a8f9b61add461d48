"""The interface of a session dialect: it extracts method, credentials and forwarded bytes from a WebSocket message. Pure.

The counterpart of :mod:`gateway.admission.dialects.base`: same credentials class, and nothing is re-encoded here either.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Final

from gateway.admission.dialects.base import Credentials, Mistake
from gateway.admission.sessions.json_text import Value, is_simple, scan
from gateway.admission.sessions.shape import LONGEST, MOST, Shape
from gateway.http1.memo import LINE_BYTES, remember
from gateway.http1.message import Inbound, Request

CALL: Final = 0
LOG_IN: Final = 1
LOG_OUT: Final = 2
STATUS: Final = 3
"""The effect of a message on its session; ``STATUS`` is answered by the gate itself."""

OWN_MEMBER: Final = b"gateway"
"""The member that the gate adds; a client must not send it."""
_LONGEST_TAG: Final = 256
_COMBINING_DOT = "\u0307"
_NONE: Final[list[bytes]] = []


def folded(name: bytes) -> bytes:
    """A member's name as seen by services that match names case-insensitively, such as Go's ``encoding/json``.

    The long s, the Kelvin sign and both Turkish i fold to their ASCII letters.
    """
    if name.isascii():
        return name.lower()
    return name.decode().upper().casefold().replace(_COMBINING_DOT, "").encode()


class Spelling:
    """Refuses variant spellings of security-relevant members, which a service might accept and this gate would overlook."""

    __slots__ = ("_harmless", "_names")

    def __init__(self, *names: bytes) -> None:
        self._names = {folded(name): name for name in names}
        self._harmless: dict[bytes, None] = {}
        """Names seen before: bots send the same ones in each message."""

    def mistake(self, members: Mapping[bytes, Value]) -> str:
        """The error in one of these members' names; ``""``: none."""
        if self._harmless.keys() >= members.keys():
            return ""
        for name in members:
            exact = self._names.get(folded(name), name)
            if exact != name:
                return f"a member is spelt {exact.decode()} here, and some services would take {name.decode()[:32]!a} for it"
            if len(name) <= LINE_BYTES:
                remember(self._harmless, name, None)
        return ""


class Message(Inbound):
    """One message of a client: a complete JSON object."""

    __slots__ = ("_value", "act", "client", "dialect", "key_id", "names", "rest", "shape", "tag", "text", "values", "wrong")

    def __init__(  # noqa: PLR0917  # by position, where it is made
        self, dialect: "SessionDialect", text: bytes, value: Value | None, client: Request, key_id: str, received_ms: int, request_id: str
    ) -> None:  # fmt: skip
        self.peer = client.peer
        self.received_ms = received_ms
        self.request_id = request_id
        self.dialect = dialect
        self.text = text
        self._value = value
        self.client = client
        """The handshake that opened the connection."""
        self.key_id = key_id
        """The id of the key that the session has logged in with; ``""``: none."""
        self.act = CALL
        self.names: list[str] = []
        """The methods that it calls, as named in the table; several for a message that subscribes to several events."""
        self.tag = b""
        """The value that a refusal repeats, as received: ``id``, or ``method``."""
        self.rest = b""
        """Members to forward after the gate's own: values as received, without credentials."""
        self.wrong = ""
        """Why this is not a valid message of the dialect; ``""``: it is."""
        self.shape: Shape | None = None
        """The shape by which it was read, if any, with :attr:`values`."""
        self.values: list[bytes] = _NONE

    @property
    def value(self) -> Value:
        """The message's JSON; scanned now if the message was read by its shape."""
        value = self._value
        if value is None:
            value = self._value = scan(self.text)
        return value

    def forwarded(self, member: bytes) -> bytes:
        """The message as forwarded to the service.

        :param member: the gate's own, ``"gateway":{…}``
        """
        return b"{%b,%b}" % (member, self.rest) if self.rest else b"{%b}" % member


class SessionDialect(ABC):
    """One dialect of WebSocket messages.

    :param log_in: name of the method that logs a key in
    :param log_out: name of the method that logs it out
    :param state: name of the method that returns the session's status, if there is one
    :param members: the security-relevant members of a message, including the gate's own
    :param inside: the member that contains credentials
    :param signs_messages: whether messages can be signed individually
    :param inner: the security-relevant members of ``inside``
    """

    __slots__ = ("_inner", "_inside", "_members", "log_in", "log_in_first", "log_out", "name", "state")

    def __init__(
        self, name: str, *, log_in: str, log_out: str, members: Spelling, inside: bytes, inner: Spelling,
        state: str = "", signs_messages: bool = False,
    ) -> None:  # fmt: skip
        self.name = name
        self.log_in_first = f"log in with an API key first ({log_in})" + (", or sign the message" if signs_messages else "")
        """The refusal of a message that needs a key but has none."""
        self._members = members
        self._inside = inside
        self._inner = inner
        self.state = state
        self.log_in = log_in
        self.log_out = log_out

    def read(  # noqa: PLR0917  # on the hot path
        self, text: bytes, client: Request, key_id: str, received_ms: int, request_id: str, shapes: list[Shape] | None = None
    ) -> Message:  # fmt: skip
        """Parse a message. Errors in valid JSON are put into :attr:`Message.wrong`, so that the refusal can refer to the message.

        :param text: valid UTF-8
        :param client: the handshake request of the session
        :param key_id: the key that the session has logged in with; ``""``: none
        :param shapes: the shapes of earlier messages, to which this one's is added; ``None``: none is recorded
        :raises MalformedRequest: it is not JSON, or is JSON that parsers could read differently
        """
        if shapes and len(text) <= LONGEST and is_simple(text):
            pieces = text.split(b'"')
            for shape in shapes:
                values = shape.values_in(pieces)
                if values is not None:
                    message = Message(self, text, None, client, key_id, received_ms, request_id)
                    message.shape, message.values, message.names = shape, values, shape.names
                    message.tag, message.rest = shape.tag.fill(values), shape.rest.fill(values)
                    return message
        value = scan(text)
        message = Message(self, text, value, client, key_id, received_ms, request_id)
        members = value.members or {}
        self._read(message, members)
        wrong = self._members.mistake(members)
        holder = members.get(self._inside)
        if not wrong and holder is not None and holder.members:
            wrong = self._inner.mistake(holder.members)
        if wrong:
            message.wrong = wrong
        if OWN_MEMBER in members:
            message.wrong = "the member gateway is reserved: leave it out"
        if shapes is not None and not message.wrong and len(text) <= LONGEST and (own := self._shape(message)) is not None:
            if len(shapes) >= MOST:
                del shapes[0]
            shapes.append(own)
        return message

    def _shape(self, message: Message) -> Shape | None:  # noqa: ARG002  # only one dialect uses it
        """The shape of a valid, scanned message; ``None``: such messages are always scanned."""
        return None

    @abstractmethod
    def _read(self, message: Message, members: Mapping[bytes, Value]) -> None:
        """Fill in the message's methods and members."""

    @abstractmethod
    def credentials(self, message: Message, max_window_ms: int) -> Credentials | None:
        """The message's own credentials; ``None`` if it has none and uses the session's key.

        :param max_window_ms: the longest window that is accepted
        :raises MissingCredentials: a part of them is missing
        :raises MalformedRequest: a part of them cannot be read
        """

    @abstractmethod
    def mistakes(self, message: Message, credentials: Credentials) -> Iterator[Mistake]:
        """See :meth:`gateway.admission.dialects.Dialect.mistakes`."""

    @abstractmethod
    def refusal(self, problem: Mapping[str, object], message: Message | None) -> bytes:
        """A refusal as the dialect's own error message.

        :param message: ``None`` if it could not be parsed
        """

    def status(self, message: Message, *, since_ms: int, logged_in_ms: int) -> bytes:  # noqa: ARG002  # only one dialect asks
        """The answer to a message of :data:`STATUS`.

        :param since_ms: when the connection was opened
        :param logged_in_ms: when the session's key logged in, if it has one
        """
        return message.text

    def shutdown_notice(self, now_ms: int) -> bytes:  # noqa: ARG002  # most say nothing
        """The message that announces that the gate is about to close the connection; ``b""`` if the dialect has none."""
        return b""


def tag_of(message: Message | None) -> bytes:
    """The value that an answer repeats from a message, as received; ``null`` if there is none, or it is too long."""
    return message.tag if message is not None and 0 < len(message.tag) <= _LONGEST_TAG else b"null"
