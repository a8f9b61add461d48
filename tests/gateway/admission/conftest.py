"""What the tests of admission share."""

import pytest

from gateway.admission import limits, replay


@pytest.fixture(autouse=True)
def patience(monkeypatch, patient_with_redis):
    """A busy test machine is no outage of Redis. Tests of outages set times of their own."""
    for module in (limits, replay):
        monkeypatch.setattr(module, "TIMEOUT_SECONDS", 20.0)
