"""The reporter's public keys: fetched, kept, and asked for again, not too often."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from admin.api.reporters import ReporterKeys
from admin.config import Leaks
from admin.errors import ServiceUnavailable

PEM = generate_private_key(SECP256R1()).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
DOCUMENT = json.dumps({"public_keys": [{"key_identifier": "k1", "key": PEM}]}).encode()


@pytest.fixture
def reporter(monkeypatch):
    """Keys whose fetch a test scripts: ``answers`` are given one after the other, the last one for ever; ``asked`` counts."""
    keys: Any = ReporterKeys(None, Leaks(keys_url="http://127.0.0.1:9/keys"))
    keys.answers, keys.asked, keys.takes_ms, keys.clock_ms = [DOCUMENT], 0, 0, 0

    async def fetch():
        keys.asked += 1
        await asyncio.sleep(0)
        keys.clock_ms += keys.takes_ms
        answer = keys.answers[0] if len(keys.answers) == 1 else keys.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(keys, "_fetch", fetch)
    monkeypatch.setattr("gateway.runtime.clock.monotonic_ms", lambda: keys.clock_ms)
    return keys


async def verify(keys, name="k1", now_ms=0):
    return await keys.verifies(b"[]", identifier=name, signature="", now_ms=now_ms)


async def test_keys_are_read_once_and_an_invented_name_asks_again_at_most_every_half_minute(reporter):
    steps = (("k1", 0, 1), ("k1", 10, 1), ("odd", 29_999, 1), ("odd", 30_000, 2), ("odd2", 30_001, 2), ("k1", 70_000, 2))
    for name, now_ms, asked in steps:
        assert not await verify(reporter, name, now_ms)
        assert reporter.asked == asked


async def test_an_invented_name_costs_as_much_as_a_known_one(reporter, monkeypatch):
    verified = []

    class Nobody:
        def verify(self, *arguments):
            verified.append(arguments)

    monkeypatch.setattr(reporter, "_decoy_key", Nobody())
    assert not await reporter.verifies(b"[]", identifier="odd", signature="AAAA", now_ms=0), "even when its signature verifies"
    assert [(signature, data) for signature, data, _ in verified] == [(bytes(3), b"[]")]


async def test_who_waited_behind_a_reporter_that_hangs_does_not_ask_it_again_and_the_pause_begins_at_the_end(reporter):
    reporter.answers, reporter.takes_ms = [aiohttp.ClientError()], 5_000
    outcomes = await asyncio.gather(*(verify(reporter, now_ms=number) for number in range(10)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {ServiceUnavailable}
    assert reporter.asked == 1
    for now_ms, asked in ((5_999, 1), (6_000, 2)):
        with pytest.raises(ServiceUnavailable):
            await verify(reporter, now_ms=now_ms)
        assert reporter.asked == asked
