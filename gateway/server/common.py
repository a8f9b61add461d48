"""State shared by all connections of one worker, and the configuration in force."""

import secrets

from gateway.admission.gate import Admitted
from gateway.errors import Refusal
from gateway.forward.tunnel import Tunnels
from gateway.http1.answer import DateLine
from gateway.http1.body import Memory
from gateway.http1.message import Request
from gateway.runtime import clock
from gateway.runtime.outbox import Outbox
from gateway.runtime.ticker import Ticker
from gateway.server import reports
from gateway.server.serving import Serving
from gateway.telemetry import Metrics
from gateway.telemetry.recent import Recent


class Common:
    """See the module.

    :param serving: replaced whole at a reload
    """

    __slots__ = (
        "_dates", "_id_count", "_id_prefix", "date", "draining", "memory", "metrics", "outbox", "recent", "serving", "ticker", "tunnels"
    )  # fmt: skip

    def __init__(self, serving: Serving, *, memory: Memory, outbox: Outbox, tunnels: Tunnels, ticker: Ticker, metrics: Metrics) -> None:
        self.serving = serving
        self.memory = memory
        self.outbox = outbox
        self.tunnels = tunnels
        self.ticker = ticker
        self.metrics = metrics
        self.draining = False
        self.recent = Recent()
        self._dates = DateLine()
        self.date = self._dates.at(clock.now_ms())
        """The ``Date`` field line of this second."""
        self._id_prefix = secrets.token_hex(6)
        self._id_count = 0

    def next_request_id(self) -> str:
        """Unique over all workers and restarts; says nothing and is no secret."""
        self._id_count += 1
        return f"{self._id_prefix}{self._id_count:010x}"

    def refused(
        self, serving: Serving, refusal: Refusal, request: Request | None, route: str | None = None, admitted: Admitted | None = None
    ) -> None:
        """Count, keep and log a refusal."""
        self.metrics.refused[refusal.code] += 1
        if refusal.resource:
            self.metrics.resource_refused[refusal.resource] += 1
        if request is not None:
            self.recent.refused(refusal, at_ms=request.received_ms, method=request.method, path=request.path, route=route)
        if serving.access.enabled:
            reports.log_refused(serving.access, refusal, request, route, admitted)

    def tick(self) -> None:
        """Once in every period of the ticker."""
        self.date = self._dates.at(clock.now_ms())
