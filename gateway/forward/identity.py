"""Identity headers for the upstream (``X-Account-Id``, the assertion …), rendered once per key, upstream and period."""

import json
from typing import Protocol
from urllib.parse import quote

from gateway.http1.message import Identity

_VISIBLE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")


class Signer(Protocol):
    """Creates the assertion that an upstream verifies (``X-Gateway-Assertion``)."""

    def assertion(self, identity: Identity | None, audience: str, now_ms: int) -> bytes:
        """A signed JWT stating that ``identity`` was admitted by the gate for ``audience``; ``None``: a public route."""


class IdentityLines:
    """Rendered identity field lines for one upstream.

    :param audience: the upstream's name
    :param period_ms: how long one assertion is used; its own lifetime must be longer
    :param max_entries: maximum number of cached identities; when full, the cache is cleared
    """

    __slots__ = ("_audience", "_cache", "_max_entries", "_period_ms", "_signer")

    def __init__(self, signer: Signer, audience: str, *, period_ms: int, max_entries: int = 100_000) -> None:
        self._signer = signer
        self._audience = audience
        self._period_ms = period_ms
        self._max_entries = max_entries
        self._cache: dict[str, _Rendered] = {}

    def at(self, identity: Identity | None, now_ms: int) -> bytes:
        """The lines for a request at this time, each ended by CRLF."""
        key_id = identity.key_id if identity is not None else ""
        cached = self._cache.get(key_id)
        if cached is not None and cached.identity is identity and cached.from_ms <= now_ms < cached.until_ms:
            return cached.lines
        return self._render(identity, key_id, now_ms).lines

    def members_at(self, identity: Identity, now_ms: int) -> bytes:
        """The same as members of a JSON object, for a session's message; with a trailing comma."""
        cached = self._cache.get(identity.key_id)
        if cached is None or cached.identity is not identity or not cached.from_ms <= now_ms < cached.until_ms:
            cached = self._render(identity, identity.key_id, now_ms)
        if not cached.members:
            cached.members = _members(identity, cached.assertion)
        return cached.members

    def _render(self, identity: Identity | None, key_id: str, now_ms: int) -> "_Rendered":
        if len(self._cache) >= self._max_entries:
            self._cache.clear()
        assertion = self._signer.assertion(identity, self._audience, now_ms)
        rendered = _Rendered(identity, now_ms, now_ms + self._period_ms, _render(identity, assertion), assertion)
        self._cache[key_id] = rendered
        return rendered


class _Rendered:
    """The rendered lines of one identity, and their validity."""

    __slots__ = ("assertion", "from_ms", "identity", "lines", "members", "until_ms")

    def __init__(self, identity: Identity | None, from_ms: int, until_ms: int, lines: bytes, assertion: bytes) -> None:
        self.identity = identity
        self.from_ms = from_ms
        self.until_ms = until_ms
        self.lines = lines
        self.assertion = assertion
        self.members = b""
        """Rendered for the first message."""


def _render(identity: Identity | None, assertion: bytes) -> bytes:
    proof = b"x-gateway-assertion: " + assertion + b"\r\n"
    if identity is None:
        return proof
    # An account id is arbitrary text of the identity provider: escaped, so that it cannot end a line (RFC 9110 §5.5).
    account = quote(identity.account_id, safe=_VISIBLE)
    scopes = ",".join(identity.scopes)
    return f"x-account-id: {account}\r\nx-key-id: {identity.key_id}\r\nx-key-scopes: {scopes}\r\n".encode() + proof


def _members(identity: Identity, assertion: bytes) -> bytes:
    members = {
        "assertion": assertion.decode(),
        "account_id": identity.account_id,
        "key_id": identity.key_id,
        "scopes": list(identity.scopes),
    }
    return json.dumps(members, separators=(",", ":")).encode()[1:-1] + b","
