"""A version of the configuration, on both sides of the channel to a worker."""

import json

from gateway.admission.routes import RouteTable
from gateway.config.settings import GatewaySettings
from gateway.process.version import Configuration

SETTINGS = GatewaySettings.model_validate(
    {"stores": {"postgres": "postgresql://gate:hunter2@db/gerbang", "redis": "redis://127.0.0.1"}, "vault": {"keys": "k1:hunter2"}}
)


def test_a_worker_has_the_same_version_and_neither_side_shows_a_secret():
    ours = Configuration.of(SETTINGS, RouteTable.compile(SETTINGS.routes, SETTINGS.methods))
    theirs = Configuration.received(json.loads(json.dumps(ours.serialized)))
    assert theirs.version == ours.version
    for each in (ours, theirs):
        assert ours.version in repr(each)
        assert "hunter2" not in f"{each!r} {each}"
