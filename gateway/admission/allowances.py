"""The rate limits that apply to a key and its account, by the account's tier, and the headers that report them.

All keys of an account share one ledger, which the limiter keeps as it keeps a key's (``account:<id>``). A request is charged to both or to
neither. Of the two, the tighter one is reported.
"""

from typing import TYPE_CHECKING, Final

import structlog

from gateway.admission.outcome import KeyNeeded
from gateway.admission.principal import Principal
from gateway.config.values import Rate
from gateway.runtime.gcra import ROUNDING, Charge, ShareNeeded

if TYPE_CHECKING:
    from gateway.admission.limits import KeyLimiter
    from gateway.config.settings import GatewaySettings

_MINUTE_MS: Final = 60_000
_COUNTED: Final = Rate(1_000_000_000, _MINUTE_MS)
"""The limit of a ledger that only counts: never reached."""

_log = structlog.get_logger(__name__)


class Allowance:
    """The limits of one tier."""

    __slots__ = ("_account_lines", "_key_lines", "per_account", "per_key")

    def __init__(self, per_key: Rate, per_account: Rate | None) -> None:
        self.per_key = per_key
        self.per_account = per_account
        """``None``: the keys of an account share no limit."""
        policy = _policy(b"key", per_key)
        if per_account is not None:
            policy += b", " + _policy(b"account", per_account)
        self._key_lines = _lines(policy, b"key", per_key)
        self._account_lines = _lines(policy, b"account", per_account or per_key)

    def charge(self, limiter: "KeyLimiter", principal: Principal, weight: int, now_ms: float) -> Charge:
        """Charge a request to its key and its account, or to neither.

        :param weight: 0 charges nothing and returns the current state
        :return: the charge of the tighter limit; of the one that refuses, if one does
        :raises KeyNeeded: the ledger in Redis must be read first; nothing has been charged
        """
        try:
            charge = limiter.charge(principal.key_id, weight, self.per_key, now_ms)
        except ShareNeeded:
            raise KeyNeeded(principal.key_id, weight=weight, rate=self.per_key) from None
        rate = self.per_account
        if rate is None or not charge.allowed:
            return charge
        try:
            account = limiter.charge(principal.account_ledger, weight, rate, now_ms)
        except ShareNeeded:
            self._return_to_key(limiter, principal, weight)
            raise KeyNeeded(principal.account_ledger, weight=weight, rate=rate) from None
        account.of_account = True
        if not account.allowed:
            self._return_to_key(limiter, principal, weight)
            return account
        return account if account.remaining < charge.remaining else charge

    def give_back(self, limiter: "KeyLimiter", principal: Principal, weight: int) -> None:
        """Refund the charge of a request that was refused afterwards."""
        self._return_to_key(limiter, principal, weight)
        if self.per_account is not None and weight:
            limiter.give_back(principal.account_ledger, weight, self.per_account)

    def _return_to_key(self, limiter: "KeyLimiter", principal: Principal, weight: int) -> None:
        if weight:
            limiter.give_back(principal.key_id, weight, self.per_key)

    def lines(self, charge: Charge, not_before_ms: float = 0.0) -> bytes:
        """Field lines that report the limit: ``RateLimit-Limit``, ``-Remaining`` and ``-Reset`` (until the limit is fully available again),
        which many clients read; ``RateLimit-Policy`` (§3) and ``RateLimit`` (§4) of draft-ietf-httpapi-ratelimit-headers-11: more than
        ``r`` (§4.1.1) will be available in ``t`` seconds (§4.1.2), so that Retry-After is never earlier (§6).

        :param not_before_ms: the ``retry_after_ms`` of a request that was refused
        """
        begun, (units, period_ms) = self._key_lines, self.per_key
        if charge.of_account and self.per_account is not None:
            begun, (units, period_ms) = self._account_lines, self.per_account
        remaining, reset = charge.remaining, -int(-charge.reset_ms // 1000)
        more = 0
        if remaining < units:
            ahead = remaining + 1 - (period_ms - charge.reset_ms) * units / period_ms
            if ahead > ROUNDING:
                ahead_ms = ahead * period_ms / units
                more = 1 if ahead_ms <= 1_000 else 1 + int(ahead_ms / 1000 - 1e-6)
            else:
                more = reset = -(-period_ms // 1000)  # held back by the window: see gcra.whole_in_ms
        if not_before_ms:
            more = max(more, -int(-not_before_ms // 1000))
        return b"%b;r=%d;t=%d\r\nRateLimit-Remaining: %d\r\nRateLimit-Reset: %d\r\n" % (
            begun, remaining, more, remaining, reset,
        )  # fmt: skip

    def used_weight(self, limiter: "KeyLimiter", principal: Principal, weight: int, now_ms: float) -> int:
        """Weight that the key has used in the last minute, as Binance's clients expect it reported.

        :param weight: the weight of this request, which has been charged already
        """
        if self.per_key.period_ms == _MINUTE_MS:
            return limiter.used(principal.key_id, self.per_key, now_ms)
        return _counted(limiter, f"weight:{principal.key_id}", weight, now_ms)


class Allowances:
    """The limits of every tier of one configuration version."""

    __slots__ = ("_tiers", "default")

    def __init__(self, settings: "GatewaySettings") -> None:
        limits = settings.limits
        self.default = Allowance(limits.per_key, limits.per_account)
        """The limits of keys without a tier."""
        self._tiers = {
            name: Allowance(tier.per_key or limits.per_key, tier.per_account or limits.per_account) for name, tier in settings.tiers.items()
        }

    def of(self, principal: Principal) -> Allowance:
        """The limits of a key. A tier without a table has those of ``[limits]``; that is logged once for each configuration version."""
        tier = principal.tier
        if tier is None:
            return self.default
        found = self._tiers.get(tier)
        if found is None:
            _log.warning("unknown_tier", tier=tier, fallback="[limits]")
            found = self._tiers[tier] = self.default
        return found


def count_order(limiter: "KeyLimiter", principal: Principal, orders: int, now_ms: float) -> int:
    """The account's orders in the last minute, over all its keys.

    :param orders: added to the count: 1, or -1 for an order that was refused afterwards
    """
    ledger = f"orders:{principal.identity.account_id}"
    if orders < 0:
        limiter.give_back(ledger, -orders, _COUNTED)
        return 0
    return _counted(limiter, ledger, orders, now_ms)


def _counted(limiter: "KeyLimiter", ledger: str, units: int, now_ms: float) -> int:
    limiter.charge(ledger, units, _COUNTED, now_ms)
    return limiter.used(ledger, _COUNTED, now_ms)


def _policy(name: bytes, rate: Rate) -> bytes:
    return b'"%b";q=%d;w=%d' % (name, rate.units, rate.period_ms // 1000)


def _lines(policy: bytes, name: bytes, rate: Rate) -> bytes:
    return b'RateLimit-Policy: %b\r\nRateLimit-Limit: %d\r\nRateLimit: "%b"' % (policy, rate.units, name)
