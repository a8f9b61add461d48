"""The provider's userinfo endpoint (OpenID Connect Core §5.3).

Many providers omit ``email`` and custom claims from the ID token and return them here.
"""

import json
from collections.abc import Mapping
from typing import Any

import aiohttp

from admin.config import Oidc
from admin.errors import IdentityProviderUnavailable
from admin.outbound import read_to_end

_MAX_ANSWER = 65_536


async def userinfo(
    http: aiohttp.ClientSession, oidc: Oidc, endpoint: str, access_token: str, subject: str, *, or_empty: bool = False
) -> Mapping[str, Any]:
    """The claims about ``subject`` that this access token may read.

    :param or_empty: return no claims if the token is not accepted, as an ID token is not
    :raises IdentityProviderUnavailable: no answer, or about another subject: without it the customer would count as unverified
    """
    headers = {"Accept": "application/json", "Authorization": f"Bearer {access_token}"}
    timeout = aiohttp.ClientTimeout(total=oidc.timeout_ms / 1000)
    try:
        async with http.get(endpoint, headers=headers, timeout=timeout, allow_redirects=False) as response:
            body, status = await read_to_end(response, _MAX_ANSWER), response.status
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise _unavailable(type(error).__name__) from None
    try:
        claims: Any = json.loads(body)
    except (ValueError, RecursionError):
        claims = None
    if or_empty and status in {401, 403}:
        return {}
    if status != 200 or not isinstance(claims, dict):
        raise _unavailable(f"answered {status}" if status != 200 else "is not a JSON object: a signed answer is not read")
    # §5.3.2: without this, the answer may be about somebody else.
    if claims.get("sub") != subject:
        raise _unavailable("answered about another subject")
    return claims


def _unavailable(why: str) -> IdentityProviderUnavailable:
    return IdentityProviderUnavailable("The identity provider did not answer. Try again shortly.", reason=f"userinfo endpoint: {why}")
