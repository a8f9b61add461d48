"""Names that customers give: what is seen is allowed, emoji of several parts too; what hides is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.errors import FieldError
from admin.labels import MAX_LABEL, clean_label, label_error

JOINER = "\u200d"


@pytest.mark.parametrize(
    "label",
    [
        "Bot grid",
        "\U0001f469\u200d\U0001f4bb",  # woman technologist
        "\U0001f468\U0001f3fd\u200d\U0001f680 ke bulan",  # with a skin tone
        "\u2764\ufe0f\u200d\U0001f525",  # heart on fire
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\U0001f3f3\ufe0f\u200d\U0001f308",
    ],
)
def test_emoji_joined_by_zwj_are_labels(label: str):
    assert label_error(label) is None


@pytest.mark.parametrize(
    "label",
    [
        JOINER,
        f"a{JOINER}b",
        f"{JOINER}\U0001f469",
        f"\U0001f469{JOINER}",
        f"\U0001f469{JOINER}{JOINER}\U0001f4bb",
        f"\U0001f469{JOINER}x",
        f"x\ufe0f{JOINER}\U0001f4bb",
        "Bot\u200b",
        "\u202ebot",
    ],
)
def test_a_joiner_anywhere_else_hides_and_is_refused(label: str):
    error = label_error(label)
    assert error is not None
    assert error.code == "not_printable"


@pytest.mark.parametrize("label", ["", "\u3164", "\u2800"])
def test_a_label_in_which_nothing_is_seen_is_required(label: str):
    error = label_error(label)
    assert error is not None
    assert error.code == "required"


@given(st.text() | st.text(alphabet="a \u200d\ufe0f\U0001f469\U0001f3fd"))
def test_every_text_is_judged(label: str):
    error = label_error(label)
    assert error is None or error.code in ("required", "not_printable", "too_long")


def test_a_label_is_kept_composed_and_without_white_space_around_it():
    assert clean_label("  e\u0301 b ") == "\u00e9 b"


@pytest.mark.parametrize("spaces", ["  ", "\u00a0", " \u00a0 ", "\u3000", "\u2002\u2003", "\u202f"])
def test_a_run_of_spaces_of_any_kind_is_kept_as_the_one_space_that_is_seen(spaces: str):
    assert clean_label(f"{spaces}Bot{spaces}grid{spaces}") == "Bot grid"


@pytest.mark.parametrize("text", ["Bot\tgrid", "Bot\ngrid", "Bot\u2028grid"])
def test_other_white_space_is_refused_and_not_turned_into_a_space(text: str):
    error = label_error(clean_label(text))
    assert error is not None
    assert error.code == "not_printable"


def test_a_label_has_a_longest_length_and_its_refusal_names_the_field():
    assert label_error("a" * MAX_LABEL) is None
    assert label_error("a" * (MAX_LABEL + 1)) == FieldError("label", "too_long", "At most 64 characters; this has 65.")
    error = label_error("a\n", field="name")
    assert error == FieldError("name", "not_printable", "Letters, digits, spaces and symbols only: no control or invisible characters.")
    assert label_error(" ", field="name") == FieldError("name", "required", "Enter a name that you will recognise later.")


@pytest.mark.parametrize("label", ["1", "!", "\u00a9", "X", "\u0e01"])
def test_one_letter_digit_or_symbol_is_a_label(label: str):
    assert label_error(label) is None


def test_what_follows_an_emoji_is_judged_too():
    assert label_error("\U0001f469\u200d\U0001f4bb ok") is None
    hidden = label_error("\U0001f469\u200d\U0001f4bb \u202e")
    assert hidden is not None
    assert hidden.code == "not_printable"
