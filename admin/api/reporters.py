"""Public keys that verify reports of leaked secrets: fetched, cached, and fetched again when they rotate.

The form is that of GitHub's secret scanning: ``{"public_keys": [{"key_identifier", "key": PEM, …}]}``; ECDSA on P-256 with SHA-256.
"""

import asyncio
import base64
import binascii
import json

import aiohttp
import structlog
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from admin.config import Leaks
from admin.errors import ServiceUnavailable
from admin.outbound import read_to_end
from gateway.runtime import clock

_MAX_DOCUMENT = 262_144
_REFETCH_AFTER_MS = 30_000
_RETRY_AFTER_MS = 1_000
"""Interval between attempts while there are no keys."""
_MAX_SIGNATURE = 200
_log = structlog.get_logger(__name__)


class ReporterKeys:
    """Verifies reports. Times are monotonic milliseconds."""

    def __init__(self, http: aiohttp.ClientSession, settings: Leaks) -> None:
        self._http = http
        self._settings = settings
        self._keys: dict[str, EllipticCurvePublicKey] = {}
        self._decoy_key = generate_private_key(SECP256R1()).public_key()
        self._not_before_ms = 0
        self._fetched_ms = 0
        self._refreshing = asyncio.Lock()

    async def verifies(self, body: bytes, *, identifier: str, signature: str, now_ms: int) -> bool:
        """Whether the body was signed by the named key. An unknown name takes as long as a verification.

        :raises ServiceUnavailable: no key could be fetched yet
        """
        if identifier not in self._keys or now_ms - self._fetched_ms >= self._settings.keys_ttl_ms:
            await self._refresh(now_ms)
        if not self._keys:
            raise ServiceUnavailable("The reporter's public keys are unavailable: retry later.", headers=((b"Retry-After", b"30"),))
        key = self._keys.get(identifier)
        try:
            decoded = base64.b64decode(signature[:_MAX_SIGNATURE], validate=True)
            (key or self._decoy_key).verify(decoded, body, ECDSA(SHA256()))
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return key is not None

    async def _refresh(self, now_ms: int) -> None:
        """Fetch the keys, once for all waiting requests; at most every half minute, because anyone can invent key names."""
        async with self._refreshing:
            if now_ms < self._not_before_ms:
                return
            began_ms = clock.monotonic_ms()
            try:
                self._keys, self._fetched_ms = _read(await self._fetch()), now_ms
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError, RecursionError) as error:
                _log.warning("leak_reporter_keys_unusable", error=type(error).__name__, keys_kept=len(self._keys))
            # Measured from the end of the attempt, so that requests that waited for a hanging server do not retry one by one.
            pause_ms = _REFETCH_AFTER_MS if self._keys else _RETRY_AFTER_MS
            self._not_before_ms = now_ms + clock.monotonic_ms() - began_ms + pause_ms

    async def _fetch(self) -> bytes:
        """:raises ValueError: the status is not 200

        :raises aiohttp.ClientError: no answer, or it is too large
        """
        timeout = aiohttp.ClientTimeout(total=self._settings.timeout_ms / 1000)
        async with self._http.get(self._settings.keys_url, allow_redirects=False, timeout=timeout) as response:
            if response.status != 200:
                raise ValueError("not an answer")
            return await read_to_end(response, _MAX_DOCUMENT)


def _read(document: bytes) -> dict[str, EllipticCurvePublicKey]:
    """:raises ValueError: there is no usable key"""
    parsed = json.loads(document)
    published = parsed.get("public_keys") if isinstance(parsed, dict) else None
    keys: dict[str, EllipticCurvePublicKey] = {}
    for item in published if isinstance(published, list) else []:
        if not isinstance(item, dict) or not isinstance(item.get("key"), str) or not isinstance(item.get("key_identifier"), str):
            continue
        try:
            key = load_pem_public_key(item["key"].encode())
        except (ValueError, UnsupportedAlgorithm):
            continue
        if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
            keys[item["key_identifier"]] = key
    if not keys:
        raise ValueError("no usable key")
    return keys
