"""Diagnosis of an installation: connects to everything that a configuration names. Read-only.

Each check yields findings; if something is unavailable, its check yields only that.
"""

from admin.config import AdminSettings
from deploy.doctor import peers, stores
from deploy.doctor.findings import Finding, Findings
from deploy.doctor.proxies import proxies_as_configured
from gateway.admission.verdict import notes
from gateway.config.settings import GatewaySettings

__all__ = ["Finding", "examine"]


async def examine(settings: GatewaySettings | AdminSettings) -> Findings:
    """All findings, as they arrive."""
    async with stores.database(settings) as (connection, away):
        if connection is None:
            yield away
        else:
            checks = [stores.server(connection, settings), stores.vault(connection, settings)]
            if isinstance(settings, GatewaySettings):
                checks.insert(1, stores.role_of_gateway(connection))
            else:
                checks.insert(1, stores.role_of_admin(connection))
                checks += [stores.factors(connection, settings), stores.customers(connection, settings)]
            for check in checks:
                async for finding in check:
                    yield finding
        async for finding in stores.redis(settings, connection):
            yield finding
    yield proxies_as_configured(settings)
    if settings.listen.tls is not None:
        yield peers.certificate("listen.tls", settings.listen.tls)
    if isinstance(settings, GatewaySettings):
        for where, text in notes(settings):
            yield Finding("note", where, text)
        yield peers.assertion_keys(settings)
        for name, upstream in settings.upstreams.items():
            for server in upstream.servers:
                yield await peers.upstream_server(name, upstream, server)
    else:
        async for finding in peers.provider(settings):
            yield finding
        for about, url in peers.called(settings):
            yield await peers.reachable(about, url)
        if settings.mail is not None:
            yield await peers.mail_server(settings.mail)
