"""The parts of the gateway's configuration that the guide documents: routes, limits, dialects. No secret is read."""

from pathlib import Path
from typing import Any

from pydantic import Field

from gateway.config.fields import Section
from gateway.config.loading import read, validate
from gateway.config.settings import Auth, Gateway, Limits, RouteConfig, Rule, Tier


class GateFacts(Section):
    """The sections of ``gateway.toml`` that customers may know."""

    gateway: Gateway = Gateway()
    auth: Auth = Auth()
    limits: Limits = Limits()
    upstreams: dict[str, Any] = Field(default_factory=dict)
    """Only the names are used, to check the routes."""
    routes: tuple[RouteConfig, ...] = ()
    tiers: dict[str, Tier] = Field(default_factory=dict)
    methods: dict[str, dict[str, Rule]] = Field(default_factory=dict)


def read_facts(path: Path) -> GateFacts:
    """Read these sections. References in others (stores, vault) are not resolved, since this process may not be able to read them.

    :raises ConfigError: the file cannot be read, or one of these sections is invalid
    """
    return validate(read(path, only=frozenset(GateFacts.model_fields)), GateFacts)
