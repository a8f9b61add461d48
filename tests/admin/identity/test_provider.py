"""The provider's published keys: kept, read again when they rotate, never more often than allowed."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from joserfc.jwk import OctKey

from admin.config import Oidc
from admin.errors import IdentityProviderUnavailable
from admin.identity.provider import Provider
from tests.support import inside
from tests.support.issuer import AUDIENCE, Issuer, running_issuer

TTL = 60_000
REFETCH = 5_000
TIMEOUT = 1_500
START = 1_000_000


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with running_issuer() as issuer:
        yield issuer


@pytest.fixture
async def provider(issuer: Issuer) -> AsyncIterator[Provider]:
    async with aiohttp.ClientSession() as http:
        yield Provider(http, Oidc(issuer=issuer.url, audience=AUDIENCE, keys_ttl_ms=TTL, refetch_after_ms=REFETCH, timeout_ms=TIMEOUT))


def fetches(issuer: Issuer) -> int:
    return issuer.requests.count("/jwks")


async def test_keys_are_read_once_and_kept(issuer: Issuer, provider: Provider) -> None:
    for later in range(0, TTL, 10_000):
        assert [key.kid for key in await provider.keys("first", START + later)] == ["first"]
    assert fetches(issuer) == 1


async def test_keys_are_read_again_after_their_time(issuer: Issuer, provider: Provider) -> None:
    await provider.keys("first", START)
    issuer.keys_read.clear()
    await provider.keys("first", START + TTL)
    await issuer.keys_read.wait()
    assert fetches(issuer) == 2


async def test_what_is_cached_serves_while_a_provider_hangs_which_is_asked_once_and_left_alone_after(
    issuer: Issuer, provider: Provider
) -> None:
    """Every call here would wait for the provider, which answers nobody before the end."""
    await provider.keys("first", START)
    issuer.hangs.clear()
    asked = len(issuer.requests)
    for later in (*range(TTL, TTL + 900, 30), 2 * TTL, 3 * TTL, 3 * TTL + 1):
        assert await provider.keys("first", START + later)
        assert (await provider.discovery(START + later)).issuer == issuer.url
    assert len(issuer.requests) == asked + 1, "one attempt is under way, and nobody begins another"
    attempt = inside.attempt(provider)
    assert attempt is not None
    await asyncio.wait([attempt])
    ended_ms = inside.attempted_ms(provider)
    assert ended_ms is not None
    assert ended_ms >= START + TTL + TIMEOUT, "the back-off counts from the attempt's end"
    assert await provider.keys("first", ended_ms + 900)
    assert inside.attempt(provider) is None
    issuer.hangs.set()
    issuer.keys_read.clear()
    assert await provider.keys("first", ended_ms + 1_000)
    await issuer.keys_read.wait()


async def test_strangers_names_of_keys_do_not_queue_behind_a_provider_that_hangs(issuer: Issuer, provider: Provider) -> None:
    await provider.keys("first", START)
    issuer.hangs.clear()
    asked = len(issuer.requests)
    outcomes = await asyncio.gather(*(provider.keys(f"invented-{number}", START + REFETCH) for number in range(20)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {IdentityProviderUnavailable}
    assert len(issuer.requests) == asked + 1


async def test_keys_unused_for_long_are_read_again_before_they_count(issuer: Issuer, provider: Provider) -> None:
    await provider.keys("first", START)
    issuer.rotate("second")
    assert await provider.keys("first", START + 2 * TTL) == []


async def test_documents_in_pieces_are_read_to_their_end(issuer: Issuer, provider: Provider) -> None:
    issuer.pieces = True
    assert await provider.keys("first", START)


async def test_many_at_once_cause_one_fetch(issuer: Issuer, provider: Provider) -> None:
    found = await asyncio.gather(*(provider.keys("first", START) for _ in range(20)))
    assert all(found)
    assert fetches(issuer) == 1


async def test_a_rotated_key_is_found_at_once(issuer: Issuer, provider: Provider) -> None:
    await provider.keys("first", START)
    issuer.rotate("second")
    assert [key.kid for key in await provider.keys("second", START + REFETCH)] == ["second"]
    assert await provider.keys("first", START + REFETCH + 1) == []


async def test_invented_key_ids_cause_one_fetch_per_interval(issuer: Issuer, provider: Provider) -> None:
    await provider.keys("first", START)
    for number in range(20):
        assert await provider.keys(f"invented-{number}", START + REFETCH + number) == []
    assert fetches(issuer) == 2


async def test_a_token_without_key_id_means_the_only_key(issuer: Issuer, provider: Provider) -> None:
    assert len(await provider.keys(None, START)) == 1
    issuer.published.append({**issuer.published[0], "kid": "other"})
    assert await provider.keys(None, START + 2 * TTL) == []


async def test_known_keys_go_on_while_the_provider_is_down_but_not_for_ever(issuer: Issuer, provider: Provider) -> None:
    await provider.keys("first", START)
    issuer.fail_with = 503
    assert await provider.keys("first", START + TTL + 1)
    with pytest.raises(IdentityProviderUnavailable):
        await provider.keys("first", START + TTL + 86_400_001)


async def test_a_provider_that_comes_up_late_is_found_soon_but_not_hammered(issuer: Issuer, provider: Provider) -> None:
    issuer.fail_with = 503
    for later in range(10):
        with pytest.raises(IdentityProviderUnavailable):
            await provider.keys("first", START + later)
    assert len(issuer.requests) == 1
    issuer.fail_with = None
    assert await provider.keys("first", START + 60_000)


async def test_a_symmetric_an_encryption_and_a_broken_key_are_skipped(issuer: Issuer, provider: Provider) -> None:
    good = issuer.published[0]
    issuer.published += [
        OctKey.generate_key(256, {"kid": "shared"}).as_dict(private=True),
        {**good, "kid": "encryption", "use": "enc"},
        {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
        {"kty": "FUTURE", "kid": "unknown"},
        "not a key",
    ]
    assert [key.kid for key in await provider.keys("first", START)] == ["first"]
    for kid in ("shared", "encryption", "broken", "unknown"):
        assert await provider.keys(kid, START) == []


@pytest.mark.parametrize(
    "discovery",
    [{"issuer": "https://evil.example"}, {"jwks_uri": None}, {"jwks_uri": "file:///etc/passwd"}, {"jwks_uri": 5}],
)
async def test_a_discovery_document_that_is_not_the_issuers_is_not_used(
    issuer: Issuer, provider: Provider, discovery: dict[str, object]
) -> None:
    issuer.discovery = discovery
    with pytest.raises(IdentityProviderUnavailable):
        await provider.keys("first", START)
    assert fetches(issuer) == 0


@pytest.mark.parametrize("answer", [b"", b"not json", b"[]", b'{"keys": 5}', b'{"keys": []}', b"[" * 100_000, b" " * 300_000])
async def test_a_key_set_that_cannot_be_read_is_not_used(issuer: Issuer, provider: Provider, answer: bytes) -> None:
    issuer.answer = answer
    with pytest.raises(IdentityProviderUnavailable):
        await provider.keys("first", START)


async def test_the_login_endpoints_come_with_the_discovery(issuer: Issuer, provider: Provider) -> None:
    issuer.discovery = {"authorization_endpoint": f"{issuer.url}/authorize", "token_endpoint": "javascript:alert(1)"}
    discovery = await provider.discovery(START)
    assert discovery.authorization_endpoint == f"{issuer.url}/authorize"
    assert discovery.token_endpoint is None
