"""Renders a key's last 24 hours as an SVG bar chart with a text alternative. Pure.

Colours come from the style sheet by class: the content security policy allows no inline style.
"""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

WIDTH, HEIGHT = 480, 72
_GAP = 4
_BASE = HEIGHT - 2
_LEAST = 3
"""Minimum height of a bar, so that any count above 0 is visible."""


class Chart(NamedTuple):
    """A key's last day, for the page."""

    svg: Markup
    allowed: int
    refused: int
    most: int
    """Requests in the busiest hour, which scales the chart."""
    ticks: tuple[int, ...]
    """Start, middle and end, in Unix milliseconds."""


class Hour(NamedTuple):
    """One bar."""

    allowed: int
    refused: int


def draw(hours: Sequence[Hour], *, description: str, ticks: tuple[int, ...] = ()) -> Chart:
    """:param hours: oldest first
    :param description: the text alternative for screen readers
    """
    allowed, refused = sum(hour.allowed for hour in hours), sum(hour.refused for hour in hours)
    most = max((hour.allowed + hour.refused for hour in hours), default=0)
    slot = WIDTH / max(len(hours), 1)
    bars = Markup().join(_bar(hour, x=index * slot + _GAP / 2, width=slot - _GAP, most=most) for index, hour in enumerate(hours))
    svg = Markup(
        '<svg viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img" aria-label="{description}">'
        '<line class="bar-axis" x1="0" x2="{width}" y1="{axis}" y2="{axis}"/>{bars}</svg>'
    ).format(width=WIDTH, height=HEIGHT, axis=HEIGHT - 1, description=description, bars=bars)
    return Chart(svg, allowed, refused, most, ticks)


def _bar(hour: Hour, *, x: float, width: float, most: int) -> Markup:
    """Refused requests stacked on allowed ones, so that the bar shows all requests of the hour."""
    parts = Markup()
    y = float(_BASE)
    for name, count in (("allowed", hour.allowed), ("refused", hour.refused)):
        if count:
            height = max(_LEAST, count / most * (_BASE - 2 * _LEAST))
            y -= height
            parts += Markup('<rect class="bar-{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(name, x, y, width, height)
    return parts
