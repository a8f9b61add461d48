"""Authentication and rate limiting in front of every operation of the account holder."""

from collections.abc import Sequence

import structlog
from aiohttp import web

from admin.api.handlers import AccountHolder
from admin.api.limiter import Limiter
from admin.api.problems import ACCOUNT
from admin.audit import Provenance
from admin.config import AdminLimits
from admin.errors import Unauthenticated, rate_limited
from admin.identity.accounts import Accounts
from admin.identity.browser import Browsers
from admin.identity.caller import Authenticator, Caller
from gateway.errors import StoreUnavailable
from gateway.net.addresses import customer_network
from gateway.runtime import clock

_log = structlog.get_logger(__name__)


class Entry:
    """Identifies the account holder who sent a request.

    :param authenticators: called in order; the first that finds credentials of its kind decides
    """

    def __init__(self, authenticators: Sequence[Authenticator], accounts: Accounts, limits: AdminLimits) -> None:
        self._authenticators = authenticators
        self._accounts = accounts
        self._per_account = Limiter(limits.per_account)
        self._failures = Limiter(limits.per_ip_failures)

    async def admit(self, request: web.Request, provenance: Provenance) -> AccountHolder:
        """:raises Unauthenticated, RateLimited, StoreUnavailable: the request is not admitted"""
        try:
            caller = await self._identify(request, provenance.now_ms)
        except Unauthenticated:
            # Only failures count by address, so that customers who share one with an attacker are not affected.
            wait_ms = self._failures.take(customer_network(provenance.client_ip or ""), clock.monotonic_ms())
            if wait_ms:
                raise rate_limited("Too many requests without a valid login from this address.", wait_ms) from None
            raise
        request[ACCOUNT] = caller.account_id
        wait_ms = self._per_account.take(caller.account_id, clock.monotonic_ms())
        if wait_ms:
            raise rate_limited("Too many requests for this account: slow down.", wait_ms)
        return AccountHolder(caller, await self._accounts.for_caller(caller, provenance))

    async def _identify(self, request: web.Request, now_ms: int) -> Caller:
        for authenticate in self._authenticators:
            caller = await authenticate(request, now_ms)
            if caller is not None:
                return caller
        raise Unauthenticated.because("Send a token of the identity provider: Authorization: Bearer TOKEN.", token_given=False)


async def rotate_session(browsers: Browsers, request: web.Request, response: web.Response, body: object) -> None:
    """Replace a session's cookie after every proof, so that one stolen earlier becomes useless.

    If Redis is unavailable the session keeps its cookie: the answer may contain a one-time secret.
    """
    if getattr(body, "proof", None) is None:
        return
    try:
        await browsers.rotate(request, response)
    except StoreUnavailable as error:
        _log.warning("session_not_rotated", reason=str(error))
