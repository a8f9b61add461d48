"""What the guide states about the gateway, read from the gateway's configuration file: routes, limits, dialects. No secret is read."""

from pathlib import Path
from typing import Any

from pydantic import Field

from gateway.config.fields import Section
from gateway.config.loading import read, validate
from gateway.config.settings import Auth, Gateway, Limits, MethodConfig, RouteConfig, Tier


class GateFacts(Section):
    """The sections of ``gateway.toml`` that customers may know."""

    gateway: Gateway = Gateway()
    auth: Auth = Auth()
    limits: Limits = Limits()
    upstreams: dict[str, Any] = Field(default_factory=dict)
    """Names alone are used: routes are checked against them."""
    routes: tuple[RouteConfig, ...] = ()
    tiers: dict[str, Tier] = Field(default_factory=dict)
    methods: dict[str, dict[str, MethodConfig]] = Field(default_factory=dict)


def read_facts(path: Path) -> GateFacts:
    """Stores, vault and the rest are neither resolved nor looked at: this process need not be able to read them.

    :raises ConfigError: the file cannot be read, or what is used of it is wrong
    """
    return validate(read(path, only=frozenset(GateFacts.model_fields)), GateFacts)
