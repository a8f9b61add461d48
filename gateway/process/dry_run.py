"""Evaluates recent requests against a new configuration: routes, permissions, maintenance and the clock window. Pure.

Outcomes that depend on the sender (limits, addresses, unverified credentials) are not guessed, but reported as :data:`DEPENDS`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gateway.admission.routes import Route, RouteTable
from gateway.admission.rules import AHEAD_MS, check_open
from gateway.errors import Refusal
from gateway.ops.report import Effect, Traffic
from gateway.process.version import Configuration
from gateway.telemetry.recent import Sample

ADMITTED, DEPENDS = "admitted", "depends on the key"
_BEFORE_THE_ROUTE = frozenset({"no_route", "method_not_allowed", "maintenance"})
_OF_KEYS = frozenset({
    "missing_credentials", "invalid_credentials", "ambiguous_credentials", "unsigned_query", "timestamp_out_of_window", "key_expired",
    "ip_not_allowed", "scope_not_granted", "account_frozen", "replayed_request",
})  # fmt: skip
"""Codes with which a public route never refuses."""


def compare(before: Configuration, after: Configuration, reports: Sequence[Mapping[str, Any]], now_ms: int) -> Traffic:
    """:param reports: each worker's :meth:`gateway.telemetry.recent.Recent.report`"""
    admitted: Counter[str] = Counter()
    refused: list[Sample] = []
    for report in reports:
        admitted.update(report["admitted"])
        refused += [Sample(*sample) for sample in report["refused"]]
    decided = [
        *_of_admitted(admitted, before, after),
        *((sample.call, 1, sample.code, _again(sample, before, after)) for sample in refused),
    ]
    counts: Counter[tuple[str, str, str]] = Counter()
    for call, count, now, then in decided:
        if then != ADMITTED if now == ADMITTED else then in (ADMITTED, DEPENDS):
            counts[call, now, then] += count
    effects = sorted(
        (Effect(call, count, now, then) for (call, now, then), count in counts.items()), key=lambda each: (-each.requests, each)
    )
    since_ms = min((report["since_ms"] for report in reports), default=now_ms)
    return Traffic(since_ms, admitted.total(), len(refused), tuple(effects))


def _of_admitted(admitted: Mapping[str, int], before: Configuration, after: Configuration) -> Iterable[tuple[str, int, str, str]]:
    for call, count in admitted.items():
        then = ADMITTED
        try:
            old, new = _find(before.routes, call), _find(after.routes, call)
        except Refusal as refusal:
            then = refusal.code
        else:
            if new.scope not in ("public", old.scope) and not (new.scope == "any" and old.scope != "public"):
                then = DEPENDS
        yield call, count, ADMITTED, then


def _again(sample: Sample, before: Configuration, after: Configuration) -> str:
    """The outcome of a refused request under the new configuration; the same code unless it is known to change."""
    try:
        route = _find(after.routes, sample.call)
    except Refusal as refusal:
        return refusal.code
    if sample.code in _BEFORE_THE_ROUTE:
        return ADMITTED if route.scope == "public" else DEPENDS
    if sample.code in _OF_KEYS and route.scope == "public":
        return ADMITTED
    if sample.code == "scope_not_granted" and route.scope in ("any", *sample.granted):
        return ADMITTED
    if sample.age_ms is not None and sample.window_ms == before.settings.auth.clock_window_ms:
        return DEPENDS if -AHEAD_MS <= sample.age_ms <= after.settings.auth.clock_window_ms else sample.code
    return sample.code


def _find(table: RouteTable, call: str) -> Route:
    """The route for ``METHOD /path``, or for a session's method appended to it.

    :raises Refusal: there is none, or it is closed for maintenance
    """
    method, path, *name = call.split(" ", 2)
    route = table.match(method.encode("latin-1"), re.sub(r"\{[^}]*\}", "x", path).encode("latin-1"))
    check_open(route)
    return route.method(name) if name else route
