"""Recovery codes: unguessable, readable, hashed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.stepup import recovery


def test_ten_different_codes_of_eighty_bits() -> None:
    codes = recovery.new_codes()
    assert len(set(codes)) == 10
    for code in codes:
        assert len(code) == 19
        assert set(code) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ-")


@pytest.mark.parametrize("typed", ["0123456789ABCDEF", "0123-4567-89ab-cdef", " oI23 4567 89AB CDEF\n", "OL23-4567-89AB-CDEF"])
def test_a_code_is_found_however_it_is_typed(typed: str) -> None:
    assert recovery.digest("alice", typed) == recovery.digest("alice", "0123-4567-89AB-CDEF")


def test_the_same_code_of_two_accounts_has_two_digests() -> None:
    assert recovery.digest("alice", "0123-4567-89AB-CDEF") != recovery.digest("bob", "0123-4567-89AB-CDEF")


@given(st.text(max_size=50))
def test_any_text_has_a_digest(text: str) -> None:
    assert len(recovery.digest("alice", text)) == 32
