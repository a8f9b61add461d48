"""Logins in progress, in the cookie of their browser: nobody reads, makes, moves or prolongs one."""

import base64

import pytest

from admin.identity import attempts
from admin.identity.attempts import TTL_MS, LoginAttempt
from admin.identity.browser import LOGIN_COOKIE, MAX_LOGINS, login_cookie
from admin.identity.login import local_path
from admin.identity.sessions import new_token
from gateway.keys.vault import Vault, new_entry

NOW = 1_700_000_000_000
VAULT = Vault.parse(new_entry("k1"))
ATTEMPT = LoginAttempt(nonce=new_token(), code_verifier=new_token(), return_to="/keys/new", expires_ms=NOW + TTL_MS)
STATE = new_token()


def opened(cookie: str, now_ms: int = NOW, *, vault: Vault = VAULT, state: str = STATE) -> LoginAttempt | None:
    return attempts.unseal(cookie, vault, now_ms, expected_state=state)


def test_an_attempt_is_read_back_until_it_expires():
    cookie = attempts.seal(ATTEMPT, VAULT, state=STATE)
    assert opened(cookie) == opened(cookie, NOW + TTL_MS - 1) == ATTEMPT
    assert opened(cookie, NOW + TTL_MS) is None, "however long the browser keeps it"


def test_a_cookie_shows_nothing_and_no_two_are_alike():
    cookie = attempts.seal(ATTEMPT, VAULT, state=STATE)
    content = base64.urlsafe_b64decode(cookie + "==")
    for secret in (ATTEMPT.nonce, ATTEMPT.code_verifier, STATE, "/keys/new"):
        assert secret.encode() not in content
    assert cookie != attempts.seal(ATTEMPT, VAULT, state=STATE)


def test_a_cookie_opens_for_its_own_state_alone_so_that_two_tabs_cannot_be_mixed_up():
    cookie, other = (attempts.seal(ATTEMPT, VAULT, state=state) for state in (STATE, "another"))
    assert opened(cookie, state="another") is opened(other) is None
    assert opened(other, state="another") == ATTEMPT


def test_only_this_service_makes_one():
    cookie = attempts.seal(ATTEMPT, VAULT, state=STATE)
    plain = base64.urlsafe_b64encode(b'{"nonce":"n","code_verifier":"v","return_to":"/keys","expires_ms":9999999999999}').decode()
    for forged in ("", "=", "x", "\udcff", "é", "A" * 5_000, plain, cookie[:-4], cookie[4:], "AAAA" + cookie[4:]):
        assert opened(forged) is None, forged
    for position in range(0, len(cookie), 7):
        changed = cookie[:position] + ("A" if cookie[position] != "A" else "B") + cookie[position + 1 :]
        assert opened(changed) is None, position
    assert opened(cookie, vault=Vault.parse(new_entry("k1"))) is None
    other = base64.urlsafe_b64encode(VAULT.seal(b"{}", context=f"Session:{STATE}")).decode()
    assert opened(other) is None, "what the vault has sealed for something else"
    foreign = base64.urlsafe_b64encode(VAULT.seal(b'{"nonce":"n"}', context=f"LoginAttempt:{STATE}")).decode()
    assert opened(foreign) is None, "of a version with other fields"


@pytest.mark.parametrize("state", ["", "\udced\udca0\udc80", "\x00", "x" * 4_000])
def test_a_state_that_a_stranger_invents_opens_nothing(state):
    assert opened(attempts.seal(ATTEMPT, VAULT, state=STATE), state=state) is None


def test_a_login_begun_before_the_vaults_key_was_rotated_can_be_finished_after_it():
    old, new = new_entry("old"), new_entry("new")
    cookie = attempts.seal(ATTEMPT, Vault.parse(old), state=STATE)
    assert opened(cookie, vault=Vault.parse(f"{new} {old}")) == ATTEMPT


def test_all_logins_of_one_browser_fit_into_half_a_header_section():
    """8 KiB is what nginx, Envoy and aiohttp take by default, of a single field."""
    longest = max((local_path("/" + "k" * length) for length in range(300)), key=len)
    assert len(longest) == 96
    attempt = LoginAttempt(nonce=new_token(), code_verifier=new_token(), return_to=longest, expires_ms=NOW)
    cookie = attempts.seal(attempt, Vault.parse(new_entry("k" * 32)), state=STATE)
    assert len(cookie) <= 450
    assert login_cookie(STATE).startswith(LOGIN_COOKIE)
    assert MAX_LOGINS * len(f"{login_cookie(STATE)}={cookie}; ") <= 4_096
