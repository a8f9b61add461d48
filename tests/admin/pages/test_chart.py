"""The bar chart: what is counted is drawn, whatever the numbers, and nothing in it is markup of a stranger."""

import re
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from admin.pages.chart import HEIGHT, WIDTH, Hour, draw


def bars(hours: list[Hour]) -> list[tuple[str, float, float, float, float]]:
    root = ET.fromstring(str(draw(hours, description="d").svg))
    found = []
    for bar in root.iter("rect"):
        x, y, width, height = (float(bar.attrib[name]) for name in ("x", "y", "width", "height"))
        found.append((bar.attrib["class"], x, y, width, height))
    return found


def test_refused_stands_on_allowed_and_the_busiest_hour_is_the_tallest():
    drawn = bars([Hour(10, 0), Hour(50, 50), Hour(0, 0)])
    assert [kind for kind, *_ in drawn] == ["bar-allowed", "bar-allowed", "bar-refused"]
    (_, _, top, _, first), (_, x, y, _, allowed), (_, above_x, above_y, _, refused) = drawn
    assert x == above_x
    assert abs(above_y + refused - y) < 0.2
    assert allowed == refused > first
    assert top > above_y


def test_one_refusal_beside_a_million_is_still_seen():
    drawn = bars([Hour(1_000_000, 0), Hour(0, 1)])
    assert drawn[1][4] >= 3


def test_sums_are_told_beside_the_picture():
    chart = draw([Hour(3, 1), Hour(4, 0)], description="Seven")
    assert (chart.allowed, chart.refused) == (7, 1)
    assert 'role="img" aria-label="Seven"' in chart.svg


def test_a_day_without_a_request_is_an_empty_picture():
    assert bars([Hour(0, 0)] * 24) == []
    assert bars([]) == []


def test_a_description_is_text():
    svg = draw([], description='"><script>alert(1)</script>').svg
    assert "<script" not in svg
    ET.fromstring(str(svg))


def test_no_inline_style_that_the_policy_would_block():
    assert not re.search(r"\sstyle=", draw([Hour(1, 1)], description="").svg)


@given(st.lists(st.builds(Hour, st.integers(0, 10**12), st.integers(0, 10**12)), min_size=1, max_size=24))
def test_every_bar_stays_inside(hours):
    for _, x, y, width, height in bars(hours):
        assert 0 <= x <= x + width <= WIDTH + 0.1
        assert -0.1 <= y <= y + height <= HEIGHT
