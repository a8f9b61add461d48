"""Records a worker's recent decisions for ``reload --dry-run``: bounded in size, without secrets.

Admitted requests are not recorded individually: snapshots of their counts by route are taken periodically and subtracted.
The latest :data:`MOST` refusals are kept as samples: route, or the shape of a path without one, code, and the code's details.
"""

import re
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from gateway.errors import Refusal
from gateway.runtime import clock

WINDOW_MS = 600_000
MOST = 2_000
_EVERY_MS = 30_000
_WORD = re.compile(r"[a-zA-Z][a-z_-]{0,23}|[vV][0-9]{1,2}|[a-z]+[A-Z][a-z]{1,12}")
SEGMENTS = 12


class Sample(NamedTuple):
    """One refused request. ``call`` is a route's pattern, or ``METHOD /shape`` when no route matched."""

    at_ms: int
    call: str
    code: str
    granted: tuple[str, ...] = ()
    """For ``scope_not_granted``: the key's permissions."""
    age_ms: int | None = None
    """For ``timestamp_out_of_window``: the request's age in milliseconds; negative: ahead of time."""
    window_ms: int = 0
    """The window that applied, in milliseconds."""


class Recent:
    """See the module."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=MOST)
        self._counts: deque[tuple[int, dict[str, float]]] = deque([(clock.now_ms(), {})], maxlen=WINDOW_MS // _EVERY_MS)

    def refused(self, refusal: Refusal, *, at_ms: int, method: bytes, path: bytes, route: str | None) -> None:
        """Record a refusal. ``route``: the route's pattern, if any."""
        call = route or refusal.route or f"{method.decode('latin-1')} {shape(path)}"
        extras = refusal.extras
        granted, skew_ms, window_ms = extras.get("granted"), extras.get("skew_ms"), extras.get("window_ms")
        self._samples.append(
            Sample(
                at_ms,
                call,
                refusal.code,
                tuple(map(str, granted)) if isinstance(granted, list | tuple) else (),
                -skew_ms if isinstance(skew_ms, int) else None,
                window_ms if isinstance(window_ms, int) else 0,
            )
        )

    def note(self, admitted: Mapping[str, float], now_ms: int) -> None:
        """Take a snapshot of the counts, at most every half minute."""
        if now_ms - self._counts[-1][0] >= _EVERY_MS:
            self._counts.append((now_ms, dict(admitted)))

    def report(self, admitted: Mapping[str, float]) -> dict[str, Any]:
        """A JSON-serializable report: start time, admitted requests by route, and the samples of refusals."""
        since_ms, before = self._counts[0]
        counts = {pattern: round(count - before.get(pattern, 0)) for pattern, count in admitted.items()}
        return {
            "since_ms": since_ms,
            "admitted": {pattern: count for pattern, count in counts.items() if count > 0},
            "refused": [list(sample) for sample in self._samples if sample.at_ms >= since_ms],
        }


def shape(path: bytes) -> str:
    """A path with every segment that is not a plain word replaced by ``x``, so that ids and misplaced secrets are not recorded."""
    parts = path.decode("latin-1").split("/")[1 : SEGMENTS + 1]
    return "/" + "/".join(part if not part or _WORD.fullmatch(part) else "x" for part in parts)
