"""The record itself."""

import dataclasses

import pytest

from gateway.keys.record import Algorithm
from tests.support.keys import a_record


def test_a_record_shows_no_secret_and_does_not_change():
    record = a_record()
    assert record.secret.reveal().decode() not in repr(record)
    assert "gbs_" not in repr(record)
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.frozen = True  # type: ignore[misc]


@pytest.mark.parametrize(
    "members",
    [
        {"scopes": frozenset()},
        {"ip_allowlist": ()},
        {"secret": None},
        {"public_key": b"der"},
        {"algorithm": Algorithm.ED25519},
        {"algorithm": Algorithm.ED25519, "public_key": b"der"},
        {"algorithm": Algorithm.RSA_SHA256, "secret": None},
    ],
    ids=str,
)
def test_a_record_that_could_not_have_been_issued_is_refused(members):
    with pytest.raises(ValueError):
        a_record(**members)
