"""A trading bot on one open connection: signs as a customer's program does, or wrongly on purpose."""

import json
import secrets
from http.client import HTTPConnection
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from deploy.signing import SigningKey, sign
from gateway import clock


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    content: Any

    @property
    def code(self) -> str | None:
        return self.content.get("code") if isinstance(self.content, dict) else None


class Bot:
    """One key (or none) and one connection.

    :param address: loopback address to come from: limits per address are then its own
    """

    def __init__(self, url: str, key: dict[str, str] | None = None, *, dialect: str = "mobee", address: str = "127.0.0.1") -> None:
        parts = urlsplit(url)
        self._key = None if key is None else SigningKey(key["key_id"], key["secret"])
        self._dialect = dialect
        self.connection = HTTPConnection(parts.hostname, parts.port, timeout=20, source_address=(address, 0))

    def __enter__(self) -> "Bot":
        return self

    def __exit__(self, *_error: object) -> None:
        self.connection.close()

    def call(
        self, method: str, target: str, body: object = None, *, skew_ms: int = 0, headers: dict[str, str] | None = None, **tampered
    ) -> Answer:
        """Send one request.

        :param skew_ms: added to the clock that the timestamp is taken from
        :param tampered: ``target``, ``body`` (bytes) or ``headers`` to send in place of what was signed
        """
        content = b"" if body is None else json.dumps(body).encode()
        sent = {"target": target, "body": content, "headers": {}}
        if self._key is not None:
            request = sign(self._dialect, self._key, method, target, content, now_ms=clock.now_ms() + skew_ms, nonce=secrets.token_hex(8))
            sent = {"target": request.target, "body": request.body, "headers": request.headers}
        sent["headers"] = sent["headers"] | (headers or {})
        return self.send(method, **sent | tampered)

    def signed(self, method: str, target: str, body: bytes = b"", *, skew_ms: int = 0) -> dict[str, str]:
        """The headers of a signed request."""
        return sign(self._dialect, self._key, method, target, body, now_ms=clock.now_ms() + skew_ms, nonce=secrets.token_hex(8)).headers

    def send(self, method: str, target: str, body: bytes, headers: dict[str, str]) -> Answer:
        self.connection.request(method, target, body or None, headers)
        answer = self.connection.getresponse()
        raw = answer.read()
        try:
            content = json.loads(raw)
        except ValueError:
            content = raw
        return Answer(answer.status, {name.lower(): value for name, value in answer.headers.items()}, content)
