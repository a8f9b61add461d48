"""The interface of a signature dialect: it extracts credentials and the exact signed bytes from a request. Pure.

A dialect never decides whether a signature is right, and never re-encodes anything.
"""

import json
import re
from abc import ABC, abstractmethod
from base64 import urlsafe_b64decode
from binascii import Error, a2b_base64, b2a_base64
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from gateway.errors import InvalidCredentials
from gateway.http1.message import Request
from gateway.keys.ids import is_key_id

SHOWN = 2_048
"""Maximum bytes of the string to sign in a refusal."""
HEX = re.compile(rb"[0-9A-Fa-f]+")
_DIGEST = re.compile(rb"[0-9a-f]{64}|[0-9A-F]{64}")
_MEMBER = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_\-]+={0,2}")


class Credentials:
    """The claims of a request, none of them verified yet."""

    __slots__ = (
        "algorithm", "covers_query", "expires_ms", "key_id", "portable", "pss", "replay_advice", "signature", "signed", "timestamp_ms",
        "unique", "weighed", "window_ms",
    )  # fmt: skip

    def __init__(  # noqa: PLR0917  # what the dialect of most requests says, by position
        self, key_id: str, signature: bytes, signed: bytes, timestamp_ms: int, covers_query: bool = True, replay_advice: str = "", *,
        window_ms: int = 0, expires_ms: int = 0, algorithm: str = "", unique: bool = True, pss: bool = False, weighed: bool = False,
        portable: bool = False,
    ) -> None:  # fmt: skip
        self.key_id = key_id
        """As received; may be malformed."""
        self.signature = signature
        """Decoded; ``b""`` if it cannot be decoded, which never verifies."""
        self.signed = signed
        """The exact bytes that the signature is over."""
        self.timestamp_ms = timestamp_ms
        """When it was signed, in Unix milliseconds."""
        self.window_ms = window_ms
        """The maximum age that the request itself sets, in milliseconds; 0: it sets none."""
        self.expires_ms = expires_ms
        """When the signature expires, per its ``expires`` parameter, in Unix milliseconds; 0: never."""
        self.algorithm = algorithm
        """The algorithm that the request names, if any: it must be the key's."""
        self.replay_advice = replay_advice
        """How two distinct requests can have the same signature, for the refusal of the second."""
        self.portable = portable
        """Whether the same signature is valid for another call: neither method nor path is among the signed bytes."""
        self.weighed = weighed
        """Whether answers report the weight and orders of the last minute, as Binance's do."""
        self.pss = pss
        """Whether an RSA key signed by RSASSA-PSS with SHA-512 (RFC 9421 §3.3.1) in place of its usual scheme."""
        self.covers_query = covers_query
        """Whether the query is among the signed bytes."""
        self.unique = unique
        """Whether it carries what strict replay protection requires of this dialect (a ``nonce`` in RFC 9421)."""


class Mistake(NamedTuple):
    """A mistake that a client may have made: given as a hint only if this variant verifies."""

    advice: str
    """What the bot's owner should change."""
    signed: bytes
    signature: bytes
    pss: bool = False
    """Whether an RSA key signed by RSASSA-PSS with SHA-512."""


class Dialect(ABC):
    """One way to sign a request.

    :param fields: names of the header fields that carry its credentials, in lower case; any of them assigns a request to this dialect
    :param signs_uri: whether scheme and authority can be among the signed bytes
    """

    __slots__ = ("fields", "name", "signs_uri")

    def __init__(self, name: str, fields: Iterable[bytes], *, signs_uri: bool = False) -> None:
        self.name = name
        self.signs_uri = signs_uri
        self.fields = frozenset(fields)

    @abstractmethod
    def read(self, request: Request, fields: Mapping[bytes, bytes]) -> Credentials:
        """Read the credentials of a request of this dialect.

        :param fields: the credential fields that the request carries, each once
        :raises MissingCredentials: a part of them is missing
        :raises MalformedRequest: a part of them cannot be read
        """

    def key_id(self, request: Request, fields: Mapping[bytes, bytes]) -> str:
        """The key id in a request's head, before its content has been received.

        :raises MissingCredentials, MalformedRequest: as :meth:`read`, for what the head must contain
        """
        return self.read(request, fields).key_id

    def named(self, fields: Mapping[bytes, bytes]) -> list[str]:
        """The key ids that a request may name, found cheaply, before any expensive work is done."""
        values = [value.decode("latin-1") for value in fields.values()]
        return [value for value in values if is_key_id(value)]

    @abstractmethod
    def mistakes(self, request: Request, fields: Mapping[bytes, bytes], credentials: Credentials) -> Iterator[Mistake]:
        """Common mistakes in this dialect, each with the bytes that would have been signed and sent; at most two dozen.

        :param credentials: as :meth:`read` gave them
        """

    def unrouted(self, request: Request) -> str:  # noqa: ARG002
        """Advice for a client of this dialect whose request has no route, appended to the refusal's detail."""
        return ""

    @abstractmethod
    def refusal(self, problem: Mapping[str, object]) -> tuple[int, Mapping[str, object]] | None:
        """The dialect's own form of a problem: status and JSON object; ``None`` for the problem itself."""


def decoded_base64(text: bytes) -> bytes:
    """Decode standard Base64 (RFC 4648 §4), accepting one encoding per value: padded, no stray bits, no white space.

    :return: ``b""`` for anything else, which is refused like a wrong signature, since none is empty
    """
    try:
        decoded = a2b_base64(text)
    except Error:
        return b""
    return decoded if b2a_base64(decoded, newline=False) == text else b""


def decoded_hex(text: bytes) -> bytes:
    """Decode a SHA-256 in hex, all lower or all upper case.

    :return: ``b""`` for anything else, as :func:`decoded_base64` does
    """
    return bytes.fromhex(text.decode("ascii")) if _DIGEST.fullmatch(text) else b""


def invalid(detail: str, signed: bytes, *, reason: str = "") -> InvalidCredentials:
    """The refusal of invalid credentials, with the string to sign as computed from the bytes received.

    It contains nothing secret, only what the client sent. Truncated to :data:`SHOWN` bytes; invalid UTF-8 is escaped.
    """
    return InvalidCredentials(detail, reason=reason, extras={"string_to_sign": shown(signed)})


def shown(signed: bytes) -> str:
    """The string to sign, as shown in a refusal."""
    return signed[:SHOWN].decode("utf-8", "backslashreplace")


def loosely_decoded(text: bytes) -> Iterator[bytes]:
    """Decodings of a signature in the wrong encoding: hex, URL-safe or unpadded Base64, Base64 of hex."""
    if HEX.fullmatch(text) and len(text) % 2 == 0:
        yield bytes.fromhex(text.decode("ascii"))
    elif _BASE64.fullmatch(text):
        try:
            decoded = urlsafe_b64decode(text.rstrip(b"=") + b"=" * (-len(text.rstrip(b"=")) % 4))
        except Error:
            return
        yield decoded
        if HEX.fullmatch(decoded) and len(decoded) % 2 == 0:
            yield bytes.fromhex(decoded.decode("ascii"))


def detail_beside(problem: Mapping[str, object]) -> str:
    """A problem's detail, for a text beside the problem's member ``gerbang``: members that it names are named as they are found there."""
    return _MEMBER.sub(lambda name: f"gerbang.{name[0]}" if name[0] in problem else name[0], str(problem["detail"]))


def urls(request: Request, part: bytes) -> Iterator[bytes]:
    """A path or target as the URL that a client may have signed instead: preceded by scheme and host."""
    host = b"".join(request.field_lines(b"host")[:1])
    for scheme in (b"https://", b"http://"):
        yield scheme + host + part


def rewritten(body: bytes) -> Iterator[bytes]:
    """JSON content as other serializers write it: often the signed bytes are not the bytes sent."""
    try:
        value = json.loads(body)
        for separators in ((", ", ": "), (",", ":")):
            for ascii_only in (True, False):
                yield json.dumps(value, separators=separators, ensure_ascii=ascii_only).encode()
    except (ValueError, RecursionError):
        return
