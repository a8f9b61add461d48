"""Accounts for decisions: counts usage and failures, attributes refusals to their key and owner, reports limits in answers."""

from typing import TYPE_CHECKING, Final

from gateway.admission.allowances import Allowances, count_order
from gateway.admission.authentication import Authentication
from gateway.admission.brief import BriefRefusal
from gateway.admission.dialects import DIALECTS
from gateway.admission.outcome import Admitted
from gateway.admission.principal import Principal
from gateway.admission.refusals import Refusals
from gateway.admission.routes import Route
from gateway.admission.services import Services
from gateway.errors import (
    AmbiguousCredentials,
    InvalidCredentials,
    MalformedRequest,
    MissingCredentials,
    RateLimited,
    Refusal,
    ReplayedRequest,
    Requester,
    TimestampOutOfWindow,
)
from gateway.http1.message import Inbound, Request
from gateway.net.client_ip import ClientAddress
from gateway.runtime.gcra import Charge
from gateway.runtime.moments import rfc3339

if TYPE_CHECKING:
    from gateway.admission.limits import KeyLimiter
    from gateway.config.settings import GatewaySettings

_LAST_WEEK_MS: Final = 7 * 86_400_000


class Accounting:
    """The accounting of one configuration version."""

    __slots__ = ("_allowances", "_authentication", "_failure_rate", "_limiter", "_refusals", "_services")

    def __init__(
        self, settings: "GatewaySettings", services: Services, allowances: Allowances, authentication: Authentication, refusals: Refusals
    ) -> None:
        self._services = services
        self._limiter: KeyLimiter = services.limiter
        self._allowances = allowances
        self._authentication = authentication
        self._refusals = refusals
        self._failure_rate = settings.limits.per_ip_failures

    def lines(  # noqa: PLR0917  # on the hot path
        self, principal: Principal, charge: Charge, weighed: Route | None, received_ms: int, now_ms: int,
        charged: bool = True, not_before_ms: float = 0.0,
    ) -> bytes:  # fmt: skip
        """The field lines that report a key's limits, and in its last week its expiry.

        :param weighed: the route, if weight and orders are reported as Binance's clients expect
        :param charged: ``False`` for a refused request, which is reported and does not count
        """
        lines = self._allowances.of(principal).lines(charge, not_before_ms)
        if weighed is not None:
            lines += self._weight_lines(principal, weighed, now_ms, charged=charged)
        if principal.expires_ms is not None:
            lines += _expiry_line(principal.expires_ms, received_ms)
        return lines

    def _weight_lines(self, principal: Principal, route: Route, now_ms: int, *, charged: bool) -> bytes:
        weight = route.weight if charged else 0
        lines = b"X-MBX-USED-WEIGHT-1M: %d\r\n" % self._allowances.of(principal).used_weight(self._limiter, principal, weight, now_ms)
        if route.places_orders:
            lines += b"X-MBX-ORDER-COUNT-1M: %d\r\n" % count_order(self._limiter, principal, int(charged), now_ms)
        return lines

    def refused(
        self,
        refusal: Refusal,
        principal: Principal | None,
        claimed: str,
        client: ClientAddress,
        inbound: Inbound,
        *,
        route: Route | None = None,
    ) -> None:
        """Count a refusal, attribute it to its key, and report the limits to a caller whose signature has verified.

        :param claimed: the key id as the dialect read it; ``""``: refused before it was read
        """
        proven = principal is not None and not isinstance(refusal, InvalidCredentials)
        owner = principal.identity.account_id if principal is not None and proven else None
        key_id = principal.key_id if principal is not None else None if refusal.brief else self._authentication.claimed_id(claimed, inbound)
        refusal.requester = Requester(key_id, owner, client.address or inbound.peer)
        if isinstance(refusal, MissingCredentials):
            refusal.extras = {**refusal.extras, "dialects": self._authentication.dialects(inbound)}
        services = self._services
        now_ms = services.monotonic_ms()
        guessed = isinstance(refusal, (InvalidCredentials, MalformedRequest, AmbiguousCredentials)) or (
            principal is None and isinstance(refusal, TimestampOutOfWindow)
        )
        if guessed or (principal is None and _parsing_was_slow(inbound)):
            services.failures.failed(client.address or inbound.peer, self._failure_rate, now_ms)
        if principal is None:
            return
        call = route.pattern if route is not None else ""
        services.usage.refused(principal.key_id, refusal.code, client.address, inbound.received_ms, call, proven)
        if proven:
            self._report_limits(refusal, principal, inbound, route, now_ms)

    def unexplained(  # noqa: PLR0917  # on the path of attacks
        self, principal: Principal | None, signed: bytes, throttled_ms: float, client: ClientAddress, inbound: Inbound, route: Route,
        now_ms: int,
    ) -> BriefRefusal:  # fmt: skip
        """Count a refusal that is not explained, as :meth:`refused` counts others."""
        address = client.address or inbound.peer
        if not throttled_ms or _parsing_was_slow(inbound):
            self._services.failures.failed(address, self._failure_rate, now_ms)
        if principal is None:
            return BriefRefusal(None, address, throttled_ms, signed)
        self._services.usage.refused(principal.key_id, InvalidCredentials.code, client.address, inbound.received_ms, route.pattern, False)
        return BriefRefusal(principal.key_id, address, throttled_ms, signed)

    def _report_limits(self, refusal: Refusal, principal: Principal, inbound: Inbound, route: Route | None, now_ms: int) -> None:
        wait_ms = refusal.extras.get("retry_after_ms") if isinstance(refusal, RateLimited) else None
        not_before_ms = wait_ms if isinstance(wait_ms, int) else 0.0
        charge = self._allowances.of(principal).charge(self._limiter, principal, 0, now_ms)
        weighed = route if isinstance(inbound, Request) and self._refusals.form(inbound) is DIALECTS["binance"] else None
        lines = self.lines(principal, charge, weighed, inbound.received_ms, now_ms, False, not_before_ms)
        refusal.headers += tuple((name, value) for name, _, value in (line.partition(b": ") for line in lines.split(b"\r\n")[:-1]))

    def claimed(self, admitted: Admitted, refusal: BaseException | None) -> None:
        """The replay guard has answered for an admitted request: count it, or refund its charge.

        :param refusal: why it is refused; ``None``: it passes
        """
        if admitted.principal is None:
            return
        key_id = admitted.principal.key_id
        usage, now_ms = self._services.usage, self._services.now_ms()
        if refusal is None:
            usage.admitted(key_id, admitted.client_ip, now_ms)
        elif isinstance(refusal, Refusal):
            principal, weight = admitted.principal, admitted.route.weight
            self._allowances.of(principal).give_back(self._limiter, principal, weight)
            if admitted.weighed and admitted.route.places_orders:
                count_order(self._limiter, principal, -1, now_ms)
            if isinstance(refusal, ReplayedRequest):
                if admitted.replay is not None and admitted.replay.advice:
                    refusal.detail += f". {admitted.replay.advice}"
                if refusal.repeated and admitted.client_ip:  # a single repetition may be the client's own retry
                    self._services.failures.failed(admitted.client_ip, self._failure_rate, self._services.monotonic_ms())
            proven = not isinstance(refusal, InvalidCredentials)
            usage.refused(key_id, refusal.code, admitted.client_ip, now_ms, admitted.route.pattern, proven)


def _parsing_was_slow(inbound: Inbound) -> bool:
    """Whether parsing it took so long that it counts as a failure, whatever the refusal."""
    return isinstance(inbound, Request) and any(name == b"signature-input" for name, _ in inbound.headers)


def _expiry_line(expires_ms: int, now_ms: int) -> bytes:
    """The key's expiry as a field line, so that a bot can warn its owner; ``b""`` until its last week."""
    return b"Gerbang-Key-Expires: %b\r\n" % rfc3339(expires_ms).encode() if 0 < expires_ms - now_ms <= _LAST_WEEK_MS else b""
