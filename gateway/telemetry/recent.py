"""A worker's decisions of the last minutes, for ``reload --dry-run``: bounded in size, without secrets.

Admitted requests are not looked at one by one: their counts by route, which are kept anyway, are noted now and then and subtracted.
Refused ones are kept as samples, the latest :data:`MOST`: route, or the shape of a path that has none, code, and what the code is about.
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
    """Of ``scope_not_granted``: the key's permissions."""
    age_ms: int | None = None
    """Of ``timestamp_out_of_window``: how old the request was; negative: ahead of time."""
    window_ms: int = 0
    """The window that applied to it."""


class Recent:
    """See the module."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=MOST)
        self._counts: deque[tuple[int, dict[str, float]]] = deque([(clock.now_ms(), {})], maxlen=WINDOW_MS // _EVERY_MS)

    def refused(self, refusal: Refusal, *, at_ms: int, method: bytes, path: bytes, route: str | None) -> None:
        """Keep a refusal. ``route``: its pattern, when there is one."""
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
        """Remember the counts of now, at most every half minute."""
        if now_ms - self._counts[-1][0] >= _EVERY_MS:
            self._counts.append((now_ms, dict(admitted)))

    def report(self, admitted: Mapping[str, float]) -> dict[str, Any]:
        """As JSON: since when, how many were admitted by route, and the samples of refusals."""
        since_ms, before = self._counts[0]
        counts = {pattern: round(count - before.get(pattern, 0)) for pattern, count in admitted.items()}
        return {
            "since_ms": since_ms,
            "admitted": {pattern: count for pattern, count in counts.items() if count > 0},
            "refused": [list(sample) for sample in self._samples if sample.at_ms >= since_ms],
        }


def shape(path: bytes) -> str:
    """A path whose every part that is no plain word is ``x``: ids, names of markets, and secrets in the wrong place are not kept."""
    parts = path.decode("latin-1").split("/")[1 : SEGMENTS + 1]
    return "/" + "/".join(part if not part or _WORD.fullmatch(part) else "x" for part in parts)
