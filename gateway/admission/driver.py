"""Drives one admission to completion: decide, fetch the key if it is not in memory, decide again, claim the signature.

A decision that need not wait is made in the call itself, without a task; any other becomes :class:`Pending`.
"""

import asyncio
from collections.abc import Callable

from gateway.admission.brief import BriefRefusal
from gateway.admission.gate import Gate
from gateway.admission.outcome import Admitted, KeyNeeded
from gateway.admission.routes import Route
from gateway.errors import KeyStoreUnavailable, Refusal, Requester
from gateway.http1.message import Inbound
from gateway.runtime.tasks import spawn

MAX_LOOKUPS = 5
"""Maximum number of fetches for one decision: the key, its limit and its account's limit may each be needed, and may be evicted again."""


Settled = Callable[[Admitted | None, BaseException | None], None]
"""Called with the admitted request and the error, if any; a refused claim has both."""


class Pending:
    """A decision that is waiting for something; ``settled`` is called once, and never after :meth:`cancel`."""

    __slots__ = ("_gate", "_inbound", "_route", "_settled", "claiming")

    def __init__(self, gate: Gate, inbound: Inbound, route: Route, settled: Settled) -> None:
        self._gate = gate
        self._inbound = inbound
        self._route = route
        self._settled: Settled | None = settled
        self.claiming = False
        """Whether only the replay guard's answer, or another check of the key, is outstanding."""

    def cancel(self) -> None:
        """Take no further step, because nobody waits for the outcome. A claim that was made remains in force."""
        self._settled = None

    def claim(self, admitted: Admitted) -> None:
        """Settle once the replay guard has answered, provided the key is still valid then."""
        self.claiming = True

        def answered(error: BaseException | None, still_valid: bool) -> None:
            if error is None and not still_valid:
                self.confirm(admitted)
            else:
                self._settle(admitted, error)

        self._gate.claim(admitted, answered)

    def confirm(self, admitted: Admitted, *, counted: bool = False) -> None:
        """Settle once the key has been checked again: it may have changed while the request waited.

        :param counted: see :meth:`Gate.confirm`
        """
        self.claiming = True
        spawn(self._confirm(admitted, counted=counted), name="check a key again")

    async def _confirm(self, admitted: Admitted, *, counted: bool) -> None:
        def again() -> None:
            self._gate.confirm(admitted, counted=counted)

        try:
            try:
                again()
            except KeyNeeded as needed:
                await fetch_and_retry(self._gate, needed, again)
        except Exception as error:  # noqa: BLE001 - passed to the waiting request, whatever it is
            try:
                self._gate.withdraw(admitted, error)
            finally:
                self._settle(admitted, error)
        else:
            self._settle(admitted, None)

    async def look_up(self, needed: KeyNeeded) -> None:
        """Fetch what is missing and decide again."""
        try:
            await fetch_and_retry(self._gate, needed, self._decide)
        except Exception as error:  # noqa: BLE001 - passed to the waiting request, whatever it is
            self._settle(None, error)

    def _decide(self) -> None:
        if self._settled is None:  # cancelled: nothing is charged
            return
        admitted = self._gate.admit(self._inbound, self._route)
        if admitted.replay is None:
            self._settle(admitted, None)
        else:
            self.claim(admitted)

    def _settle(self, admitted: Admitted | None, error: BaseException | None) -> None:
        settled, self._settled = self._settled, None
        if settled is not None:
            settled(admitted, error)


async def fetch_and_retry(gate: Gate, needed: KeyNeeded, attempt: Callable[[], None]) -> None:
    """Fetch what an attempt is missing and repeat it, several times if necessary: what was fetched may have been evicted or
    invalidated by the time its waiters run.

    :raises Refusal: the attempt's own, or :class:`KeyStoreUnavailable` after too many fetches
    """
    for _ in range(MAX_LOOKUPS):
        await gate.resolve(needed)
        try:
            attempt()
        except KeyNeeded as again:
            needed = again.with_traceback(None)  # it refers to this frame: a cycle
        else:
            return
    raise KeyStoreUnavailable("the key could not be loaded; try again", reason="evicted as soon as it was fetched")


def drive(gate: Gate, inbound: Inbound, route: Route, settled: Settled) -> Admitted | BriefRefusal | Pending:
    """Decide, immediately if possible.

    :param settled: called with the outcome if the decision is returned as pending
    :raises Refusal: the request is refused
    """
    try:
        decided = gate.decide(inbound, route)
    except KeyNeeded as needed:
        pending = Pending(gate, inbound, route, settled)
        spawn(pending.look_up(needed), name="look up a key")
        return pending
    if isinstance(decided, BriefRefusal) or decided.replay is None:
        return decided
    pending = Pending(gate, inbound, route, settled)
    pending.claim(decided)
    return pending


def confirm(gate: Gate, inbound: Inbound, admitted: Admitted, settled: Settled) -> Pending:
    """Check again the key of a request that has waited for something else since it was admitted.

    :param settled: called with the outcome
    """
    pending = Pending(gate, inbound, admitted.route, settled)
    pending.confirm(admitted, counted=True)
    return pending


async def admit(gate: Gate, inbound: Inbound, route: Route) -> Admitted:
    """As :func:`drive`, for callers that can await.

    :raises Refusal: the request is refused
    """
    decided: asyncio.Future[Admitted] = asyncio.get_running_loop().create_future()

    def settled(admitted: Admitted | None, error: BaseException | None) -> None:
        if decided.done():
            return
        if error is not None:
            if isinstance(error, Refusal) and admitted is not None and admitted.identity is not None:
                error.requester = Requester(admitted.identity.key_id, admitted.identity.account_id, admitted.client_ip)
            decided.set_exception(error)
        elif admitted is not None:
            decided.set_result(admitted)

    found = drive(gate, inbound, route, settled)
    if isinstance(found, BriefRefusal):
        raise found.refusal()
    return found if isinstance(found, Admitted) else await decided
