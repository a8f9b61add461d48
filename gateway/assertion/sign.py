"""Signs assertions: one per identity, audience and period. No cache and no I/O; callers cache the result for the period."""

import json

from gateway.assertion.keys import SigningKey, base64url
from gateway.http1.message import Identity


class Signer:
    """Signs assertions with the current key.

    :param ttl_ms: lifetime of an assertion, at most 60 s
    """

    def __init__(self, key: SigningKey, *, issuer: str, ttl_ms: int) -> None:
        self.configure(issuer=issuer, ttl_ms=ttl_ms)
        self.use(key)

    def configure(self, *, issuer: str, ttl_ms: int) -> None:
        """Use these values for further assertions; callers must drop cached ones."""
        self.period_ms = ttl_ms // 2
        """How long callers may reuse an assertion, so that at least half of its lifetime is left."""
        self._issuer = issuer
        self._ttl_s = ttl_ms // 1000

    def use(self, key: SigningKey) -> None:
        """Sign with this key from now on. Earlier assertions stay valid: their key stays in the JWKS."""
        self._key = key
        self._header = _segment({"alg": "EdDSA", "typ": "JWT", "kid": key.kid}) + b"."

    def assertion(self, identity: Identity | None, audience: str, now_ms: int) -> bytes:
        """A compact JWS (RFC 7515 §7.1) that states who the request is from, for the upstream ``audience``.

        :param identity: ``None`` on a public route: the assertion then states only that the request came through the gate
        """
        issued = now_ms // 1000
        claims: dict[str, object] = {"iss": self._issuer, "aud": audience, "iat": issued, "exp": issued + self._ttl_s}
        if identity is not None:
            claims |= {"sub": identity.account_id, "key_id": identity.key_id, "scopes": list(identity.scopes)}
        signed = self._header + _segment(claims)
        return signed + b"." + base64url(self._key.private.sign(signed))


def _segment(value: dict[str, object]) -> bytes:
    return base64url(json.dumps(value, separators=(",", ":")).encode())
