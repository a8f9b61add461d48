"""Intents: equal ones have one digest, different ones never do."""

import dataclasses

import pytest

from admin.stepup.intent import Action, Intent, add_factor, delete_key, remove_factor, renew_recovery_codes


def test_the_order_of_members_does_not_matter() -> None:
    assert Intent(Action.CREATE_KEY, {"a": 1, "b": 2}).digest() == Intent(Action.CREATE_KEY, {"b": 2, "a": 1}).digest()


def test_every_difference_changes_the_digest() -> None:
    intents = [
        Intent(Action.CREATE_KEY, {"label": "a"}),
        Intent(Action.CREATE_KEY, {"label": "b"}),
        Intent(Action.CREATE_KEY, {"label": None}),
        Intent(Action.CREATE_KEY, {"label": "null"}),
        Intent(Action.CREATE_KEY, {"label": ["a"]}),
        Intent(Action.CREATE_KEY, {}),
        Intent(Action.DELETE_KEY, {"label": "a"}),
        delete_key("x"),
        remove_factor("x"),
        add_factor("x"),
        renew_recovery_codes(),
    ]
    assert len({intent.digest() for intent in intents}) == len(intents)


def test_the_canonical_form_is_what_it_always_was_for_a_challenge_outlives_a_release() -> None:
    intent = Intent(Action.CREATE_KEY, {"label": "é", "a": [1, None, True]})
    assert intent.digest().hex() == "c1e9d7a5970aaa20003bf7cd256d479fb52125c80be3ca62c2a49850ac01d784"
    assert delete_key("k").digest().hex() == "6fcb9b12c39f7e1d5cb52c0c6281a7813a856efb478bef97569ed4e1430138a3"
    assert remove_factor("f") == Intent(Action.REMOVE_FACTOR, {"factor_id": "f"})
    assert add_factor("totp") == Intent(Action.ADD_FACTOR, {"kind": "totp"})
    assert renew_recovery_codes() == Intent(Action.RENEW_RECOVERY_CODES, {})


def test_an_intent_cannot_be_changed_behind_its_challenge() -> None:
    intent = delete_key("k")
    with pytest.raises(dataclasses.FrozenInstanceError):
        intent.action = Action.CREATE_KEY  # type: ignore[misc]
