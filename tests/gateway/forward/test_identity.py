"""Identity lines: what they say, and how often they are made."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.forward.identity import IdentityLines
from gateway.http1.message import Identity
from tests.support.inside import remembered

ALICE = Identity("alice", "gbk_1", ("read",))
BOB = Identity("bob", "gbk_2", ("read", "trade"))


class CountingSigner:
    def __init__(self) -> None:
        self.asked: list[tuple[Identity | None, str, int]] = []

    def assertion(self, identity: Identity | None, audience: str, now_ms: int) -> bytes:
        self.asked.append((identity, audience, now_ms))
        return b"proof%d" % len(self.asked)


def lines(signer: CountingSigner, **how: int) -> IdentityLines:
    return IdentityLines(signer, "spot", **{"period_ms": 1_000, **how})


def test_the_lines_say_who_and_prove_it() -> None:
    assert lines(CountingSigner()).at(BOB, 5) == (
        b"x-account-id: bob\r\nx-key-id: gbk_2\r\nx-key-scopes: read,trade\r\nx-gateway-assertion: proof1\r\n"
    )


def test_nobody_has_no_identity_but_a_proof() -> None:
    assert lines(CountingSigner()).at(None, 5) == b"x-gateway-assertion: proof1\r\n"


def test_one_assertion_serves_a_key_for_a_period() -> None:
    signer = CountingSigner()
    made = lines(signer)
    assert made.at(ALICE, 0) == made.at(ALICE, 999)
    made.at(BOB, 500)
    made.at(ALICE, 1_000)
    assert signer.asked == [(ALICE, "spot", 0), (BOB, "spot", 500), (ALICE, "spot", 1_000)]


def test_a_clock_that_is_set_back_makes_a_new_one() -> None:
    signer = CountingSigner()
    made = lines(signer)
    made.at(ALICE, 10_000)
    made.at(ALICE, 9_000)
    assert len(signer.asked) == 2


def test_memory_is_bounded() -> None:
    signer = CountingSigner()
    made = lines(signer, max_entries=2)
    for number in range(10):
        made.at(Identity(f"account-{number}", "gbk_1", ()), 0)
        assert len(remembered(made)) <= 2


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_no_account_id_ends_its_line(account: str) -> None:
    made = lines(CountingSigner()).at(Identity(account, "gbk_1", ("read",)), 0)
    assert made.count(b"\r\n") == 4
    assert all(0x20 <= byte < 0x7F for byte in made.replace(b"\r\n", b""))


def test_members_for_a_message_share_the_assertion_of_the_lines() -> None:
    signer = CountingSigner()
    made = lines(signer)
    made.at(BOB, 5)
    members = made.members_at(BOB, 6)
    assert json.loads(b"{%b}" % members[:-1]) == {
        "assertion": "proof1",
        "account_id": "bob",
        "key_id": "gbk_2",
        "scopes": ["read", "trade"],
    }
    assert members[-1:] == b","
    assert made.members_at(BOB, 900) is members
    assert b"proof2" in made.members_at(BOB, 1_005)
    assert b"proof2" in made.at(BOB, 1_006)
    odd = Identity('a"\\b\u00e9', "gbk_3", ("read",))
    assert json.loads(b"{%b}" % made.members_at(odd, 5)[:-1])["account_id"] == odd.account_id
    assert len(signer.asked) == 3
