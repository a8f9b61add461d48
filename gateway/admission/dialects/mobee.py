"""The ``mobee`` dialect: three header fields; method, path, timestamp and content are signed, the query is not. Pure."""

from collections.abc import Mapping

from gateway.admission.dialects.base import Credentials, decoded_base64
from gateway.errors import MalformedRequest, MissingCredentials
from gateway.message import Request

KEY, SIGNATURE, TIMESTAMP = b"x-api-key", b"x-request-signature", b"x-request-timestamp"
_SECONDS_BELOW = 100_000_000_000
"""A number below this is seconds (until the year 5138), any other milliseconds (since 1973)."""


class Mobee:
    """See the module."""

    name = "mobee"
    fields = frozenset({KEY, SIGNATURE, TIMESTAMP})

    def read(self, request: Request, fields: Mapping[bytes, bytes]) -> Credentials:
        """See :meth:`Dialect.read`."""
        try:
            key_id, encoded, timestamp = fields[KEY], fields[SIGNATURE], fields[TIMESTAMP]
        except KeyError as missing:
            raise MissingCredentials(
                f"the header field {_NAMES[missing.args[0]]} is missing; a signed request carries {', '.join(_NAMES.values())}"
            ) from None
        signed = request.method + b"\n" + request.path + b"\n" + timestamp
        if request.body:
            signed += b"\n" + request.body
        return Credentials(
            key_id.decode("latin-1"), decoded_base64(encoded), signed, _milliseconds(timestamp), covers_query=request.query is None
        )

    def refusal(self, problem: Mapping[str, object]) -> None:
        """Plain problems."""


_NAMES = {KEY: "X-API-Key", TIMESTAMP: "X-Request-Timestamp", SIGNATURE: "X-Request-Signature"}


def _milliseconds(timestamp: bytes) -> int:
    if not timestamp.isdigit() or len(timestamp) > 15 or timestamp[:1] == b"0":
        raise MalformedRequest("X-Request-Timestamp is not a Unix time in seconds (or milliseconds), in digits")
    value = int(timestamp)
    return value * 1000 if value < _SECONDS_BELOW else value
