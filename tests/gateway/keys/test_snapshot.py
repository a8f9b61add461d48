"""Positions in the feed, against PostgreSQL's own idea of them."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.keys.snapshot import parse_snapshot


@st.composite
def texts(draw: st.DrawFn) -> str:
    xmin = draw(st.integers(3, 30))
    under_way = sorted(draw(st.sets(st.integers(xmin, xmin + 20))))
    xmax = draw(st.integers(max([xmin, *(xid + 1 for xid in under_way)]), xmin + 30))
    return f"{xmin}:{xmax}:{','.join(map(str, under_way))}"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(texts())
async def test_a_snapshot_sees_what_postgresql_says_it_sees(world, text):
    numbers = list(range(1, 65))
    query = "SELECT pg_visible_in_snapshot(xid::text::xid8, $1::text::pg_snapshot) FROM unnest($2::bigint[]) AS xid"
    expected = [row[0] for row in await world.admin.fetch(query, text, numbers)]
    assert list(map(parse_snapshot(text).sees, numbers)) == expected


@pytest.mark.parametrize("text", ["", "3", "3:3", "3:2:", "0:3:", "a:b:", "3:4:x", "3:4::"])
def test_what_is_none_is_refused(text):
    with pytest.raises(ValueError, match=r".*"):
        parse_snapshot(text)
