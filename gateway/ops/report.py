"""The interface between the operations port and the running gateway, implemented by the supervisor."""

from typing import Any, Literal, NamedTuple, Protocol

from gateway.admission.verdict import CheckRequest, Verdict
from gateway.config.changes import Change
from gateway.errors import ConfigProblem, Refusal


class Readiness(NamedTuple):
    """Whether the gate can serve now."""

    missing: tuple[str, ...]
    """Why it cannot: ``worker 1: starting``, ``worker 0: no key store``; empty if it can."""
    degraded: tuple[str, ...]
    """What is unavailable although requests are served: ``redis``, ``postgres``, ``upstream spot``, ``limits are per process`` …"""
    workers: tuple[dict[str, Any], ...]
    """The status of each worker."""


class ReloadReport(NamedTuple):
    """The outcome of a reload, the same for all workers."""

    outcome: Literal["applied", "unchanged", "refused", "would_apply"]
    version: str
    """The version in force now; for a dry run, the one that would be."""
    previous: str
    """The version in force before; the same unless applied."""
    changes: tuple[Change, ...]
    """What was changed, or would be."""
    problems: tuple[ConfigProblem, ...]
    """Why it was refused: every problem of the file, every key path that needs a restart, or every worker that could not apply it."""
    traffic: "Traffic | None" = None
    """For a dry run: which recent requests would have been decided differently."""


class Effect(NamedTuple):
    """The number of recent requests to one route whose decision would change."""

    call: str
    """The route's pattern, or ``METHOD /shape`` of a path without a route."""
    requests: int
    now: str
    """``admitted``, or the code of the refusal."""
    then: str
    """The same under the new configuration, or that it depends on the key."""


class Traffic(NamedTuple):
    """Recent traffic of all workers, and the decisions that would change, most frequent first."""

    since_ms: int
    admitted: int
    refused: int
    """The recorded refusals: the latest 2000 of each worker."""
    otherwise: tuple[Effect, ...]


class Operated(Protocol):
    """A running gateway."""

    async def readiness(self) -> Readiness:
        """Query the status of every worker."""

    async def metrics(self) -> bytes:
        """Prometheus text of the parent and all workers."""

    async def reload(self) -> ReloadReport:
        """Read the configuration again and apply it to all workers, or to none."""

    async def dry_run(self) -> ReloadReport:
        """Report what :meth:`reload` would do."""

    def configuration(self) -> dict[str, Any]:
        """``version``, ``loaded_at`` and the settings in force, without secrets."""

    def jwks(self) -> dict[str, Any]:
        """The public keys that verify assertions."""

    def max_body_bytes(self) -> int:
        """The maximum body of a decision request."""

    async def decide(self, check: CheckRequest) -> Verdict:
        """Have a worker decide.

        :raises Overloaded: no worker answers
        """

    def undecided(self, refusal: Refusal) -> Verdict:
        """The verdict if no worker could decide: the refusal or, in shadow mode, 200."""

    async def shadow(self) -> dict[str, Any]:
        """``enforce`` and ``decisions``: those that the decision endpoint would have made in shadow mode since the gateway was
        started, most frequent first: ``route`` (``""``: none matched), ``outcome`` (``admitted`` or the refusal's code), ``count``.
        """
