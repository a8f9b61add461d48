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
    """Of requests to public routes."""
    messages: "AddressLimiter"
    """Of refused messages that no proven key accounts for."""
    replay: "ReplayGuard"
    usage: "UsageCounts"
    monotonic_ms: Callable[[], int]
    """The clock of the cache and the limits."""
    now_ms: Callable[[], int]
    """The wall clock, for what happens after a request's own moment."""
