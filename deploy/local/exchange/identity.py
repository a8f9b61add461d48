"""Authenticates a request or message by the gateway's assertion."""

from collections.abc import Mapping
from typing import Any

from gateway.assertion import Asserted, AssertionRefused, verify
from gateway.assertion.verifier import JwksCache
from gateway.runtime import clock

AUDIENCE = "spot"
"""This service's name among the gateway's upstreams."""
ISSUER = "gerbang"


class Identities:
    """Verifies the member ``gateway`` that the gateway inserts first into each admitted message of a session."""

    def __init__(self, jwks_url: str) -> None:
        self._keys = JwksCache(jwks_url)

    async def of(self, message: Mapping[str, Any]) -> Asserted | None:
        """The caller that the message was admitted for; ``None`` for a public message.

        :raises AssertionRefused: it names a caller without a valid assertion
        """
        member = message.get("gateway")
        if not isinstance(member, dict) or not {"assertion", "account_id", "key_id"} & member.keys():
            return None
        token = member.get("assertion")
        if not isinstance(token, str):
            raise AssertionRefused("assertion: missing")
        keys = await self._keys.keys_for(token, clock.monotonic_ms())
        found = verify(token, expected_audience=AUDIENCE, expected_issuer=ISSUER, jwks=keys, now_ms=clock.now_ms())
        if (member.get("account_id"), member.get("key_id")) != (found.account_id, found.key_id):
            raise AssertionRefused("account_id, key_id: differ from the assertion")
        return found
