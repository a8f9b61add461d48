"""The admission decision: :meth:`Gate.admit` applies every check to a request, in order.

A :class:`Gate` is one version of the configuration, compiled and immutable; a reload replaces it, and a request keeps the one that
it began with. What outlives a version is passed in as :class:`Services`. No decision awaits anything: what must be awaited is
returned (a claim at the replay guard) or raised (:class:`KeyNeeded`).
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gateway.admission import builtin, rules
from gateway.admission.accounting import Accounting
from gateway.admission.allowances import Allowances
from gateway.admission.authentication import Authentication, request_of
from gateway.admission.brief import BriefAnswer, BriefRefusal, throttled
from gateway.admission.dialects import Credentials
from gateway.admission.explanations import Explanations
from gateway.admission.failures import REFUSED_MESSAGES
from gateway.admission.outcome import Admitted, Claim, KeyNeeded
from gateway.admission.principal import Principal
from gateway.admission.refusals import Refusals
from gateway.admission.routes import Route, RouteTable
from gateway.admission.services import Services
from gateway.admission.sessions import SESSIONS, Message
from gateway.errors import (
    AmbiguousPath,
    InternalError,
    InvalidCredentials,
    KeyStoreUnavailable,
    MalformedRequest,
    Refusal,
    Requester,
    TimestampOutOfWindow,
    problem_of,
)
from gateway.http1.body import UNVERIFIED
from gateway.http1.message import Answer, Inbound, Request
from gateway.net.addresses import customer_network, owners, owners_with_key
from gateway.net.client_ip import ClientAddress, ClientIpRule
from gateway.runtime.gcra import Charge

if TYPE_CHECKING:
    from gateway.admission.failures import AddressLimiter, FailureLimiter
    from gateway.admission.limits import KeyLimiter
    from gateway.config.settings import GatewaySettings

Answered = Callable[[BaseException | None, bool], None]
"""Called with the error of a claim, if any, and with whether the key is still valid."""

_QUERY: Final = re.compile(rb'[!"$-~]*')


class Gate:
    """See the module."""

    def __init__(self, settings: "GatewaySettings", routes: RouteTable, services: Services) -> None:
        self.settings = settings
        self.routes = routes
        self.services = services
        self._limiter: KeyLimiter = services.limiter
        self._usage = services.usage
        self._monotonic_ms = services.monotonic_ms
        self._client_ip = ClientIpRule(settings.client_ip.trusted_proxies, settings.client_ip.header, settings.client_ip.header_form)
        self._auth = settings.auth
        self._clock_window_ms = settings.auth.clock_window_ms
        self._max_clock_window_ms = settings.auth.max_clock_window_ms
        self._failures: FailureLimiter = services.failures
        self._failure_rate = settings.limits.per_ip_failures
        self._public: AddressLimiter = services.public
        self._address_rate = settings.limits.per_address
        self._allowances = Allowances(settings)
        self.explanations = Explanations()
        self._authentication = Authentication(settings, services, self._client_ip)
        self._refusals = Refusals(settings, routes, self._client_ip, self.explanations, services.monotonic_ms)
        self._accounting = Accounting(settings, services, self._allowances, self._authentication, self._refusals)

    def route(self, head: Request) -> Route:
        """The route of a request, known from its head alone.

        :raises AmbiguousPath, NoRoute, MethodNotAllowed: default deny
        :raises Maintenance: it is closed for maintenance
        """
        if head.query is not None and not _QUERY.fullmatch(head.query):
            raise AmbiguousPath("the query contains a fragment (#), or a control, space or non-ASCII byte; percent-encode it")
        literal = self.routes.literal.get((head.method, head.path))
        route = literal if literal is not None else self.routes.match(head.method, head.path)
        if route.maintenance:
            rules.check_open(route)
        return route

    def method(self, message: Message, route: Route) -> Route:
        """The rule that applies to a session's message.

        :raises MalformedRequest: it is not a message of the dialect
        :raises NoRoute: default deny
        :raises Maintenance: it is closed for maintenance
        """
        if message.wrong:
            raise MalformedRequest(message.wrong)
        rule = route.method(message.names)
        rules.check_open(rule)
        return rule

    def client(self, request: Request) -> tuple[str, ...]:
        """The owners of a request's turns: the client's, or the peer's if the client IP could not be determined."""
        return owners(self._client_ip.of(request).address or request.peer)

    def begin(self, request: Request, route: Route) -> tuple[str, ...]:
        """Identify the sender from the head alone, before any content is buffered.

        An unknown key is not refused here: its content is received like that of a wrong signature, so that neither the answer nor its
        timing distinguishes the two. The content of all unknown keys shares one bound instead.

        :return: the owners that the content is charged to: the client's network and site, and the key's account or :data:`UNVERIFIED`
        :raises Refusal: the head shows that credentials are missing or malformed
        :raises KeyNeeded: the key must be fetched first
        """
        client = self._client_ip.of(request)
        address = client.address or request.peer
        if route.scope == "public":
            return owners(address)
        now_ms = self._monotonic_ms()
        authentication = self._authentication
        try:
            dialect, fields = authentication.dialect(request)
            claimed = dialect.key_id(request, fields)
        except Refusal as refusal:
            self._accounting.refused(refusal, None, "", client, request)
            raise
        if self._throttled_ms(client, request, now_ms) and not authentication.may_be_known([claimed], address, now_ms):
            return (*owners(address), UNVERIFIED)
        principal = authentication.known(claimed, now_ms)
        if principal is None:
            return (*owners(address), UNVERIFIED)
        return (*owners_with_key(address), f"account {principal.identity.account_id}")

    def admit(self, inbound: Inbound, route: Route) -> Admitted:
        """As :meth:`decide`, for callers that expect every refusal as an exception.

        :raises Refusal: the request is refused
        :raises KeyNeeded: the key must be fetched first; nothing has been charged
        """
        decided = self.decide(inbound, route)
        if isinstance(decided, BriefRefusal):
            raise decided.refusal()
        return decided

    def decide(self, inbound: Inbound, route: Route) -> Admitted | BriefRefusal:
        """Decide on a complete request, or on one message of a session. Charges the limits exactly once, if it passes.

        :param inbound: a :class:`Request` with its route, or a :class:`Message` with the rule from :meth:`method`
        :raises Refusal: the request is refused
        :raises KeyNeeded: the key must be fetched first; nothing has been charged
        """
        client = self._client_ip.direct.get(inbound.peer) or self._client_ip.of(request_of(inbound))
        if route.scope == "public":
            address, now_ms = client.address or inbound.peer, self._monotonic_ms()
            if not self._public.admits(address, route.weight, self._address_rate, now_ms):
                raise self._over_address_limit(address, route, now_ms)
            return Admitted(route, None, client.address, client.secure)
        authentication = self._authentication
        principal: Principal | None = None
        claimed = ""
        now_ms = self._monotonic_ms()
        try:
            throttled_ms = self._throttled_ms(client, inbound, now_ms) if self._failures.tats else 0.0
            if throttled_ms and not authentication.may_name_known_key(inbound, client.address or inbound.peer, now_ms):
                return self._reject(None, None, throttled_ms, client, inbound, route, now_ms)
            credentials = authentication.read(inbound)
            window_ms = 0
            if credentials is not None:
                claimed = credentials.key_id
                if route.strict_replay or route.scope == "trade":
                    rules.check_coverage(credentials, route)
                try:
                    window_ms = rules.check_time(credentials, inbound.received_ms, self._clock_window_ms, self._max_clock_window_ms)
                except TimestampOutOfWindow as late:
                    principal = authentication.signer(credentials, now_ms, late)  # so that the key's owner sees the refusal
                    raise
                principal = authentication.signer(credentials, now_ms)
                if principal is None:
                    if throttled_ms:  # perhaps only its site is
                        throttled_ms = self._failures.of_network_ms(client.address or inbound.peer, self._failure_rate, now_ms)
                    if not throttled_ms:  # otherwise nothing has been verified
                        principal = authentication.known(credentials.key_id, now_ms)
                    return self._reject(principal, credentials, throttled_ms, client, inbound, route, now_ms)
            else:
                principal = authentication.logged_in(inbound, now_ms)
            charge = self._authorize(principal, client, inbound, route, now_ms)
        except Refusal as refusal:
            self._accounting.refused(refusal, principal, claimed, client, inbound, route=route)
            raise
        return self._pass(principal, credentials, charge, client, inbound, route, window_ms, now_ms)

    def _throttled_ms(self, client: ClientAddress, inbound: Inbound, now_ms: int) -> float:
        """Milliseconds for which the address or its site is throttled after too many failures; 0: it is not."""
        return self._failures.retry_after_ms(client.address or inbound.peer, self._failure_rate, now_ms)

    def _reject(  # noqa: PLR0917  # on the path of attacks
        self, principal: Principal | None, credentials: Credentials | None, throttled_ms: float, client: ClientAddress, inbound: Inbound,
        route: Route, now_ms: int,
    ) -> BriefRefusal:  # fmt: skip
        """Refuse invalid credentials.

        :param credentials: ``None`` if they were not read
        :raises Refusal: the refusal is explained
        """
        if self.explanations.take(client.address or inbound.peer, now_ms):
            if throttled_ms or credentials is None:
                refusal = throttled(throttled_ms)
            else:
                refusal = self._authentication.explained(principal, credentials, inbound, now_ms)
            refusal.brief = False
            raise refusal
        signed = credentials.signed if credentials is not None else b""
        return self._accounting.unexplained(principal, signed, throttled_ms, client, inbound, route, now_ms)

    def _authorize(self, principal: Principal, client: ClientAddress, inbound: Inbound, route: Route, now_ms: int) -> Charge:
        """Check expiry and freeze, IP allowlist, scope and limits."""
        rules.check_standing(principal, inbound.received_ms)
        rules.check_address(principal, client)
        rules.check_scope(principal, route)
        for further in route.further:
            rules.check_scope(principal, further)
        return self._charge(principal, route, now_ms)

    def _pass(  # noqa: PLR0917  # on the hot path
        self, principal: Principal, credentials: Credentials | None, charge: Charge, client: ClientAddress, inbound: Inbound, route: Route,
        window_ms: int, now_ms: int,
    ) -> Admitted:  # fmt: skip
        """Admit the request: count it, now or once its signature has been claimed, and report its key's limits."""
        claim = None
        if credentials is not None and (route.strict_replay or (credentials.portable and not route.replay_off)):
            outage = self._auth.replay_outage if route.strict_replay else "allow"
            ttl_ms = credentials.timestamp_ms + window_ms - inbound.received_ms + rules.AHEAD_MS + rules.CLOCKS_MS
            shared = credentials.portable and route.scope != "trade" and isinstance(inbound, Request)
            # RSASSA-PSS is randomized: the same request signed again has another signature, and is the same request.
            once = credentials.signed if credentials.pss else credentials.signature
            claim = Claim(principal.key_id, once, ttl_ms, outage=outage, shared=shared, advice=credentials.replay_advice)
        else:
            self._usage.admitted(principal.key_id, client.address, inbound.received_ms)
        weighed = credentials is not None and credentials.weighed
        lines = b""
        if not isinstance(inbound, Request):  # the answer to a message has no header fields
            pass
        elif not weighed and principal.expires_ms is None:
            allowances = self._allowances
            lines = (allowances.default if principal.tier is None else allowances.of(principal)).lines(charge)
        else:
            lines = self._accounting.lines(principal, charge, route if weighed else None, inbound.received_ms, now_ms)
        return Admitted(route, principal.identity, client.address, client.secure, lines, claim, principal.expires_ms, principal, weighed)

    def _over_address_limit(self, address: str, route: Route, now_ms: int) -> Refusal:
        """The refusal of one of too many requests to public routes from this address."""
        rate = self._address_rate
        wait_ms = self._public.wait_ms(address, route.weight, rate, now_ms)
        refusal = rules.over_limit(f"{rate} per IP address", route.weight, wait_ms, "per_address")
        refusal.requester = Requester(None, None, address)
        return refusal

    def _charge(self, principal: Principal, route: Route, now_ms: int) -> Charge:
        """Charge the key and its account.

        :raises RateLimited: one of the limits is exceeded
        :raises KeyNeeded: the limit must be settled with the other workers first
        """
        allowances = self._allowances
        allowance = allowances.default if principal.tier is None else allowances.of(principal)
        charge = allowance.charge(self._limiter, principal, route.weight, now_ms)
        if not charge.allowed:
            if charge.of_account:
                raise rules.over_limit(f"{allowance.per_account} per account", route.weight, charge.retry_after_ms, "per_account")
            raise rules.over_limit(str(allowance.per_key), route.weight, charge.retry_after_ms, "per_key")
        return charge

    def count_refused_message(self, refusal: Refusal, client: Request, *, with_key: bool) -> bool:
        """Count the refusal of a session's message against its address, unless a key was verified, whose own limits apply.

        :param client: the handshake request of the session
        :param with_key: whether the session has used a key: then what others of its site have had refused must not end it
        :return: whether the address may send more messages
        """
        if refusal.requester is not None and refusal.requester.account_id is not None:
            return True
        address = self._client_ip.of(client).address or client.peer
        if with_key:
            address = customer_network(address)
        return self.services.messages.admits(address, 1, REFUSED_MESSAGES, self._monotonic_ms())

    async def resolve(self, needed: KeyNeeded) -> None:
        """Load a key into memory, or the fact that it does not exist; or settle its limit with the other workers.

        :raises KeyStoreUnavailable: neither Redis nor PostgreSQL answered
        :raises Refusal: :attr:`KeyNeeded.otherwise`, if the key could not be fetched
        """
        if needed.rate is not None:
            await self.services.limiter.settled(needed.key_id, needed.weight, needed.rate)
            return
        try:
            await self.services.lookup.fetch(needed.key_id)
        except KeyStoreUnavailable:
            if needed.otherwise is not None:
                raise needed.otherwise from None
            raise

    def claim(self, admitted: Admitted, answered: Answered) -> None:
        """Claim the signature at the replay guard.

        :param answered: called with the guard's answer: ``None`` if the claim succeeded, else :class:`ReplayedRequest`,
            :class:`ReplayGuardUnavailable` or a defect; and whether the key is still valid
        """
        claim = admitted.replay
        if claim is None:
            raise InternalError("nothing to claim")

        def claimed(refusal: Refusal | None) -> None:
            error: BaseException | None = refusal
            still_valid = True
            try:
                still_valid = self.still_valid(admitted)
                if still_valid or refusal is not None:
                    self._accounting.claimed(admitted, refusal)
            except Exception as defect:  # noqa: BLE001 - passed to the waiting request, for which no time limit runs
                error = defect
            answered(error, still_valid)

        self.services.replay.ask(claim.key_id, claim.signature, claimed, ttl_ms=claim.ttl_ms, outage=claim.outage, shared=claim.shared)

    def still_valid(self, admitted: Admitted) -> bool:
        """Whether the key of an admitted request is unchanged since, by a cheap check. If not, call :meth:`confirm`."""
        principal = admitted.principal
        if principal is None:
            return True
        expires_ms = principal.expires_ms
        if expires_ms is not None and self.services.now_ms() >= expires_ms:
            return False
        return self._authentication.knows(principal, self._monotonic_ms())

    def confirm(self, admitted: Admitted, *, counted: bool = False) -> None:
        """Check again the key of an admitted request that has waited, and count the request. If this raises, call :meth:`withdraw`.

        :param counted: whether it was counted already, when it was admitted or claimed
        :raises InvalidCredentials, KeyExpired, AccountFrozen: the key is no longer valid
        :raises KeyNeeded: the key must be fetched first
        """
        principal = admitted.principal
        if principal is None:
            return
        found = self._authentication.known(principal.key_id, self._monotonic_ms())
        if found is None:
            raise InvalidCredentials("the key was deleted while the request was waiting; it was not executed", reason="deleted key")
        rules.check_standing(found, self.services.now_ms())
        admitted.principal = found
        if not counted:
            self._accounting.claimed(admitted, None)

    def withdraw(self, admitted: Admitted, error: BaseException) -> None:
        """Withdraw an admission, because its key is no longer valid or could not be checked again.

        Refunds the charge and counts the refusal.
        """
        self._accounting.claimed(admitted, error)

    def answer(self, admitted: Admitted, request: Request) -> Answer:
        """The answer of a built-in route.

        :raises MalformedRequest: the client IP could not be determined
        """
        if admitted.route.builtin == "ip":
            return builtin.address(self._client_ip.of(request))
        if admitted.principal is not None:
            principal, now_ms = admitted.principal, self._monotonic_ms()
            allowance = self._allowances.of(principal)
            account = None
            if allowance.per_account is not None:
                account = self._limiter.charge(principal.account_ledger, 0, allowance.per_account, now_ms)
            charge = self._limiter.charge(principal.key_id, 0, allowance.per_key, now_ms)
            return builtin.key(principal, allowance.per_key, allowance.per_account, charge, account)
        return builtin.time(request.received_ms)

    def render_message(self, refusal: Refusal, route: Route, message: Message | None, request_id: str) -> bytes:
        """A refusal as a message for a session's client.

        :param message: ``None`` if it could not be parsed
        """
        return SESSIONS[route.session].refusal(problem_of(refusal, request_id=request_id, docs_url=self.settings.gateway.docs_url), message)

    def render(self, refusal: Refusal, request: Request | None, request_id: str = "", partial: tuple[bytes, bytes] = (b"", b"")) -> Answer:
        """A refusal as an answer for the client.

        :param request: ``None`` if it could not be framed; then ``request_id`` is its id
        :param partial: method and path of such a request, as far as known
        """
        if request is None:
            return self._refusals.render_unframed(refusal, request_id, *partial)
        return self._refusals.render(refusal, request)

    def brief(self, refused: BriefRefusal, request: Request) -> BriefAnswer:
        """The answer to a request that is refused without an explanation."""
        return self._refusals.brief(refused.kind, request)
