"""What a worker is handed is what the parent validated: the same values under the same names, without pydantic."""

import json
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from gateway.config.fields import Section
from gateway.config.plain import Hidden, deserialize, serialize
from gateway.config.settings import GatewaySettings

SPARE: dict[str, Any] = {
    "stores": {"postgres": "postgresql://gate:hunter2@db/gerbang", "redis": "redis://127.0.0.1"},
    "vault": {"keys": "k1:hunter2"},
}
FULL: dict[str, Any] = {
    **SPARE,
    "gateway": {"docs_url": "https://example.com/docs", "cors": ["https://app.example.com"]},
    "listen": {"public": "[::1]:8080", "workers": 2, "tls": {"certificate": "c.pem", "key": "/k.pem"}},
    "client_ip": {"trusted_proxies": ["10.0.0.0/8", "2001:db8::/32"], "proxy_protocol": True, "proxy_peers": ["192.0.2.0/24"]},
    "auth": {"dialects": ["binance"], "path_dialects": {"/api": "binance"}, "enforce": "shadow"},
    "limits": {"per_key": "10/second", "per_account": "7/day"},
    "tiers": {"pro": {"per_key": "6000/minute"}},
    "assertion": {"keys": "keys"},
    "telemetry": {"access_log": 0.5, "traces": "http://127.0.0.1:4318/v1/traces"},
    "upstreams": {
        "spot": {"servers": ["http://127.0.0.1:9001"], "health": {"path": "/health"}},
        "far": {"servers": ["https://spot.example.com"], "tls": {"ca": "ca.pem", "server_name": "spot"}},
    },
    "methods": {"m": {"order.place": {"scope": "trade"}, "account.status": {"scope": "read", "replay": "strict"}}},
    "routes": [
        {"match": "GET /a", "scope": "public", "upstream": "spot", "maintenance": "Back at ten"},
        {"match": "POST /b", "scope": "trade", "upstream": "far", "weight": 5},
        {"match": "GET /ws", "scope": "public", "upstream": "spot", "websocket": "binance", "methods": "m", "dialect": "binance"},
    ],
}


def as_a_worker_has_it(settings: GatewaySettings) -> GatewaySettings:
    return deserialize(json.loads(json.dumps(serialize(settings))))


def compare(given: Any, taken: Any, where: str) -> None:
    """Every field and every property of every section, of one type and one value."""
    if isinstance(given, BaseModel):
        assert type(taken).__name__ == "Section", where
        ours = [vars(each) for each in type(given).__mro__ if issubclass(each, Section)]
        properties = {name for each in ours for name, found in each.items() if isinstance(found, property)}
        for name in {*type(given).model_fields, *properties}:
            compare(getattr(given, name), getattr(taken, name), f"{where}.{name}")
    elif isinstance(given, SecretStr):
        assert taken.get_secret_value() == given.get_secret_value(), where
    else:
        assert type(taken) is type(given), where
        if isinstance(given, dict):
            assert list(taken) == list(given), where
            for key, item in given.items():
                compare(item, taken[key], f"{where}.{key}")
        elif type(given) is tuple:
            assert len(taken) == len(given), where
            for index, item in enumerate(given):
                compare(item, taken[index], f"{where}[{index}]")
        else:
            assert taken == given, where


@pytest.mark.parametrize("values", [SPARE, FULL])
def test_a_worker_has_every_setting_as_it_was_validated(values):
    settings = GatewaySettings.model_validate(values)
    compare(settings, as_a_worker_has_it(settings), "settings")


def test_what_differs_in_a_section_is_seen():
    rates = ("1/second", "1/second", "2/second")
    before, same, after = (as_a_worker_has_it(GatewaySettings.model_validate({**FULL, "limits": {"per_key": rate}})) for rate in rates)
    assert before == same
    assert before != after
    assert before.upstreams == after.upstreams
    assert before.limits != after.limits


def test_settings_do_not_change():
    settings = as_a_worker_has_it(GatewaySettings.model_validate(FULL))
    with pytest.raises(AttributeError):
        settings.limits.max_connections = 1  # type: ignore[misc]


def test_a_secret_is_not_shown():
    assert "hunter2" not in repr(as_a_worker_has_it(GatewaySettings.model_validate(FULL)))
    assert Hidden("a") == Hidden("a")
    assert Hidden("a") != Hidden("b")
