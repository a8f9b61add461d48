"""A trading bot on one open connection: signs as a customer's program does, or wrongly on purpose."""

import json
import secrets
import ssl
import time
from functools import partial
from http.client import HTTPConnection, HTTPSConnection
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from deploy.signing import Outgoing, SigningKey, sign
from gateway.runtime import clock


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
    :param tls: for ``https``: whom it trusts
    """

    def __init__(
        self,
        url: str,
        key: dict[str, str] | None = None,
        *,
        dialect: str = "mobee",
        address: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        parts = urlsplit(url)
        self._key = None if key is None else SigningKey(key["key_id"], key["secret"])
        self._dialect = dialect
        kind = HTTPConnection if tls is None else partial(HTTPSConnection, context=tls)
        self.connection: HTTPConnection = kind(parts.hostname, parts.port, timeout=20, source_address=(address, 0))

    def __enter__(self) -> "Bot":
        return self

    def __exit__(self, *_error: object) -> None:
        self.connection.close()

    def call(self, method: str, target: str, body: object = None, *, skew_ms: int = 0, headers=None) -> Answer:
        """Send one request, signed when the bot has a key.

        :param skew_ms: added to the clock that the timestamp is taken from
        :param headers: to send beside those that sign it
        """
        content = b"" if body is None else json.dumps(body).encode()
        if self._key is None:
            return self.send(method, target, content, headers or {})
        request = self.sign(method, target, content, skew_ms)
        return self.send(method, request.target, request.body, request.headers | (headers or {}))

    def becomes(self, wanted: int | str) -> Answer:
        """Ask until the answer has this status or code: a change has reached the gate, as a rule within milliseconds."""
        deadline = time.monotonic() + 30
        while wanted not in {(answer := self.call("GET", "/v1/wallets")).status, answer.code}:
            assert time.monotonic() < deadline, f"not {wanted}: {answer}"
            time.sleep(0.02)
        return answer

    def signed(self, method: str, target: str, body: bytes = b"", *, skew_ms: int = 0) -> dict[str, str]:
        """The headers of a signed request, to be sent with it or with another one."""
        return self.sign(method, target, body, skew_ms).headers

    def sign(self, method: str, target: str, body: bytes, skew_ms: int) -> Outgoing:
        return sign(self._dialect, self._key, method, target, body, now_ms=clock.now_ms() + skew_ms, nonce=secrets.token_hex(8))

    def send(self, method: str, target: str, body: bytes, headers: dict[str, str]) -> Answer:
        self.connection.request(method, target, body or None, headers)
        answer = self.connection.getresponse()
        raw = answer.read()
        try:
            content = json.loads(raw)
        except ValueError:
            content = raw
        return Answer(answer.status, {name.lower(): value for name, value in answer.headers.items()}, content)
