"""Signing keys: made once, rotated by age, never missing from the JWKS while somebody may need them."""

import json
import stat
from base64 import urlsafe_b64decode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.assertion.keys import PUBLISHED_AFTER_MS, PUBLISHED_AHEAD_MS, KeyRing, Plan, SigningKey, SigningKeysUnusable, plan

DAY = 86_400_000
NOW = 1_800_000_000_000


def kids(ring):
    return [key["kid"] for key in ring.jwks()["keys"]]


def test_a_key_and_its_kid_are_those_of_the_standard():
    """RFC 8037, appendices A.2 and A.3."""
    private = Ed25519PrivateKey.from_private_bytes(urlsafe_b64decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="))
    kid = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    public = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    assert SigningKey.of(private, NOW).public_jwk() == {**public, "kid": kid, "alg": "EdDSA", "use": "sig"}


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        ([], Plan(None, make=True, drop=())),
        ([NOW], Plan(0, make=False, drop=())),
        ([NOW + DAY], Plan(0, make=False, drop=())),
        ([NOW - 30 * DAY], Plan(0, make=True, drop=())),
        ([NOW - 30 * DAY, NOW], Plan(0, make=False, drop=())),
        ([NOW - 30 * DAY, NOW - PUBLISHED_AHEAD_MS], Plan(1, make=False, drop=())),
        ([NOW - 30 * DAY, NOW - PUBLISHED_AHEAD_MS - PUBLISHED_AFTER_MS], Plan(1, make=False, drop=(0,))),
        ([NOW - 90 * DAY, NOW - 60 * DAY, NOW - 30 * DAY], Plan(2, make=True, drop=(0, 1))),
    ],
)
def test_what_is_due_follows_from_ages(created, expected):
    assert plan(created, NOW, 30 * DAY) == expected


@settings(max_examples=200)
@given(steps=st.lists(st.integers(1, 120_000), min_size=1, max_size=200), rotate_ms=st.integers(120_000, 2_000_000))
def test_a_verifier_that_fetched_within_a_minute_always_knows_the_signing_key(steps, rotate_ms):
    ring, now_ms, fetched = KeyRing(None, rotate_after_ms=rotate_ms), NOW, []
    for step in steps:
        signing = ring.refresh(now_ms)
        fetched = [(at_ms, known) for at_ms, known in fetched if now_ms - at_ms < PUBLISHED_AHEAD_MS]
        assert all(signing.kid in known for at_ms, known in fetched)
        assert signing.kid in kids(ring)
        fetched.append((now_ms, kids(ring)))
        now_ms += step


def test_the_first_start_makes_one_key_that_only_its_owner_reads(tmp_path):
    folder = tmp_path / "assertion"
    KeyRing(folder, rotate_after_ms=DAY).refresh(NOW)
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_restart_signs_with_the_same_key(tmp_path):
    first = KeyRing(tmp_path, rotate_after_ms=DAY).refresh(NOW)
    again = KeyRing(tmp_path, rotate_after_ms=DAY).refresh(NOW + 1)
    assert (first.kid, first.created_ms) == (again.kid, again.created_ms)


def test_rotation_publishes_then_signs_then_drops(tmp_path):
    ring = KeyRing(tmp_path, rotate_after_ms=DAY)
    old = ring.refresh(NOW).kid
    assert ring.refresh(NOW + DAY).kid == old
    assert len(kids(ring)) == 2
    new = ring.refresh(NOW + DAY + PUBLISHED_AHEAD_MS).kid
    assert new != old
    assert set(kids(ring)) == {old, new}
    ring.refresh(NOW + DAY + PUBLISHED_AHEAD_MS + PUBLISHED_AFTER_MS)
    assert kids(ring) == [new]
    assert len(list(tmp_path.iterdir())) == 1


def test_gates_that_share_a_folder_publish_each_others_keys(tmp_path):
    one, other = KeyRing(tmp_path, rotate_after_ms=DAY), KeyRing(tmp_path, rotate_after_ms=DAY)
    one.refresh(NOW)
    other.refresh(NOW)
    one.refresh(NOW)
    assert kids(one) == kids(other)


def test_the_jwks_shows_public_halves_alone(tmp_path):
    ring = KeyRing(tmp_path, rotate_after_ms=DAY)
    ring.refresh(NOW)
    (key,) = json.loads(json.dumps(ring.jwks()))["keys"]
    assert set(key) == {"kty", "crv", "x", "kid", "alg", "use"}


def test_a_file_that_is_no_key_is_named(tmp_path):
    KeyRing(tmp_path, rotate_after_ms=DAY).refresh(NOW)
    (file,) = tmp_path.iterdir()
    file.write_text("half a file")
    with pytest.raises(SigningKeysUnusable, match=f"{file.name}: not a PEM"):
        KeyRing(tmp_path, rotate_after_ms=DAY).refresh(NOW)


def test_a_key_of_another_kind_is_named(tmp_path):
    KeyRing(tmp_path, rotate_after_ms=DAY).refresh(NOW)
    (file,) = tmp_path.iterdir()
    file.write_bytes(generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(SigningKeysUnusable, match="not an Ed25519 key"):
        KeyRing(tmp_path, rotate_after_ms=DAY).refresh(NOW)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SigningKeysUnusable, match="file/keys: Not a directory"):
        KeyRing(tmp_path / "file" / "keys", rotate_after_ms=DAY).refresh(NOW)


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    (tmp_path / "README").write_text("keys of the gate")
    ring = KeyRing(tmp_path, rotate_after_ms=DAY)
    ring.refresh(NOW)
    assert len(kids(ring)) == 1
    assert (tmp_path / "README").exists()


def test_keys_of_an_earlier_ring_stay_published(tmp_path):
    earlier = KeyRing(None, rotate_after_ms=DAY)
    old = earlier.refresh(NOW).kid
    ring = KeyRing(tmp_path, rotate_after_ms=DAY, earlier=earlier)
    new = ring.refresh(NOW).kid
    assert kids(ring) == [new, old]
    same = KeyRing(tmp_path, rotate_after_ms=2 * DAY, earlier=ring)
    same.refresh(NOW)
    assert kids(same) == [new, old]


def test_keys_of_another_folder_are_published_until_no_assertion_of_theirs_is_valid_and_not_for_ever(tmp_path):
    earlier = KeyRing(tmp_path / "one", rotate_after_ms=DAY)
    old = earlier.refresh(NOW)
    ring = KeyRing(tmp_path / "two", rotate_after_ms=DAY, earlier=earlier)
    new = ring.refresh(NOW + 1)
    third = KeyRing(tmp_path / "two", rotate_after_ms=2 * DAY, earlier=ring)
    third.refresh(NOW + PUBLISHED_AFTER_MS)
    assert kids(third) == [new.kid, old.kid]
    third.refresh(NOW + 1 + PUBLISHED_AFTER_MS)
    assert kids(third) == [new.kid]


@pytest.mark.parametrize("reloads", [0, 1, 2])
def test_a_leaked_key_that_was_deleted_is_published_no_more_whatever_was_reloaded_before(tmp_path, reloads):
    ring = KeyRing(tmp_path, rotate_after_ms=DAY)
    leaked = ring.refresh(NOW)
    for number in range(reloads):
        ring = KeyRing(tmp_path, rotate_after_ms=DAY + number, earlier=ring)
        ring.refresh(NOW + number)
    (file,) = tmp_path.iterdir()
    file.unlink()
    fresh = ring.refresh(NOW + 10_000)
    assert fresh.kid != leaked.kid
    assert kids(ring) == [fresh.kid]


def test_keys_in_memory_sign_on_when_other_settings_are_reloaded():
    earlier = KeyRing(None, rotate_after_ms=DAY)
    signing = earlier.refresh(NOW)
    assert KeyRing(None, rotate_after_ms=2 * DAY, earlier=earlier).refresh(NOW + 1) is signing
