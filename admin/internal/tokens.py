"""Service tokens of the internal API: one per person or service."""

import hmac
from collections.abc import Mapping

from aiohttp import web
from pydantic import SecretStr

from admin.api.problems import OPERATOR
from admin.audit import Provenance
from admin.errors import Unauthenticated


class ServiceTokens:
    """Authenticates callers by their token and returns its name. All tokens are compared, in constant time."""

    def __init__(self, tokens: Mapping[str, SecretStr]) -> None:
        self._expected = {name: b"Bearer " + token.get_secret_value().encode() for name, token in tokens.items()}

    async def __call__(self, request: web.Request, _occasion: Provenance) -> str:
        """The name of the token.

        :raises Unauthenticated: the token is unknown, missing or repeated
        """
        given = request.headers.getall("Authorization", [])
        value = given[0].encode("utf-8", "surrogateescape") if len(given) == 1 else b""
        matching = [name for name, expected in self._expected.items() if hmac.compare_digest(value, expected)]
        if not matching:
            detail = "The service token is not valid." if given else "Send the service token: Authorization: Bearer TOKEN."
            raise Unauthenticated.because(detail, token_given=bool(given))
        request[OPERATOR] = matching[0]
        return matching[0]
