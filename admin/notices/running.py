"""Starts and stops the notification sender with the configuration in force."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from admin.config import AdminSettings
from admin.notices.delivery import Route
from admin.notices.mail import MailChannel
from admin.notices.sender import Sender
from admin.notices.watch import Watch
from admin.notices.webhooks import WebhookChannel, key_ended
from admin.outbox import upstream_channel
from admin.stores import Stores
from gateway.keys import reseal
from gateway.keys.vault import Vault
from gateway.runtime.tasks import cancel, spawn

_USES_S, _ENDS_S = 5.0, 10.0  # intervals between checks of the gateways' counts, and of keys' ends
_DIGESTS_S = 3_600.0  # an older version running in parallel may still create secrets without a digest


@asynccontextmanager
async def sending(settings: AdminSettings, stores: Stores, vault: Vault, http: aiohttp.ClientSession) -> AsyncIterator[None]:
    """Send notifications until the end of the block."""

    async def fill_digests(_now_ms: int) -> None:
        async with stores.pool.acquire() as connection:
            await reseal.fill_digests(connection, vault)

    routes: list[Route] = []
    if settings.mail is not None:
        routes.append(
            MailChannel(settings.mail, site_name=settings.pages.site_name, public_url=settings.public_url, notify=settings.internal.notify)
        )
    if settings.webhooks is not None:
        routes.append(WebhookChannel(settings.webhooks, http))
    for name, upstream in settings.upstreams.items():
        routes.append(WebhookChannel(upstream, http, channel=upstream_channel(name), content=key_ended, id_suffix="_ended"))
    watch = Watch(stores, settings.keys)
    chores = ((_USES_S, watch.uses), (_ENDS_S, watch.expiries), (_ENDS_S, watch.unused), (_DIGESTS_S, fill_digests))
    sender = Sender(stores, settings.stores.postgres.get_secret_value(), routes, chores, upstreams=list(settings.upstreams))
    task = spawn(sender.run(), name="notices")
    try:
        yield
    finally:
        await cancel(task)
