"""What templates are given: prefilled forms, reasons, what a refusal lacks, and whose address is shown."""

from ipaddress import ip_address

import pytest

from admin.audit import Actor, Recorded
from admin.lifecycle.leaks import LEAKED
from admin.lifecycle.service import KeyView
from admin.pages import models
from admin.pages.i18n import load_languages
from gateway.keys.record import Algorithm, Scope
from gateway.keys.store import StoredKey
from gateway.keys.usage import Refused

NOW_MS = 1_800_000_000_000
DAY_MS = 86_400_000
ENGLISH = load_languages()["en"]


def card(status: str = "active", **changes: object) -> models.KeyCard:
    values = {
        "key_id": "gbk_0123456789abcdefghijklmnopqr",
        "account_id": "budi",
        "label": "Bot",
        "scopes": frozenset({Scope.READ}),
        "algorithm": Algorithm.HMAC_SHA256,
        "public_key": None,
        "ip_allowlist": (ip_address("8.8.8.8"),),
        "created_ms": NOW_MS,
        "expires_ms": NOW_MS + 30 * DAY_MS,
        "revoked_ms": None,
        "revoked_reason": None,
    }
    return models.key_card(KeyView(key=StoredKey(**(values | changes)), status=status), ENGLISH, NOW_MS)


def test_a_key_is_made_again_with_what_its_request_lacked():
    like = models.Prefill("Bot", ("read",), "whitelisted", ("8.8.8.8",), "hmac-sha256", 30)
    assert models.prefill(card(), address=None, scope=None) == like
    assert models.prefill(card(), address="1.1.1.1", scope="trade") == like._replace(
        scopes=("read", "trade"), addresses=("8.8.8.8", "1.1.1.1")
    )
    assert models.prefill(card(), address="8.8.8.8", scope="withdraw") == like
    full = card(ip_allowlist=tuple(ip_address(f"8.8.8.{last}") for last in (1, 2, 3)), expires_ms=None)
    assert models.prefill(full, address="1.1.1.1", scope=None).addresses == ("8.8.8.1", "8.8.8.2", "1.1.1.1")
    assert models.prefill(full, address=None, scope=None).days is None
    assert models.prefill(card(ip_allowlist=None), address="1.1.1.1", scope=None).addresses == ()


@pytest.mark.parametrize(("days", "status", "soon"), [(6, "active", True), (8, "active", False), (6, "revoked", False)])
def test_what_ends_within_a_week_says_so(days: int, status: str, soon: bool):
    assert card(status, expires_ms=NOW_MS + days * DAY_MS).expires_soon is soon


def test_the_reason_of_a_revocation_is_shown_and_a_leak_in_words():
    assert card("revoked", revoked_reason="Reported stolen").reason == "Reported stolen"
    assert card("revoked", revoked_reason=LEAKED).reason == "its Secret Key was found in public"
    assert card("idle", revoked_reason="unused").reason is None


def test_a_refusal_names_the_missing_permission_and_leads_to_a_key_that_would_pass():
    refused = [Refused(NOW_MS, "scope_not_granted", "9.9.9.9"), Refused(NOW_MS - 1, "ip_not_allowed", "2001:4860::8"), Refused(1, "x", "")]
    permission, address, other = models.refusal_rows(refused, ENGLISH, ("read",))
    assert (permission.text, permission.again) == ("Permission missing: Spot Trading", "scope=trade")
    assert address.again == "address=2001%3A4860%3A%3A8"
    assert other.again is None
    (private,) = models.refusal_rows([Refused(1, "ip_not_allowed", "10.0.0.7")], ENGLISH, ("read",))
    assert private.again is None, "no key may list it"
    assert models.refusal_rows(refused[:1], ENGLISH, ("trade",))[0].text.endswith("Read Only")


def test_refusals_are_told_by_call_and_what_was_written_without_one_is_read():
    refused = [
        Refused(NOW_MS - n, "timestamp_out_of_window", "9.9.9.9", call) for n, call in enumerate(("GET /a", "GET /a", "POST /b", ""))
    ]
    rows = models.refusal_rows(refused, ENGLISH, ("read",))
    assert [(row.call, row.times, row.at) for row in rows] == [("GET /a", 2, NOW_MS), ("POST /b", 1, NOW_MS - 2), ("", 1, NOW_MS - 3)]


def test_an_operators_address_is_not_shown_to_the_owner():
    events = [Recorded(1, NOW_MS, "key_revoked", actor, "budi", None, "10.0.0.7", "{}") for actor in (Actor.ACCOUNT, "operator")]
    assert [row.by_owner for row in models.event_rows(events, ENGLISH)] == [True, False]


def test_why_no_key_can_be_created_is_the_most_final_reason():
    view = models.AccountView(kyc="verified", frozen=False, factors=(), help_url=None, key_limit=1, key_count=1)
    assert (view.why_not, view.may_create) == ("factor", False)
    assert view._replace(factors=("totp",)).why_not == "limit"
    assert view._replace(kyc="none").why_not == "kyc"
    assert view._replace(frozen=True, kyc="none").why_not == "frozen"
    assert view._replace(factors=("totp",), key_count=0).may_create
