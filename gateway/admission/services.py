"""The gate's dependencies that outlive a configuration version: the key cache, limiters, the replay guard, usage counts, clocks."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from gateway.admission.failures import AddressLimiter, FailureLimiter
    from gateway.admission.limits import KeyLimiter
    from gateway.admission.principal import Principal
    from gateway.admission.replay import ReplayGuard
    from gateway.keys.lookup import KeyLookup
    from gateway.keys.usage import UsageCounts


class Services(NamedTuple):
    """See the module."""

    lookup: "KeyLookup[Principal]"
    limiter: "KeyLimiter"
    failures: "FailureLimiter"
    public: "AddressLimiter"
    """Rate limits of public routes, by address."""
    messages: "AddressLimiter"
    """Limits of refused messages without a verified key, by address."""
    replay: "ReplayGuard"
    usage: "UsageCounts"
    monotonic_ms: Callable[[], int]
    """The monotonic clock, for the cache and the limits."""
    now_ms: Callable[[], int]
    """The wall clock, for events after a request's own timestamp was taken."""
