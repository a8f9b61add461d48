"""The admission decision: :meth:`Gate.admit` applies every check to a request, in order.

A :class:`Gate` is one version of the configuration, compiled and immutable; a reload swaps it whole, and a request keeps the one that
it began with. What lives longer than a version (keys in memory, limits, the replay guard, usage) is handed in as :class:`Services`.
Nothing here awaits; what needs a wait is named in the return value (a claim at the replay guard) or raised (:class:`KeyNeeded`).
"""

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from gateway.admission import answers, builtin, rules
from gateway.admission.allowances import Allowances, LedgerNeeded, count_order
from gateway.admission.dialects import DIALECTS, Credentials, Dialect, Mistake
from gateway.admission.dialects.base import invalid
from gateway.admission.explanations import Explanations
from gateway.admission.failures import REFUSED_MESSAGES
from gateway.admission.hints import Hints
from gateway.admission.principal import Principal, pretend_to_verify
from gateway.admission.routes import Route, RouteTable
from gateway.admission.sessions import SESSIONS, Message
from gateway.config.settings import GatewaySettings, Rate
from gateway.errors import (
    AmbiguousCredentials,
    AmbiguousPath,
    Asker,
    GerbangError,
    InternalError,
    InvalidCredentials,
    KeyStoreUnavailable,
    MalformedRequest,
    MissingCredentials,
    RateLimited,
    Refusal,
    ReplayedRequest,
    TimestampOutOfWindow,
    problem_of,
)
from gateway.http1.body import UNVERIFIED
from gateway.http1.message import Answer, Asked, Identity, Request
from gateway.keys.cache import ABSENT
from gateway.keys.ids import is_key_id
from gateway.net.addresses import customer_network
from gateway.net.client_ip import ClientIpRule, Seen
from gateway.runtime.gcra import Charge
from gateway.runtime.moments import rfc3339

if TYPE_CHECKING:
    from asyncio import Future

    from gateway.admission.failures import AddressLimiter, FailureLimiter
    from gateway.admission.limits import KeyLimiter
    from gateway.admission.replay import ReplayGuard
    from gateway.keys.lookup import KeyLookup
    from gateway.keys.usage import UsageCounts

_LAST_WEEK_MS = 7 * 86_400_000
_QUERY = re.compile(rb'[!"$-~]*')
_BINANCE_PATH = re.compile(rb"/(?:api|sapi|wapi|fapi|dapi|eapi|papi|ws-api)/v[0-9]+(?:/|$)")
"""The shape of Binance's paths: whoever calls them reads refusals in its form."""


class Services(NamedTuple):
    """What outlives a version of the configuration."""

    lookup: "KeyLookup[Principal]"
    limiter: "KeyLimiter"
    failures: "FailureLimiter"
    public: "AddressLimiter"
    """Of requests to public routes."""
    messages: "AddressLimiter"
    """Of messages that are refused and that nobody's key answers for."""
    replay: "ReplayGuard"
    usage: "UsageCounts"
    monotonic_ms: Callable[[], int]
    """The clock of the cache and the limits."""
    now_ms: Callable[[], int]
    """The wall clock, for what happens after a request's own moment."""


class KeyNeeded(GerbangError):
    """The key, or with ``rate`` the state of a limit, is not in this process's memory: await :meth:`Gate.resolve`, then admit again."""

    def __init__(self, key_id: str, *, weight: int = 0, rate: Rate | None = None, otherwise: Refusal | None = None) -> None:
        super().__init__("the key is not in memory")
        self.otherwise = otherwise
        """What the request is refused by when the key cannot be fetched: it is only looked up for its owner to be told."""
        self.key_id = key_id
        """Or the name of the limit's ledger."""
        self.weight = weight
        self.rate = rate


class Claim:
    """What the replay guard is asked."""

    __slots__ = ("advice", "key_id", "outage", "shared", "signature", "ttl_ms")

    def __init__(self, key_id: str, signature: bytes, ttl_ms: int, *, outage: str, shared: bool = False, advice: str = "") -> None:
        self.key_id = key_id
        self.signature = signature
        self.ttl_ms = ttl_ms
        """For how long from now the same request could pass every other check."""
        self.outage = outage
        """``deny`` or ``allow``: what becomes of the request while the guard cannot be asked."""
        self.shared = shared
        """Whether reads of the same signature may pass, too."""
        self.advice = advice
        """For the client, behind the refusal of a replay."""


class Admitted:
    """A request that may pass, once :attr:`replay` has been claimed."""

    __slots__ = ("answer_headers", "charge", "client_ip", "expires_ms", "identity", "principal", "replay", "route", "secure", "weighed")

    def __init__(  # noqa: PLR0917  # in the order of its story, by position, where it is made
        self, route: Route, identity: Identity | None, client_ip: str, answer_headers: bytes = b"", replay: Claim | None = None,
        expires_ms: int | None = None, principal: Principal | None = None, charge: Charge | None = None, secure: bool | None = None,
    ) -> None:  # fmt: skip
        self.route = route
        self.identity = identity
        """``None`` on a public route."""
        self.client_ip = client_ip
        """In canonical text; ``""`` when it cannot be read (then no key with an allow list comes this far)."""
        self.answer_headers = answer_headers
        """Rendered ``RateLimit-*`` field lines for the answer."""
        self.replay = replay
        self.expires_ms = expires_ms
        """When the key expires, Unix milliseconds: what a tunnel must not outlive."""
        self.principal = principal
        self.charge = charge
        self.weighed = False
        """Whether its weight and orders are told as Binance's clients expect."""
        self.secure = secure
        """Whether the client came over TLS, as a trusted proxy says; ``None``: as the connection itself did."""


class Gate:
    """See the module."""

    def __init__(self, settings: GatewaySettings, routes: RouteTable, version: str, services: Services) -> None:
        self.settings = settings
        self.routes = routes
        self.version = version
        self._services = services
        self._lookup = services.lookup
        self._limiter = services.limiter
        self._failures = services.failures
        self._usage = services.usage
        self._monotonic_ms = services.monotonic_ms
        self._client_ip = ClientIpRule(settings.client_ip)
        self._auth = settings.auth
        self._clock_window_ms = settings.auth.clock_window_ms
        self._max_clock_window_ms = settings.auth.max_clock_window_ms
        self._allowances = Allowances(settings)
        self._failure_rate = settings.limits.per_ip_failures
        self._hints = Hints()
        self._explanations = Explanations()
        self._briefs: dict[tuple[str, str], answers.Brief] = {}
        longest_first = sorted(settings.auth.path_dialects.items(), key=lambda item: -len(item[0]))
        self._forms: list[tuple[bytes, str]] = [(prefix.encode(), name) for prefix, name in longest_first]
        self._dialect_of: dict[bytes, Dialect] = {
            field: DIALECTS[name] for name in settings.auth.dialects for field in DIALECTS[name].fields
        }

    def route(self, head: Request) -> Route:
        """The route of a request, known from its head alone.

        :raises AmbiguousPath, NoRoute, MethodNotAllowed: default deny
        :raises Maintenance: it is closed for a while
        """
        if head.query is not None and not _QUERY.fullmatch(head.query):
            raise AmbiguousPath("the query contains a fragment (#), or a control, space or non-ASCII byte; percent-encode it")
        route = self.routes.match(head.method, head.path)
        rules.check_open(route)
        return route

    def message(self, text: bytes, route: Route, *, client: Request, key_id: str, received_ms: int, request_id: str) -> Message:
        """One message of a session, read.

        :param text: valid UTF-8
        :param client: the handshake that opened the session
        :param key_id: the key that it has logged in with; ``""``: none
        :raises MalformedRequest: it is not JSON, or JSON that two readers could read differently
        """
        return SESSIONS[route.session].read(text, client, key_id, received_ms, request_id)

    def method(self, message: Message, route: Route) -> Route:
        """The rule by which a session's message is decided.

        :raises MalformedRequest: it is no message of the dialect
        :raises NoRoute: default deny
        :raises Maintenance: it is closed for a while
        """
        if message.wrong:
            raise MalformedRequest(message.wrong)
        rule = route.method(message.names)
        rules.check_open(rule)
        return rule

    def begin(self, request: Request, route: Route) -> tuple[str, ...]:
        """Who sends the content that is still to come, from the head alone; nothing of it is kept before.

        An unknown key is not refused here: its content is received as that of a wrong signature is, so that the two are told apart neither
        by the answer nor by when it comes. The content of all unknown keys shares one bound instead.

        :return: whose the content is: the client's address, and the key's account or :data:`UNVERIFIED`
        :raises Refusal: credentials are missing or malformed as far as the head tells
        :raises KeyNeeded: the key must be fetched first
        """
        seen = self._client_ip.of(request)
        address = customer_network(seen.address or request.peer)
        if route.scope == "public":
            return (address,)
        now_ms = self._monotonic_ms()
        try:
            dialect, fields = self._claimed_dialect(request)
            claimed = dialect.key_id(request, fields)
        except Refusal as refusal:
            self._note(refusal, None, "", seen, request)
            raise
        if self._held_ms(seen, request, now_ms) and not self._may_be_known([claimed], now_ms):
            return (address, UNVERIFIED)
        principal = self._known(claimed, now_ms)
        return (address, UNVERIFIED if principal is None else f"account {principal.identity.account_id}")

    def admit(self, asked: Asked, route: Route) -> Admitted:
        """Decide on a whole request, or on one message of a session. Charges its limits exactly once, when it passes.

        :param asked: a :class:`Request` with its route, or a :class:`Message` with what :meth:`method` says of it
        :raises Refusal: it may not pass
        :raises KeyNeeded: the key must be fetched first; nothing has been charged
        """
        seen = self._client_ip.of(_request(asked))
        if route.scope == "public":
            self._check_public(seen, asked, route)
            return Admitted(route, None, seen.address, secure=seen.secure)
        principal: Principal | None = None
        claimed = ""
        now_ms = self._monotonic_ms()
        try:
            held_ms = self._held_ms(seen, asked, now_ms)
            credentials = self._read(asked, held_ms, now_ms)
            window_ms = 0
            if credentials is not None:
                claimed = credentials.key_id
                rules.check_coverage(credentials, route)
                try:
                    window_ms = rules.check_time(credentials, asked.received_ms, self._clock_window_ms, self._max_clock_window_ms)
                except TimestampOutOfWindow as late:
                    principal = self._owner_of_late(credentials, late, now_ms)
                    raise
                principal = self._known(credentials.key_id, now_ms)
                if principal is None or not self._verifies(principal, credentials):
                    if held_ms:
                        principal = None  # nothing is proven
                        raise _held_back(held_ms)
                    self._refuse_credentials(principal, credentials, asked, seen)
            else:
                principal = self._logged_in(asked, now_ms)
            rules.check_standing(principal, asked.received_ms)
            rules.check_address(principal, seen)
            rules.check_scope(principal, route)
            for further in route.further:
                rules.check_scope(principal, further)
            charge = self._check_limit(principal, route, now_ms)
        except Refusal as refusal:
            self._note(refusal, principal, claimed, seen, asked, route=route)
            raise
        claim = None
        if credentials is not None and (route.strict_replay or (credentials.portable and not route.replay_off)):
            outage = self._auth.replay_outage if route.strict_replay else "allow"
            ttl_ms = credentials.timestamp_ms + window_ms - asked.received_ms + rules.AHEAD_MS + rules.CLOCKS_MS
            shared = route.scope != "trade" and isinstance(asked, Request)
            claim = Claim(principal.key_id, credentials.signature, ttl_ms, outage=outage, shared=shared, advice=credentials.replay_advice)
        else:
            self._usage.admitted(principal.key_id, seen.address, asked.received_ms)
        lines = self._allowances.of(principal).lines(charge)
        if credentials is not None and credentials.weighed:
            lines += self._weight_lines(principal, route, now_ms)
        if principal.expires_ms is not None:
            lines += _expiry_line(principal.expires_ms, asked.received_ms)
        admitted = Admitted(route, principal.identity, seen.address, lines, claim, principal.expires_ms, principal, charge, seen.secure)
        admitted.weighed = credentials is not None and credentials.weighed
        return admitted

    def tolerates(self, refusal: Refusal, client: Request) -> bool:
        """Count the refusal of a session's message for its address, unless a key is proven, whose own limits bound it.

        :param client: the handshake that opened the session
        :return: whether the address may go on so
        """
        if refusal.asker is not None and refusal.asker.account_id is not None:
            return True
        address = self._client_ip.of(client).address or client.peer
        return self._services.messages.charge(address, 1, REFUSED_MESSAGES, self._monotonic_ms()).allowed

    async def resolve(self, needed: KeyNeeded) -> None:
        """Bring a key into memory, or the knowledge that there is none; or settle its limit with the other workers.

        :raises KeyStoreUnavailable: neither Redis nor PostgreSQL can say
        :raises Refusal: nor do they have to: see :attr:`KeyNeeded.otherwise`
        """
        if needed.rate is not None:
            await self._services.limiter.settled(needed.key_id, needed.weight, needed.rate)
            return
        try:
            await self._services.lookup.fetch(needed.key_id)
        except KeyStoreUnavailable:
            if needed.otherwise is not None:
                raise needed.otherwise from None
            raise

    def claim(self, admitted: Admitted) -> "Future[None]":
        """Ask the replay guard, in one round trip with everybody who asks in this tick of the loop.

        :return: done when the request may pass; fails with ReplayedRequest or ReplayGuardUnavailable
        """
        claim = admitted.replay
        if claim is None:
            raise InternalError("nothing to claim")
        future = self._services.replay.claim(claim.key_id, claim.signature, ttl_ms=claim.ttl_ms, outage=claim.outage, shared=claim.shared)
        future.add_done_callback(lambda done: self._note_claim(admitted, done))
        return future

    def answer(self, admitted: Admitted, request: Request) -> Answer:
        """What a built-in route answers.

        :raises MalformedRequest: the client IP could not be determined
        """
        if admitted.route.builtin == "ip":
            return builtin.address(self._client_ip.of(request))
        if admitted.principal is not None and admitted.charge is not None:
            principal, now_ms = admitted.principal, self._monotonic_ms()
            allowance = self._allowances.of(principal)
            account = None
            if allowance.per_account is not None:
                account = self._limiter.charge(principal.account_ledger, 0, allowance.per_account, now_ms)
            charge = self._limiter.charge(principal.key_id, 0, allowance.per_key, now_ms)
            return builtin.key(principal, allowance.per_key, allowance.per_account, charge, account)
        return builtin.time(request.received_ms)

    def render_message(self, refusal: Refusal, route: Route, message: Message | None, request_id: str) -> bytes:
        """A refusal as a session's client reads it.

        :param message: ``None`` when it could not be read
        """
        return SESSIONS[route.session].refusal(problem_of(refusal, request_id=request_id, docs_url=self.settings.gateway.docs_url), message)

    def render(self, refusal: Refusal, request: Request | None, request_id: str = "", asked: tuple[bytes, bytes] = (b"", b"")) -> Answer:
        """A refusal as the client reads it.

        :param request: ``None`` when it could not even be framed; then ``request_id`` stands in for its id
        :param asked: method and path of such a one, as far as they are known
        """
        docs_url = self.settings.gateway.docs_url
        if request is None:
            name = self._form_at(*asked)
            return answers.render(refusal, request_id=request_id, dialect=DIALECTS[name] if name else None, docs_url=docs_url)
        dialect = self._form(request)
        if self._is_brief(refusal, request):
            key = (refusal.code, "" if dialect is None else dialect.name)
            brief = self._briefs.get(key)
            if brief is None:
                brief = self._briefs[key] = answers.Brief(refusal, dialect, docs_url)
            return brief.answer(refusal, request.request_id)
        return answers.render(refusal, request_id=request.request_id, dialect=dialect, docs_url=docs_url)

    def _is_brief(self, refusal: Refusal, request: Request) -> bool:
        """Whether it goes to who has proven nothing, of whom there are too many at the moment."""
        if refusal.brief is None:
            asker = refusal.asker
            proven = refusal.status >= 500 or (asker is not None and asker.account_id is not None)
            address = asker.client_ip if asker is not None else self._client_ip.of(request).address
            refusal.brief = not proven and not self._explanations.take(address or request.peer, self._monotonic_ms())
        return refusal.brief

    def _form(self, request: Request) -> Dialect | None:
        """Whose form a refusal has: the route's, that of its path; where neither says one, the one that the request claims to speak."""
        name = self._form_at(request.method, request.path)
        if name:
            return DIALECTS[name]
        for field, _ in request.headers:
            if field in self._dialect_of:
                return self._dialect_of[field]
        return None

    def _form_at(self, method: bytes, path: bytes) -> str:
        try:
            name = self.routes.match(method, path).dialect
        except Refusal:
            name = ""
        return name or self._form_of_path(path)

    def _form_of_path(self, path: bytes) -> str:
        for prefix, name in self._forms:
            if path.startswith(prefix):
                return name
        return "binance" if "binance" in self._auth.dialects and _BINANCE_PATH.match(path) else ""

    # -- the steps of admit that need more than values; the others stand in ``rules``

    def _claimed_dialect(self, request: Request) -> tuple[Dialect, dict[bytes, bytes]]:
        """The one dialect that the request speaks, and its credential fields."""
        dialect_of = self._dialect_of
        fields: dict[bytes, bytes] = {}
        dialect: Dialect | None = None
        for name, value in request.headers:
            if name in dialect_of:
                if name in fields:
                    raise AmbiguousCredentials(f"the header field {name.decode()} is repeated")
                fields[name] = value
                if dialect is None:
                    dialect = dialect_of[name]
                elif dialect is not dialect_of[name]:
                    raise AmbiguousCredentials(
                        f"the request is signed in two dialects, {dialect.name} and {dialect_of[name].name}; use one"
                    )
        if dialect is None:
            names = list(self._auth.dialects)
            advice = "sign the request with an API key"
            if "binance" in names and b"signature=" in (request.query or b""):
                advice = "the parameter signature was sent without the header field X-MBX-APIKEY, which carries the key id"
            raise MissingCredentials(f"{advice}; supported dialects: {', '.join(names)}", extras={"dialects": names})
        return dialect, fields

    def _read(self, asked: Asked, held_ms: float, now_ms: int) -> Credentials | None:
        """What a request or a message claims; ``None`` for a message that speaks for the key its session has logged in with.

        :raises Refusal: the credentials are missing, ambiguous or cannot be read
        """
        if isinstance(asked, Message):
            credentials = asked.dialect.credentials(asked, self._auth.max_clock_window_ms)
            if held_ms and credentials is not None:
                self._check_failures([credentials.key_id], held_ms, now_ms)
            return credentials
        request = _request(asked)
        dialect, fields = self._claimed_dialect(request)
        if held_ms:
            self._check_failures(dialect.named(fields), held_ms, now_ms)
        return dialect.read(self._client_ip.as_sent(request) if dialect.signs_uri else request, fields)

    def _mistakes(self, asked: Asked, credentials: Credentials) -> Iterator[Mistake]:
        """What its sender may have done instead."""
        if isinstance(asked, Message):
            return asked.dialect.mistakes(asked, credentials)
        request = _request(asked)
        dialect, fields = self._claimed_dialect(request)
        return dialect.mistakes(self._client_ip.as_sent(request) if dialect.signs_uri else request, fields, credentials)

    def _held_ms(self, seen: Seen, asked: Asked, now_ms: int) -> float:
        """For how long the address is held back, having been refused too often; 0: it is not."""
        return self._failures.retry_after_ms(seen.address or asked.peer, self._failure_rate, now_ms)

    def _check_failures(self, named: list[str], held_ms: float, now_ms: int) -> None:
        """From an address that is held back, only what a known key may have signed is looked at further.

        :param named: the key ids that it could be of
        :raises RateLimited: none of them is known, and too many have been looked up of late
        """
        if not self._may_be_known(named, now_ms):
            raise _held_back(held_ms)

    def _may_be_known(self, named: list[str], now_ms: int) -> bool:
        """Whether one of them is a key, or may still be looked up."""
        for key_id in named:
            found = self._lookup.peek(key_id, now_ms)
            if (found is None and is_key_id(key_id) and self._failures.may_look_up(now_ms)) or not (found is None or found is ABSENT):
                return True
        return False

    def _check_public(self, seen: Seen, asked: Asked, route: Route) -> None:
        """:raises RateLimited: the address has asked too much of public routes"""
        address, rate = seen.address or asked.peer, self.settings.limits.per_address
        charge = self._services.public.charge(address, route.weight, rate, self._monotonic_ms())
        if not charge.allowed:
            refusal = rules.over_limit(f"{rate} per IP address", route.weight, charge.retry_after_ms, "per_address")
            refusal.asker = Asker(None, None, address)
            raise refusal

    def _known(self, key_id: str, now_ms: int) -> Principal | None:
        """The key, if there is one. A malformed id is nobody's, without a look-up."""
        found = self._lookup.peek(key_id, now_ms)
        if found is None:
            if is_key_id(key_id):
                raise KeyNeeded(key_id)
            return None
        return None if found is ABSENT else found

    def _logged_in(self, asked: Asked, now_ms: int) -> Principal:
        """The key that a session has logged in with, looked up anew.

        :raises MissingCredentials: it has not
        :raises InvalidCredentials: the key is no more
        """
        key_id = asked.key_id if isinstance(asked, Message) else ""
        if not key_id:
            raise MissingCredentials("log in with an API key first, or sign the message")
        principal = self._known(key_id, now_ms)
        if principal is None:
            raise InvalidCredentials("the key that this session logged in with no longer exists", reason="deleted key")
        return principal

    def _owner_of_late(self, credentials: Credentials, late: TimestampOutOfWindow, now_ms: int) -> Principal | None:
        """Whose a request is that came too late or too early: the refusal is counted for a key whose signature holds, for its owner to see.

        Unknown key and wrong signature alike: same work, same answer.

        :raises KeyNeeded: the key must be fetched first
        """
        if not is_key_id(credentials.key_id):
            pretend_to_verify(credentials.signed, credentials.signature)
            return None
        found = self._lookup.peek(credentials.key_id, now_ms)
        if found is None:
            raise KeyNeeded(credentials.key_id, otherwise=late)
        if found is ABSENT or not self._verifies(found, credentials):
            if found is ABSENT:
                pretend_to_verify(credentials.signed, credentials.signature)
            return None
        return found

    def _verifies(self, principal: Principal, credentials: Credentials) -> bool:
        if not credentials.algorithm or credentials.algorithm == principal.algorithm:
            verify = principal.verify_pss if credentials.pss else principal.verify
            if verify is not None:
                return verify(credentials.signed, credentials.signature)
        return pretend_to_verify(credentials.signed, credentials.signature)

    def _refuse_credentials(self, principal: Principal | None, credentials: Credentials, asked: Asked, seen: Seen) -> NoReturn:
        """Unknown key and wrong signature alike: same work, same answer, unless a hint proves that the caller holds the secret."""
        if principal is None:
            pretend_to_verify(credentials.signed, credentials.signature)
        now_ms = self._monotonic_ms()
        if not self._explanations.take(seen.address or asked.peer, now_ms):
            untold = InvalidCredentials(answers.EXPLAINED_LATER)
            untold.brief = True
            raise untold
        hint = self._hints.find(self._mistakes(asked, credentials), credentials=credentials, principal=principal, now_ms=now_ms)
        refusal = invalid(
            hint or "unknown key, or the signature does not match: compare string_to_sign with what you signed",
            credentials.signed,
            reason="wrong signature" if principal is not None else "unknown key",
        )
        if hint:
            refusal.extras = {**refusal.extras, "hint": hint}
        refusal.brief = False
        raise refusal

    def _check_limit(self, principal: Principal, route: Route, now_ms: int) -> Charge:
        allowance = self._allowances.of(principal)
        try:
            charge = allowance.charge(self._limiter, principal, route.weight, now_ms)
        except LedgerNeeded as needed:
            raise KeyNeeded(needed.ledger, weight=needed.weight, rate=needed.rate) from None
        if not charge.allowed:
            if charge.of_account:
                raise rules.over_limit(f"{allowance.per_account} per account", route.weight, charge.retry_after_ms, "per_account")
            raise rules.over_limit(str(allowance.per_key), route.weight, charge.retry_after_ms, "per_key")
        return charge

    # -- what follows a decision

    def _weight_lines(self, principal: Principal, route: Route, now_ms: int, *, charged: bool = True) -> bytes:
        """What Binance's clients look for.

        :param charged: ``False`` for what is refused: it is told, and does not count
        """
        weight = route.weight if charged else 0
        lines = b"X-MBX-USED-WEIGHT-1M: %d\r\n" % self._allowances.of(principal).used_weight(self._limiter, principal, weight, now_ms)
        if route.places_orders:
            lines += b"X-MBX-ORDER-COUNT-1M: %d\r\n" % count_order(self._limiter, principal, int(charged), now_ms)
        return lines

    def _note(
        self, refusal: Refusal, principal: Principal | None, claimed: str, seen: Seen, asked: Asked, *, route: Route | None = None
    ) -> None:
        """Count a refusal where it counts, say whose it is, and tell a proven owner their limits."""
        proven = principal is not None and not isinstance(refusal, InvalidCredentials)
        owner = principal.identity.account_id if principal is not None and proven else None
        key_id = principal.key_id if principal is not None else None if refusal.brief else self._claimed_id(claimed, asked)
        refusal.asker = Asker(key_id, owner, seen.address or asked.peer)
        services = self._services
        now_ms = services.monotonic_ms()
        guessed = isinstance(refusal, InvalidCredentials | MalformedRequest | AmbiguousCredentials)
        guessed = guessed or (principal is None and isinstance(refusal, TimestampOutOfWindow))
        if guessed or (principal is None and _costs(asked)):
            services.failures.failed(seen.address or asked.peer, self._failure_rate, now_ms)
        if principal is None:
            return
        call = route.pattern if route is not None else ""
        services.usage.refused(principal.key_id, refusal.code, seen.address, asked.received_ms, call, proven)
        if not isinstance(refusal, InvalidCredentials):
            allowance = self._allowances.of(principal)
            wait_ms = refusal.extras.get("retry_after_ms") if isinstance(refusal, RateLimited) else None
            told = allowance.lines(
                allowance.charge(self._limiter, principal, 0, now_ms), not_before_ms=wait_ms if isinstance(wait_ms, int) else 0.0
            )
            if route is not None and isinstance(asked, Request) and self._form(asked) is DIALECTS["binance"]:
                told += self._weight_lines(principal, route, now_ms, charged=False)
            if principal.expires_ms is not None:
                told += _expiry_line(principal.expires_ms, asked.received_ms)
            refusal.headers += tuple((name, value) for name, _, value in (line.partition(b": ") for line in told.split(b"\r\n")[:-1]))

    def _claimed_id(self, read: str, asked: Asked) -> str | None:
        """The key that a request says it is of: as the dialect read it or, when it did not come that far, as a credential field holds it.
        A message without credentials is of the key that its session has logged in with.

        Only what has the form of a key id: anything else may be a secret in the wrong place.
        """
        if is_key_id(read):
            return read
        values: list[str] = []
        if isinstance(asked, Message):
            values.append(asked.key_id)
        else:
            values += [value.decode("latin-1") for name, value in _request(asked).headers if name in self._dialect_of]
        return next((value for value in values if is_key_id(value)), None)

    def _note_claim(self, admitted: Admitted, done: "Future[None]") -> None:
        if done.cancelled() or admitted.principal is None or admitted.replay is None:
            return
        key_id, refusal = admitted.replay.key_id, done.exception()
        now_ms = self._services.now_ms()
        if refusal is None:
            self._services.usage.admitted(key_id, admitted.client_ip, now_ms)
        elif isinstance(refusal, Refusal):
            principal, weight = admitted.principal, admitted.route.weight
            self._allowances.of(principal).give_back(self._limiter, principal, weight)
            if admitted.weighed and admitted.route.places_orders:
                count_order(self._limiter, principal, -1, now_ms)
            if isinstance(refusal, ReplayedRequest) and admitted.replay.advice:
                refusal.detail += f". {admitted.replay.advice}"
            self._services.usage.refused(key_id, refusal.code, admitted.client_ip, now_ms, admitted.route.pattern)


def _held_back(held_ms: float) -> Refusal:
    return rules.rate_limited("too many failed authentication attempts from your IP address", held_ms, "per_ip_failures")


def _costs(asked: Asked) -> bool:
    """Whether reading it has taken so long that it counts, whatever was wrong with it."""
    return isinstance(asked, Request) and any(name == b"signature-input" for name, _ in asked.headers)


def _request(asked: Asked) -> Request:
    """The request itself; of a message, the one that opened its session."""
    if isinstance(asked, Message):
        return asked.client
    if isinstance(asked, Request):
        return asked
    raise InternalError("neither a request nor a message")


def _expiry_line(expires_ms: int, now_ms: int) -> bytes:
    """When the key ends, in its last week, so that a bot can warn its owner; nothing before."""
    return b"Gerbang-Key-Expires: %b\r\n" % rfc3339(expires_ms).encode() if 0 < expires_ms - now_ms <= _LAST_WEEK_MS else b""
