"""What a key may be: every rule broken is told, each at its field."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from admin.errors import InvalidRequest
from admin.labels import clean_label
from admin.lifecycle.policy import KeyDraft, check
from admin.stepup.intent import Action
from gateway.keys.record import Algorithm, Scope

_PUBLIC = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
PEM = _PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
DER = _PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
GOOD = KeyDraft(label="My bot", scopes=["read", "trade"], ip_access="whitelisted", ip_allowlist=["8.8.8.8"])


def codes(**changes: object) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequest) as caught:
        check(replace(GOOD, **changes))
    return [(error.field, error.code) for error in caught.value.errors]


def test_a_good_draft_becomes_a_new_key() -> None:
    key = check(GOOD)
    assert (key.label, key.scopes, key.algorithm) == ("My bot", frozenset({Scope.READ, Scope.TRADE}), Algorithm.HMAC_SHA256)
    assert [str(address) for address in key.ip_allowlist or ()] == ["8.8.8.8"]


@pytest.mark.parametrize(
    ("changes", "members"),
    [
        ({}, {}),
        ({"label": "Other"}, {"label": "Other"}),
        ({"scopes": ["trade"]}, {"scopes": ["trade"]}),
        ({"ip_allowlist": ["8.8.8.8", "1.1.1.1"]}, {"ip_allowlist": ["1.1.1.1", "8.8.8.8"]}),
        ({"ip_access": "unrestricted", "ip_allowlist": []}, {"ip_allowlist": None}),
        ({"expires_in_days": 7}, {"expires_in_days": 7}),
        ({"algorithm": "ed25519", "public_key": PEM}, {"algorithm": "ed25519", "public_key": DER.hex()}),
    ],
)
def test_a_proof_is_bound_to_every_member_of_the_key(changes: dict[str, object], members: dict[str, object]) -> None:
    good = {"label": "My bot", "scopes": ["read", "trade"], "ip_allowlist": ["8.8.8.8"], "algorithm": "hmac-sha256", "public_key": None,
            "expires_in_days": None}  # fmt: skip
    intent = check(replace(GOOD, **changes)).intent()
    assert (intent.action, dict(intent.members)) == (Action.CREATE_KEY, good | members)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ip_access": "unrestricted"}, "Unrestricted access takes no addresses"),
        ({"ip_access": "anything"}, "Choose whitelisted or unrestricted."),
        ({"public_key": PEM}, "hmac-sha256 takes no public key"),
        ({"ip_allowlist": []}, "Enter at least one"),
    ],
)
def test_what_is_wrong_is_told_with_what_to_do(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(replace(GOOD, **changes))
    assert [error.message.startswith(message) for error in caught.value.errors] == [True], caught.value.errors


def test_the_key_that_is_handed_in_is_the_key_that_is_made() -> None:
    key = check(replace(GOOD, algorithm="ed25519", public_key=PEM))
    assert (key.algorithm, key.public_key) == (Algorithm.ED25519, DER)
    assert codes(algorithm="rsa-sha256", public_key=PEM)[0][0] == "public_key"


def test_unrestricted_has_no_list() -> None:
    assert check(replace(GOOD, ip_access="unrestricted", ip_allowlist=[])).ip_allowlist is None


@pytest.mark.parametrize("days", [None, 31, 3_650])
def test_a_key_that_may_trade_from_everywhere_lives_as_long_as_the_exchange_allows(days: int | None) -> None:
    draft = replace(GOOD, ip_access="unrestricted", ip_allowlist=[], expires_in_days=days)
    with pytest.raises(InvalidRequest) as caught:
        check(draft, unrestricted_trade_days=30)
    (error,) = caught.value.errors
    assert (error.field, error.code) == ("expires_in_days", "too_long")
    assert "30 days" in error.message
    assert check(draft).expires_in_days == days, "off by default"
    assert check(replace(draft, expires_in_days=30), unrestricted_trade_days=30).expires_in_days == 30


@pytest.mark.parametrize("changes", [{"scopes": ["read"]}, {"ip_access": "whitelisted", "ip_allowlist": ["8.8.8.8"]}])
def test_other_keys_may_live_for_ever(changes: dict[str, object]) -> None:
    draft = replace(GOOD, ip_access="unrestricted", ip_allowlist=[])
    assert check(replace(draft, **changes), unrestricted_trade_days=30).expires_in_days is None


@pytest.mark.parametrize(
    ("label", "code"),
    [
        ("", "required"), ("   ", "required"), ("\u3164", "required"), ("\u00a0\u2003", "required"), ("\u0301", "required"),
        ("x" * 65, "too_long"),
        ("a\x00b", "not_printable"), ("a\nb", "not_printable"), ("a\u202eb", "not_printable"), ("a\u200bb", "not_printable"),
        ("\ud800", "not_printable"), ("a\u2028b", "not_printable"), ("\ue000", "not_printable"),
    ],
)  # fmt: skip
def test_a_label_that_cannot_be_read_is_refused(label: str, code: str) -> None:
    assert codes(label=label) == [("label", code)]


@pytest.mark.parametrize("label", ["x", "x" * 64, "Bot perdagangan №1", "机器人", "🤖", "a'; DROP TABLE api_keys; --", "<b>"])
def test_a_readable_label_is_kept_as_it_is(label: str) -> None:
    assert check(replace(GOOD, label=label)).label == label


def test_a_label_is_composed_and_trimmed() -> None:
    assert check(replace(GOOD, label=" cafe\u0301 ")).label == "café"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"scopes": []}, [("scopes", "required")]),
        ({"scopes": ["read", "read"]}, [("scopes[1]", "duplicate")]),
        ({"scopes": ["read", "withdraw"]}, [("scopes[1]", "not_a_choice")]),
        ({"ip_allowlist": []}, [("ip_allowlist", "required")]),
        ({"ip_access": "unrestricted"}, [("ip_allowlist", "unexpected")]),
        ({"ip_access": "anything"}, [("ip_access", "not_a_choice")]),
        ({"algorithm": "md5"}, [("algorithm", "not_a_choice")]),
        ({"algorithm": "ed25519"}, [("public_key", "required")]),
        ({"public_key": "x"}, [("public_key", "unexpected")]),
        ({"public_key": "-----BEGIN PRIVATE KEY-----"}, [("public_key", "private_key")]),
        ({"expires_in_days": 0}, [("expires_in_days", "out_of_range")]),
        ({"expires_in_days": -1}, [("expires_in_days", "out_of_range")]),
        ({"expires_in_days": 3651}, [("expires_in_days", "out_of_range")]),
    ],
)
def test_a_broken_rule_is_told_at_its_field(changes: dict[str, object], expected: list[tuple[str, str]]) -> None:
    assert codes(**changes) == expected


@pytest.mark.parametrize("days", [None, 1, 3650])
def test_an_expiry_within_bounds_is_kept(days: int | None) -> None:
    assert check(replace(GOOD, expires_in_days=days)).expires_in_days == days


def test_all_broken_rules_are_told_at_once() -> None:
    assert codes(label="", scopes=[], ip_allowlist=["10.0.0.1"], algorithm="rsa-sha256", expires_in_days=0) == [
        ("label", "required"),
        ("scopes", "required"),
        ("ip_allowlist[0]", "not_public"),
        ("public_key", "required"),
        ("expires_in_days", "out_of_range"),
    ]


def test_of_many_wrong_names_a_few_are_told() -> None:
    assert codes(scopes=["withdraw"] * 9) == [(f"scopes[{index}]", "not_a_choice") for index in range(4)]


@given(st.text(max_size=80))
def test_a_label_that_passes_is_printable_and_within_bounds(text: str) -> None:
    try:
        label = check(replace(GOOD, label=text)).label
    except InvalidRequest:
        return
    assert 1 <= len(label) <= 64
    assert label == clean_label(label) == label.strip()
    assert label.isprintable() or any(character.isspace() for character in label)
