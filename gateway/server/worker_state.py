"""State shared by all connections of one worker, and the configuration in force."""

import secrets
from typing import Final

from gateway.admission.brief import THROTTLED, BriefRefusal
from gateway.admission.outcome import Admitted
from gateway.errors import Refusal
from gateway.forward.tunnel import Tunnels
from gateway.http1.answer import DateLine
from gateway.http1.body import Memory
from gateway.http1.message import Request
from gateway.runtime import clock
from gateway.runtime.outbox import Outbox
from gateway.runtime.ticker import Ticker
from gateway.server import reports
from gateway.server.fair_scheduler import FairScheduler
from gateway.server.serving import Serving
from gateway.telemetry import Metrics
from gateway.telemetry.recent import Recent

_LAST_DIGITS: Final = [f"{number:02x}" for number in range(256)]
"""The low bytes of a request id, formatted in advance: formatting a number costs as much as parsing a request head."""


class WorkerState:
    """See the module.

    :param serving: the configuration version in force; a reload replaces it
    """

    __slots__ = (
        "_dates", "_id_begin", "_id_count", "_id_prefix", "date", "draining", "memory", "metrics", "outbox", "recent", "scheduler",
        "serving", "ticker", "tunnels",
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
        self.scheduler = FairScheduler()
        self._dates = DateLine()
        self.date = self._dates.at(clock.now_ms())
        """The current ``Date`` field line."""
        self._id_prefix = secrets.token_hex(6)
        self._id_count = 0
        self._id_begin = f"{self._id_prefix}{0:08x}"

    def next_request_id(self) -> str:
        """An id that is unique across workers and restarts. It carries no information and is not secret."""
        self._id_count = count = self._id_count + 1
        last = count & 0xFF
        if not last:
            self._id_begin = f"{self._id_prefix}{count >> 8:08x}"
        return self._id_begin + _LAST_DIGITS[last]

    def refused(
        self, serving: Serving, refusal: Refusal, request: Request | None, route: str | None = None, admitted: Admitted | None = None
    ) -> None:
        """Count, record and log a refusal."""
        self.metrics.refused[refusal.code] += 1
        if refusal.resource:
            self.metrics.resource_refused[refusal.resource] += 1
        if refusal.brief:
            self.metrics.refusals_brief += 1
            return
        if request is not None:
            self.recent.refused(refusal, at_ms=request.received_ms, method=request.method, path=request.path, route=route)
        if serving.access.takes(clock.monotonic_ms()):
            reports.log_refused(refusal, request, route, admitted)

    def refused_briefly(self, refused: BriefRefusal) -> None:
        """Count a brief refusal, which is neither explained nor logged."""
        metrics = self.metrics
        metrics.refused[refused.kind.code] += 1
        metrics.refusals_brief += 1
        if refused.wait_ms >= 0:
            metrics.resource_refused[THROTTLED] += 1

    def tick(self) -> None:
        """Called by the ticker once per period."""
        self.date = self._dates.at(clock.now_ms())
