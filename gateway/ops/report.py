"""What the operations port asks of the running gateway, and the values it gets. Implemented by the supervisor."""

from typing import Any, Literal, NamedTuple, Protocol

from gateway.admission.verdict import CheckRequest, Verdict
from gateway.config.changes import Change
from gateway.errors import ConfigProblem, Refusal


class Readiness(NamedTuple):
    """Whether the gate can serve now."""

    missing: tuple[str, ...]
    """Why it cannot: ``worker 1: starting``, ``worker 0: no key store``; empty when it can."""
    degraded: tuple[str, ...]
    """What is away though requests are served: ``redis``, ``postgres``, ``upstream spot``, ``limits are per process`` …"""
    workers: tuple[dict[str, Any], ...]
    """What each worker said of itself."""


class ReloadReport(NamedTuple):
    """How an attempt to reload ended: for all workers alike."""

    outcome: Literal["applied", "unchanged", "refused", "would_apply"]
    version: str
    """The version in force now; of a dry run, the one that would be."""
    previous: str
    """The version in force before; the same unless applied."""
    changes: tuple[Change, ...]
    """What was changed, or would have been."""
    problems: tuple[ConfigProblem, ...]
    """Why it was refused: every problem of the file, every key path that needs a restart, or every worker that could not apply it."""
    traffic: "Traffic | None" = None
    """Of a dry run: what of the last minutes' requests would have been decided otherwise."""


class Effect(NamedTuple):
    """So many recent requests of one call that were decided one way, and would have been another."""

    call: str
    """A route as written, or ``METHOD /shape`` of a path that has none."""
    requests: int
    now: str
    """``admitted``, or the code of the refusal."""
    then: str
    """The same, or that it depends on the key."""


class Traffic(NamedTuple):
    """Recent traffic of all workers, and what of it would have been decided otherwise, the most first."""

    since_ms: int
    admitted: int
    refused: int
    """Those that were kept: the latest 2 000 of each worker."""
    otherwise: tuple[Effect, ...]


class ShadowReport(NamedTuple):
    """What the decision endpoint would have decided while it was in shadow mode, since the gateway was started."""

    enforce: str
    """``auth.enforce`` now."""
    decisions: tuple[tuple[str, str, int], ...]
    """Route as written (``""``: none matched), outcome (``admitted`` or the code of the refusal), count; the most frequent first."""


class Operated(Protocol):
    """A running gateway as its operators see it."""

    async def readiness(self) -> Readiness:
        """Ask every worker how it is."""

    async def metrics(self) -> bytes:
        """Prometheus text of parent and workers together."""

    async def reload(self) -> ReloadReport:
        """Read the configuration again and apply it everywhere, or nowhere."""

    async def dry_run(self) -> ReloadReport:
        """What :meth:`reload` would do, without doing it."""

    def configuration(self) -> dict[str, Any]:
        """``version``, ``loaded_at`` and the settings in force, without a secret."""

    def jwks(self) -> dict[str, Any]:
        """The public keys of the assertion."""

    def max_body_bytes(self) -> int:
        """The largest body that a decision reads."""

    async def decide(self, check: CheckRequest) -> Verdict:
        """Let a worker decide.

        :raises Overloaded: no worker answers
        """

    def undecided(self, refusal: Refusal) -> Verdict:
        """The answer to a question that reached no worker: the refusal or, in shadow mode, let it pass."""

    async def shadow(self) -> ShadowReport:
        """What shadow mode has counted."""
