"""The limit of refused credentials by address, in this process's memory. Pure: no store is asked, so a flood of guesses costs little."""

from gateway.admission import gcra
from gateway.config.settings import Rate
from gateway.net.addresses import customer_network


class FailureLimiter:
    """Refused credentials by address, in this process's memory: no store is asked, so a flood of them costs little."""

    def __init__(self, *, max_addresses: int = 65_536) -> None:
        self._max = max_addresses
        self._tats: dict[str, float] = {}

    def retry_after_ms(self, address: str, rate: Rate, now_ms: float) -> float:
        """Milliseconds for which this address waits; 0 when it need not."""
        if not self._tats:
            return 0.0
        tat_ms = self._tats.get(customer_network(address))
        return 0.0 if tat_ms is None else gcra.charge(tat_ms, 1, now_ms, rate).retry_after_ms

    def failed(self, address: str, rate: Rate, now_ms: float) -> None:
        """Note one refusal."""
        name = customer_network(address)
        tat_ms = self._tats.pop(name, 0.0)  # and put behind all others: the first in the dict is the one longest without a refusal
        if len(self._tats) >= self._max:
            del self._tats[next(iter(self._tats))]
        self._tats[name] = gcra.charge(tat_ms, 1, now_ms, rate).tat_ms
