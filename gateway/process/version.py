"""One version of the configuration, as the parent compiled it and as a worker takes it over."""

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
    """Short hash of the settings and of the certificates they name; not of the stores and the vault, so it reveals nothing of a secret."""
    handed_over: dict[str, Any]
    """The settings for a worker, secrets included."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.version!r})"  # secrets are in the clear in what is handed over

    @classmethod
    def of(cls, settings: "GatewaySettings", routes: RouteTable) -> Self:
        """Of settings that have been validated.

        :raises ConfigError: a certificate cannot be read
        """
        written = plain.handed_over(settings)
        return cls(settings, routes, _version(settings, written), written)

    @classmethod
    def taken_over(cls, written: dict[str, Any]) -> Self:
        """A worker's, of what the parent has handed over. Its version differs when a certificate's file was replaced in between.

        :raises ConfigError: a certificate cannot be read
        """
        settings = plain.taken_over(written)
        routes = RouteTable.compile(settings.routes, settings.methods)
        return cls(settings, routes, _version(settings, written), written)


def _version(settings: "GatewaySettings", written: dict[str, Any]) -> str:
    public = {section: values for section, values in written["section"].items() if section not in ("stores", "vault")}
    digest = hashlib.sha256(json.dumps(public, sort_keys=True).encode())
    for path in _files(settings):
        try:
            digest.update(path.read_bytes())
        except OSError as error:  # it could be read a moment ago
            raise ConfigError([ConfigProblem("", f"{path}: {error.strerror}")]) from None
    return digest.hexdigest()[:12]


def _files(settings: "GatewaySettings") -> list[Path]:
    """Files whose content is part of the configuration: public certificates and authorities, and keys only by the certificate they fit."""
    tls = settings.listen.tls
    authorities = [upstream.tls.ca for upstream in settings.upstreams.values() if upstream.tls is not None and upstream.tls.ca is not None]
    return ([tls.certificate] if tls is not None else []) + authorities
