"""Moments as people write them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.runtime.moments import parse, rfc3339

NOW = 1_800_000_000_000


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1970-01-01", 0),
        ("1970-01-02T00:00:00Z", 86_400_000),
        ("1970-01-02T07:00:00+07:00", 86_400_000),
        ("1970-01-01T00:00:01.5", 1_500),
        ("30s", NOW - 30_000),
        ("90d", NOW - 90 * 86_400_000),
        ("999999d", 0),
    ],
)
def test_what_people_write(text, wanted):
    assert parse(text, NOW) == wanted


@pytest.mark.parametrize("text", ["", "yesterday", "30", "-1d", "1w", "1969-12-31", "2026-13-01", "9999-12-31T23:59:59-12:00", "9" * 400])
def test_anything_else_is_told_what_to_write(text):
    with pytest.raises(ValueError, match="write a time as"):
        parse(text, NOW)


@given(st.integers(0, 4_102_444_800_000))
def test_what_is_written_is_read_back(milliseconds):
    assert parse(rfc3339(milliseconds), NOW) == milliseconds


@given(st.text())
def test_any_text_is_a_moment_or_a_value_error(text):
    with contextlib.suppress(ValueError):
        assert parse(text, NOW) >= 0
