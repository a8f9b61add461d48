"""The sealed record of Redis."""

import json
from contextlib import suppress
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.keys.codec import DatedRecord, RecordUnreadable, decode, encode, open_record, seal_record
from gateway.keys.record import Algorithm, Scope
from gateway.keys.secret import Secret
from gateway.keys.snapshot import BEGINNING, parse_snapshot
from tests.support.keys import NOW_MS, a_record, a_vault

addresses = st.lists(st.ip_addresses(), min_size=1, max_size=3).map(tuple)
times = st.integers(0, 1 << 50)
hmac_material = st.fixed_dictionaries({"algorithm": st.just(Algorithm.HMAC_SHA256), "secret": st.binary().map(Secret)})
public_material = st.fixed_dictionaries(
    {
        "algorithm": st.sampled_from([Algorithm.ED25519, Algorithm.RSA_SHA256]),
        "secret": st.none(),
        "public_key": st.binary(),
    }
)
others = st.fixed_dictionaries(
    {
        "account_id": st.text(),
        "label": st.text(),
        "scopes": st.frozensets(st.sampled_from(Scope), min_size=1),
        "ip_allowlist": st.none() | addresses,
        "created_ms": times,
        "expires_ms": st.none() | times,
        "frozen": st.booleans(),
        "tier": st.none() | st.text(),
    }
)


@given(
    hmac_material | public_material, others, st.tuples(times, times, st.sampled_from(["3:3:", "10:20:10,15"]).map(parse_snapshot), times)
)
def test_every_record_survives_the_seal(material, other, more):
    vault, dated = a_vault(), DatedRecord(a_record(**material, **other), *more)
    assert open_record(seal_record(dated, vault), vault, expected_key_id=dated.record.key_id) == dated


def test_the_sealed_bytes_show_neither_secret_nor_account():
    record = a_record(account_id="alice@example.com")
    sealed = seal_record(DatedRecord(record, NOW_MS, 1000, BEGINNING, 1), a_vault())
    assert sealed.find(record.secret.reveal()) < 0
    assert b"alice" not in sealed


def test_a_record_sealed_for_another_key_is_refused():
    vault, mine, other = a_vault(), a_record(), a_record()
    sealed = seal_record(DatedRecord(mine, NOW_MS, 1000, BEGINNING, 1), vault)
    with pytest.raises(RecordUnreadable):
        open_record(sealed, vault, expected_key_id=other.key_id)


def test_the_sealed_secret_of_the_database_is_no_record():
    vault, record = a_vault(), a_record()
    with pytest.raises(RecordUnreadable):
        open_record(vault.seal(record.secret.reveal(), context=record.key_id), vault, expected_key_id=record.key_id)


def test_a_record_whose_members_name_another_key_is_refused():
    vault, mine, other = a_vault(), a_record(), a_record()
    sealed = vault.seal(encode(DatedRecord(other, NOW_MS, 1000, BEGINNING, 1)), context=f"record:{mine.key_id}")
    with pytest.raises(RecordUnreadable, match="another key"):
        open_record(sealed, vault, expected_key_id=mine.key_id)


def test_the_plaintext_has_no_white_space_and_all_members():
    record = a_record(label="label", ip_allowlist=(ip_address("8.8.8.8"),))
    plaintext = encode(DatedRecord(record, NOW_MS, 1000, BEGINNING, 1))
    assert b" " not in plaintext
    assert json.loads(plaintext)["ip_allowlist"] == ["8.8.8.8"]
    assert json.loads(plaintext)["v"] == 2


@pytest.mark.parametrize(
    "change",
    [
        {"v": 1},
        {"v": None},
        {"scopes": []},
        {"scopes": ["admin"]},
        {"scopes": "read"},
        {"algorithm": "none"},
        {"algorithm": "ed25519"},
        {"secret": None},
        {"secret": "%%"},
        {"secret": 5},
        {"ip_allowlist": []},
        {"ip_allowlist": ["8.8.8.0/24"]},
        {"ip_allowlist": [134744072]},
        {"ip_allowlist": "8.8.8.8"},
        {"frozen": 0},
        {"created_ms": "0"},
        {"expires_ms": True},
        {"read_ms": None},
        {"server": None},
        {"position": 3},
        {"position": "3:2:"},
        {"position": "3"},
    ],
)
def test_a_malformed_member_is_refused(change):
    members = json.loads(encode(DatedRecord(a_record(ip_allowlist=(ip_address("8.8.8.8"),)), NOW_MS, 1000, BEGINNING, 1))) | change
    with pytest.raises(RecordUnreadable):
        decode(json.dumps(members).encode())


@pytest.mark.parametrize("name", sorted(json.loads(encode(DatedRecord(a_record(), NOW_MS, 1000, BEGINNING, 1)))))
def test_a_missing_member_is_refused_without_showing_the_rest(name):
    record = a_record()
    members = json.loads(encode(DatedRecord(record, NOW_MS, 1000, BEGINNING, 1)))
    del members[name]
    with pytest.raises(RecordUnreadable) as refusal:
        decode(json.dumps(members).encode())
    assert refusal.value.__cause__ is None
    assert "gbs_" not in str(refusal.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_record_or_unreadable(plaintext):
    with pytest.raises(RecordUnreadable):
        decode(plaintext)


@given(st.sampled_from(sorted(json.loads(encode(DatedRecord(a_record(), NOW_MS, 1000, BEGINNING, 1))))), json_values)
def test_a_record_with_any_one_member_replaced_decodes_or_is_unreadable(name, value):
    members = json.loads(encode(DatedRecord(a_record(), NOW_MS, 1000, BEGINNING, 1))) | {name: value}
    with suppress(RecordUnreadable):
        decode(json.dumps(members).encode())
