"""One version of the configuration, as compiled by the parent and as received by a worker."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from gateway.admission.routes import RouteTable
from gateway.config import plain
from gateway.errors import ConfigError, ConfigProblem

if TYPE_CHECKING:
    from gateway.config.settings import GatewaySettings


class Configuration(NamedTuple):
    """One version of the configuration."""

    settings: "GatewaySettings"
    routes: RouteTable
    version: str
    """Short hash of the settings and their certificates; without the stores and the vault, so that it depends on no secret."""
    serialized: dict[str, Any]
    """The settings for a worker, secrets included."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.version!r})"  # the settings contain secrets in the clear

    @classmethod
    def of(cls, settings: "GatewaySettings", routes: RouteTable) -> Self:
        """Create a version from validated settings.

        :raises ConfigError: a certificate cannot be read
        """
        written: dict[str, Any] = plain.serialize(settings)
        return cls(settings, routes, _version(settings, written), written)

    @classmethod
    def received(cls, written: dict[str, Any]) -> Self:
        """A worker's version, from the parent's data. The hash differs if a certificate file was replaced in between.

        :raises ConfigError: a certificate cannot be read
        """
        settings: GatewaySettings = plain.deserialize(written)
        routes = RouteTable.compile(settings.routes, settings.methods)
        return cls(settings, routes, _version(settings, written), written)


def _version(settings: "GatewaySettings", written: dict[str, Any]) -> str:
    public = {section: values for section, values in written["section"].items() if section not in ("stores", "vault")}
    digest = hashlib.sha256(json.dumps(public, sort_keys=True).encode())
    for path in _files(settings):
        try:
            digest.update(path.read_bytes())
        except OSError as error:  # it was readable a moment ago
            raise ConfigError([ConfigProblem("", f"{path}: {error.strerror}")]) from None
    return digest.hexdigest()[:12]


def _files(settings: "GatewaySettings") -> list[Path]:
    """Files whose content is part of the configuration: certificates and authorities, but not private keys."""
    tls = settings.listen.tls
    authorities = [upstream.tls.ca for upstream in settings.upstreams.values() if upstream.tls is not None and upstream.tls.ca is not None]
    return ([tls.certificate] if tls is not None else []) + authorities
