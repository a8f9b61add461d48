"""Differences of settings: told by key path, without a secret."""

import json
from typing import Any

import pytest

from gateway.config.changes import Change, changes, needs_restart
from gateway.config.settings import GatewaySettings

BASE: dict[str, Any] = {
    "stores": {"postgres": "postgresql://gate:hunter2@db/gerbang", "redis": "redis://127.0.0.1"},
    "vault": {"keys": "k1:hunter2"},
    "upstreams": {"spot": {"servers": ["http://127.0.0.1:9001"]}},
    "routes": [{"match": "GET /a", "scope": "public", "upstream": "spot"}, {"match": "GET /b", "scope": "read", "upstream": "spot"}],
}


def settings(**sections):
    return GatewaySettings.model_validate({**BASE, **sections})


def test_equal_settings_have_no_changes():
    assert changes(settings(), settings()) == []


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"limits": {"per_key": "10/second"}}, [Change("changed", "limits.per_key", "1200/minute", "10/second")]),
        ({"client_ip": {"trusted_proxies": ["10.0.0.0/8"]}}, [Change("changed", "client_ip.trusted_proxies", [], ["10.0.0.0/8"])]),
        ({"listen": {"public": "127.0.0.1:1"}}, [Change("changed", "listen.public", "0.0.0.0:8080", "127.0.0.1:1")]),
        ({"vault": {"keys": "k2:hunter3"}}, [Change("changed", "vault.keys", "***", "***")]),
        ({"routes": BASE["routes"][::-1]}, []),
        ({"routes": BASE["routes"][1:]}, [Change("removed", "routes[GET /a]", None, None)]),
        (
            {"routes": [{"match": "GET /0", "scope": "any", "upstream": "spot"}, *BASE["routes"]]},
            [Change("added", "routes[GET /0]", None, None)],
        ),
        (
            {"routes": [{**BASE["routes"][0], "weight": 5}, BASE["routes"][1]]},
            [Change("changed", "routes[GET /a].weight", 1, 5)],
        ),
        (
            {"upstreams": {"spot": {"servers": ["http://127.0.0.1:9002"]}, "futures": {"servers": ["http://127.0.0.1:1"]}}},
            [
                Change("changed", "upstreams.spot.servers", ["http://127.0.0.1:9001"], ["http://127.0.0.1:9002"]),
                Change("added", "upstreams.futures", None, None),
            ],
        ),
        (
            {"upstreams": {"spot": {**BASE["upstreams"]["spot"], "health": {"path": "/health"}}}},
            [Change("changed", "upstreams.spot.health", None, {"path": "/health", "interval_ms": 2000, "timeout_ms": 1000})],
        ),
    ],
)
def test_a_difference_is_told_by_its_path(sections, expected):
    assert changes(settings(), settings(**sections)) == expected


def test_no_secret_is_told():
    found = changes(
        settings(), settings(stores={"postgres": "postgresql://u:hunter4@db/x", "redis": "redis://x"}, vault={"keys": "a:hunter5"})
    )
    assert "hunter" not in json.dumps(found)
    assert len(found) == 3


def test_what_needs_a_restart_is_named():
    found = changes(
        settings(), settings(listen={"workers": 2}, stores={**BASE["stores"], "redis": "redis://other"}, limits={"per_key": "1/day"})
    )
    assert needs_restart(found) == ["listen.workers", "stores.redis"]
    peers = {"proxy_peers": ["10.0.0.0/8"]}
    assert needs_restart(changes(settings(client_ip=peers), settings(client_ip={**peers, "proxy_protocol": True}))) == [
        "client_ip.proxy_protocol"
    ]
    assert needs_restart(changes(settings(), settings(client_ip={"header": "Forwarded"}))) == []
    custom = {"header": "X-Our-Client"}
    found = changes(settings(client_ip=custom), settings(client_ip={**custom, "header_form": "address"}))
    assert found == [Change("changed", "client_ip.header_form", None, "address")]
    assert needs_restart(found) == []
