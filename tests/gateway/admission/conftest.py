"""What the tests of admission share."""

import pytest

from gateway.admission import limits, replay
from gateway.keys import redis_client


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """A busy test machine is no outage of Redis. Tests of outages set times of their own."""
    for module in (limits, replay):
        monkeypatch.setattr(module, "TIMEOUT_SECONDS", 20.0)
    monkeypatch.setattr(redis_client, "COMMAND_SECONDS", 20.0)
    monkeypatch.setattr(redis_client, "CONNECT_SECONDS", 20.0)
