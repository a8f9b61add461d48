"""Sessions on real Redis: what lives, what is over, and what Redis itself must not be able to do."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import redis.asyncio

from admin.identity.caller import Caller, Kyc
from admin.identity.sessions import SessionStore, digest, new_token
from gateway.errors import StoreUnavailable
from gateway.keys.vault import Vault, new_entry

NOW = 1_700_000_000_000
IDLE = 600_000
ABSOLUTE = 3_600_000
CALLER = Caller(account_id="budi", email="budi@example.com", kyc=Kyc.VERIFIED, authenticated_ms=NOW - 5, issued_ms=NOW - 3)


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def store(client) -> SessionStore:
    return SessionStore(client, Vault.parse(new_entry("k1")), idle_ms=IDLE, absolute_ms=ABSOLUTE)


async def test_a_session_is_found_by_its_cookie_alone(store):
    token, session = await store.open(CALLER, NOW)
    found = await store.find(token, NOW + 1)
    assert found == session
    assert found.caller == Caller(
        account_id="budi",
        email="budi@example.com",
        kyc=Kyc.VERIFIED,
        authenticated_ms=NOW - 5,
        issued_ms=NOW - 3,
        session_id=session.caller.session_id,
    )
    for other in ("", "x", new_token(), token[:-1], token + "A", token + "\n", "gerbang:*"):
        assert await store.find(other, NOW + 1) is None


async def test_an_idle_session_is_over(store):
    token, _ = await store.open(CALLER, NOW)
    assert await store.find(token, NOW + IDLE - 1) is not None
    assert await store.find(token, NOW + IDLE - 1 + IDLE) is None


async def test_use_keeps_a_session_alive_but_not_beyond_the_absolute_limit(store):
    token, _ = await store.open(CALLER, NOW)
    for at in range(NOW, NOW + ABSOLUTE, IDLE // 2):
        assert await store.find(token, at) is not None
    assert await store.find(token, NOW + ABSOLUTE - 1) is not None
    assert await store.find(token, NOW + ABSOLUTE) is None


async def test_redis_forgets_a_session_by_itself(store, client):
    await store.open(CALLER, NOW)
    (key,) = await client.keys("gerbang:session:*")
    assert 0 < await client.pttl(key) <= IDLE
    (key,) = await client.keys("gerbang:sessions:*")
    assert 0 < await client.pttl(key) <= ABSOLUTE


async def test_a_rotated_cookie_kills_the_old_one_and_keeps_what_challenges_are_bound_to(store):
    token, session = await store.open(CALLER, NOW)
    fresh = await store.rotate(token, session, NOW + 10)
    assert await store.find(token, NOW + 11) is None
    found = await store.find(fresh, NOW + 11)
    assert (found.caller.session_id, found.csrf_token, found.created_ms) == (session.caller.session_id, session.csrf_token, NOW)


async def test_a_closed_session_does_not_come_back_by_a_request_that_was_under_way(store):
    token, session = await store.open(CALLER, NOW)
    await store.close(token)
    await store._write(token, session, NOW + 60_000, only_existing=True)  # noqa: SLF001  # what that request writes at its end
    assert await store.find(token, NOW + 60_001) is None


@pytest.mark.parametrize("renew", ["rotate", "keep"])
async def test_a_closed_session_does_not_come_back_by_a_proof_that_was_under_way(store, client, renew):
    token, session = await store.open(CALLER, NOW)
    await store.close(token)
    assert await getattr(store, renew)(token, session, NOW + 1) is None
    assert await client.keys("gerbang:session:*") == []


async def test_of_two_proofs_at_once_one_gives_the_session_its_new_cookie(store, client):
    token, session = await store.open(CALLER, NOW)
    fresh = [each for each in await asyncio.gather(*(store.rotate(token, session, NOW + 1) for _ in range(5))) if each is not None]
    assert len(fresh) == 1
    assert await store.find(fresh[0], NOW + 2) is not None
    assert len(await client.keys("gerbang:session:*")) == 1


async def test_redis_holds_neither_cookies_nor_readable_sessions(store, client):
    token, session = await store.open(CALLER, NOW)
    indexes = await client.keys("gerbang:sessions:*")
    dump = b"".join([key + b"".join(await client.zrange(key, 0, -1)) for key in indexes])
    dump += b"".join([key + await client.get(key) for key in await client.keys() if key not in indexes])
    for secret in (token, session.csrf_token, session.caller.session_id, "budi"):
        assert secret.encode() not in dump


async def test_who_can_write_to_redis_can_make_no_session(store, client):
    token, _ = await store.open(CALLER, NOW)
    (key,) = await client.keys("gerbang:session:*")
    sealed = await client.get(key)
    foreign = SessionStore(client, Vault.parse(new_entry("k2")), idle_ms=IDLE, absolute_ms=ABSOLUTE)
    foreign_token, _ = await foreign.open(CALLER, NOW)
    assert await store.find(foreign_token, NOW) is None, "sealed by another vault"
    others_token, _ = await store.open(replace(CALLER, account_id="siti"), NOW)
    for name in await client.keys("gerbang:session:*"):
        await client.set(name, sealed)
    assert await store.find(others_token, NOW) is None, "budi's record under the key of siti's session"
    for forged in (b"", b"{}", sealed[:-1], bytes(100)):
        await client.set(key, forged)
        assert await store.find(token, NOW) is None


async def test_without_redis_every_call_says_so(own_redis):
    async with redis.asyncio.Redis.from_url(own_redis.url) as client:
        store = SessionStore(client, Vault.parse(new_entry("k1")), idle_ms=IDLE, absolute_ms=ABSOLUTE)
        token, session = await store.open(CALLER, NOW)
        own_redis.stop()
        for call in (
            store.find(token, NOW),
            store.open(CALLER, NOW),
            store.rotate(token, session, NOW),
            store.close(token),
            store.of_account("budi", NOW),
        ):
            with pytest.raises(StoreUnavailable):
                await call


async def test_an_accounts_sessions_are_listed_as_they_stand_and_no_other_accounts(store):
    first, phone = await store.open(CALLER, NOW, client_ip="8.8.8.8", device="Chrome · Android")
    _, laptop = await store.open(CALLER, NOW + 1)
    others, _ = await store.open(replace(CALLER, account_id="siti"), NOW)
    listed = await store.of_account("budi", NOW + 2)
    assert listed == [laptop, phone]
    assert (listed[1].client_ip, listed[1].device) == ("8.8.8.8", "Chrome · Android")
    second = await store.rotate(first, phone, NOW + 3)
    assert [each.caller.session_id for each in await store.of_account("budi", NOW + 3)] == [
        phone.caller.session_id,
        laptop.caller.session_id,
    ], "each once"
    await store.close(second)
    assert await store.of_account("budi", NOW + 4) == [laptop]
    assert await store.of_account("budi", NOW + IDLE + 1) == []
    await store.close(others)
    assert await store.of_account("siti", NOW) == await store.of_account("nobody", NOW) == []


async def test_what_somebody_writes_into_the_list_is_not_shown(store, client):
    _, mine = await store.open(CALLER, NOW)
    await store.open(replace(CALLER, account_id="siti"), NOW)
    mine_index, others_index = sorted(
        await client.keys("gerbang:sessions:*"), key=lambda key: key != f"gerbang:sessions:{digest('budi')}".encode()
    )
    (stolen,) = await client.zrange(others_index, 0, -1)
    await client.zadd(mine_index, {stolen: NOW + ABSOLUTE, b"x": NOW + ABSOLUTE, b"\xff": NOW + ABSOLUTE})
    assert await store.of_account("budi", NOW) == [mine]


async def test_the_session_that_is_kept_stands_when_all_others_are_ended(store):
    token, session = await store.open(CALLER, NOW)
    other, _ = await store.open(CALLER, NOW)
    kept = await store.find(await store.keep(token, session, NOW + 5), NOW + 6)
    assert await store.find(token, NOW + 6) is None, "under a new cookie"
    ended = await store.find(other, NOW + 6)
    assert (kept.caller.stands_since_ms, ended.caller.stands_since_ms) == (NOW + 6, CALLER.issued_ms)
    assert kept.caller.issued_ms == CALLER.issued_ms, "its claims are no newer than they were"
