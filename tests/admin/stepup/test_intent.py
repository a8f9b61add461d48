"""Intents: equal ones have one digest, different ones never do."""

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
