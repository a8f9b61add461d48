"""The ``mobee`` dialect: three header fields, a signature over method, path, timestamp and body; the query is not signed. Pure."""

from collections.abc import Iterator, Mapping
from typing import Final

from gateway.admission.dialects.base import HEX, Credentials, Dialect, Mistake, decoded_base64, loosely_decoded, rewritten, urls
from gateway.errors import MalformedRequest, MissingCredentials
from gateway.http1.memo import remember
from gateway.http1.message import Request

KEY: Final = b"x-api-key"
SIGNATURE: Final = b"x-request-signature"
TIMESTAMP: Final = b"x-request-timestamp"
_ZERO: Final = ord("0")
_SECONDS: Final = 64
"""Maximum number of remembered timestamps."""
_SECONDS_BELOW: Final = 100_000_000_000
"""A number below this is seconds (until the year 5138), any other milliseconds (since 1973)."""


class Mobee(Dialect):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("mobee", {KEY, SIGNATURE, TIMESTAMP})

    def read(self, request: Request, fields: Mapping[bytes, bytes]) -> Credentials:
        try:
            key_id, encoded, timestamp = fields[KEY], fields[SIGNATURE], fields[TIMESTAMP]
        except KeyError as missing:
            raise MissingCredentials(
                f"the header field {_NAMES[missing.args[0]]} is missing; a signed request carries {', '.join(_NAMES.values())}"
            ) from None
        if request.body:
            signed = b"%b\n%b\n%b\n%b" % (request.method, request.path, timestamp, request.body)
        else:
            signed = b"%b\n%b\n%b" % (request.method, request.path, timestamp)
        return Credentials(
            key_id.decode("latin-1"),
            decoded_base64(encoded),
            signed,
            _seconds.get(timestamp) or milliseconds(timestamp, "X-Request-Timestamp"),
            request.query is None,
            _IN_SECONDS if len(timestamp) < 12 else "",
        )

    def mistakes(self, request: Request, fields: Mapping[bytes, bytes], credentials: Credentials) -> Iterator[Mistake]:
        signed, signature = credentials.signed, credentials.signature
        for decoded in loosely_decoded(fields[SIGNATURE]):
            how = f"{_written(fields[SIGNATURE])}, not the Base64 of {len(decoded)} bytes"
            yield Mistake(f"wrong signature encoding ({how}): use standard Base64 with padding", signed, decoded)
        head = [request.method, request.path, fields[TIMESTAMP]]
        body = [request.body] if request.body else []
        other_unit = b"%d" % (credentials.timestamp_ms if len(fields[TIMESTAMP]) < 12 else credentials.timestamp_ms // 1000)
        yield Mistake(
            "seconds and milliseconds were mixed up: sign exactly the value sent in X-Request-Timestamp",
            b"\n".join([*head[:2], other_unit, *body]), signature,
        )  # fmt: skip
        if request.query is not None:
            yield Mistake(
                "the query was signed: this dialect signs only the path", b"\n".join([head[0], request.target, head[2], *body]), signature
            )
        for url in urls(request, request.target):
            yield Mistake(
                "the entire URL was signed: this dialect signs only the path", b"\n".join([head[0], url, head[2], *body]), signature
            )
        if body:
            yield Mistake("the body was not signed: sign it as the fourth line", b"\n".join(head), signature)
        else:
            yield Mistake("an empty fourth line was signed: without a body there are three lines", b"\n".join([*head, b""]), signature)
        for other in rewritten(request.body) if body else ():
            yield Mistake("the signed JSON is formatted differently from the JSON sent: serialize once, then sign and send the same bytes",
                          b"\n".join([*head, other]), signature)  # fmt: skip

    def refusal(self, problem: Mapping[str, object]) -> None:
        """Plain problems."""


_IN_SECONDS: Final = "Identical requests signed within the same second have the same signature: send X-Request-Timestamp in milliseconds"
_NAMES = {KEY: "X-API-Key", TIMESTAMP: "X-Request-Timestamp", SIGNATURE: "X-Request-Signature"}


def _written(signature: bytes) -> str:
    return "hex" if HEX.fullmatch(signature) else "something else"


_seconds: Final[dict[bytes, int]] = {}
"""Recently parsed timestamps in seconds: all requests of one second have the same."""


def milliseconds(timestamp: bytes, name: str) -> int:
    """A time in seconds or milliseconds, distinguished by magnitude, in Unix milliseconds.

    :param name: the field's name, for the refusal
    :raises MalformedRequest: it is none
    """
    if not timestamp.isdigit() or len(timestamp) > 15 or timestamp[0] == _ZERO:
        raise MalformedRequest(f"{name} must be a Unix time in seconds (or milliseconds)")
    value = int(timestamp)
    if value >= _SECONDS_BELOW:
        return value
    remember(_seconds, timestamp, value * 1000, _SECONDS)
    return value * 1000
