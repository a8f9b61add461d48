"""Configuration files for tests."""

import pytest

from gateway.config.loading import load
from gateway.config.settings import GatewaySettings
from gateway.errors import ConfigError

MINIMAL = """
[stores]
postgres = "postgresql://gate@db/gerbang"
redis = "redis://127.0.0.1"
[vault]
keys = "k1:c2VjcmV0"
"""


def problems_of(path):
    with pytest.raises(ConfigError) as raised:
        load(path, GatewaySettings)
    return {problem.path: problem.message for problem in raised.value.problems}
