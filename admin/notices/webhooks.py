"""Delivery by webhook, signed per Standard Webhooks (https://www.standardwebhooks.com)."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import aiohttp
from standardwebhooks.webhooks import Webhook

from admin.config import Webhooks
from admin.notices.delivery import ChannelDown, Deliver, NotDelivered
from admin.outbox import ENDS, Channel, Pending
from gateway.keys.ids import masked
from gateway.runtime.moments import rfc3339

_MEMBERS_MS = {"expires_at_ms": "expires_at", "ends_at_ms": "ends_at"}


class WebhookChannel:
    """A :class:`~admin.notices.delivery.Route`. Any answer of 2xx is a delivery; redirects are not followed.

    :param content: renders a notice's payload
    :param id_suffix: appended to the notice's id, so that no two messages with different content have the same ``webhook-id``
    """

    def __init__(
        self,
        settings: Webhooks,
        http: aiohttp.ClientSession,
        *,
        channel: str = Channel.WEBHOOK,
        content: Callable[[Pending], dict[str, object]] | None = None,
        id_suffix: str = "",
    ) -> None:
        self.channel = channel
        self._id_suffix = id_suffix
        self._content = content or payload
        self._url = settings.url
        self._signer = Webhook(settings.secret.get_secret_value())
        self._http = http
        self._timeout = aiohttp.ClientTimeout(total=settings.timeout_ms / 1000)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Deliver]:
        yield self._deliver

    async def _deliver(self, notice: Pending, now_ms: int) -> None:
        body = json.dumps(self._content(notice), ensure_ascii=False, separators=(",", ":"))
        id_ = notice.id + self._id_suffix
        headers = {
            "Content-Type": "application/json",
            "webhook-id": id_,
            "webhook-timestamp": str(now_ms // 1000),
            "webhook-signature": self._signer.sign(id_, datetime.fromtimestamp(now_ms // 1000, UTC), body),
        }
        try:
            async with self._http.post(
                self._url, data=body.encode(), headers=headers, timeout=self._timeout, allow_redirects=False
            ) as response:
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ChannelDown(type(error).__name__) from None
        if status == 429 or status >= 500:
            raise ChannelDown(f"answered {status}")
        if not 200 <= status < 300:
            raise NotDelivered(f"answered {status}")


def payload(notice: Pending) -> dict[str, object]:
    """``{"type", "timestamp", "data": {"account_id", "key_id"?, …}}``; the key id is masked."""
    data: dict[str, object] = {"account_id": notice.account_id}
    if notice.key_id is not None:
        data["key_id"] = masked(notice.key_id)
    for name, value in notice.detail.items():
        if name in _MEMBERS_MS and isinstance(value, int):
            data[_MEMBERS_MS[name]] = rfc3339(value)
        else:
            data[name] = value
    return {"type": notice.topic.value, "timestamp": rfc3339(notice.at_ms), "data": data}


def key_ended(notice: Pending) -> dict[str, object]:
    """The event for an upstream: ``{"type": "key.ended", "timestamp", "data": {"account_id", "key_id", "cause"}}``.

    The key id is whole, as in ``X-Key-Id`` of its requests; ``None``: every key of the account.
    """
    data = {"account_id": notice.account_id, "key_id": notice.key_id, "cause": ENDS[notice.topic]}
    return {"type": "key.ended", "timestamp": rfc3339(notice.at_ms), "data": data}
