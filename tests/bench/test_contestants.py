"""tests.bench.contestants: each that is installed here answers each of its modes rightly, and does the checks that it is measured for."""

import socket
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from gateway.runtime import clock
from tests.bench import load
from tests.bench.contestants import BASELINES, Contestant
from tests.bench.gate import GATE, is_compiled
from tests.bench.load import READ_PATH, Key
from tests.bench.rounds import Running, started
from tests.support import wheel
from tests.support.lacking import lacking, needs

pytestmark = needs("nginx", "cc")
CLAIM = "nginx + Lua + claim in Redis"
ALL = [GATE, *(one.name for one in BASELINES)]
CHECKED = [GATE, CLAIM, *(one.name for one in BASELINES if "refusal" in one.modes)]


class Serving(NamedTuple):
    contestant: Contestant
    running: Running
    key: Key


@pytest.fixture(scope="module")
def serving(request, place) -> Iterator[Serving]:
    """The contestant of that name, started."""
    contestant = {one.name: one for one in (place.gate, *BASELINES)}[request.param]
    if why := contestant.missing():
        lacking(why)
    with started(contestant, place.ground) as running:
        yield Serving(contestant, running, place.ground.key)


def asked(serving: Serving, request: str) -> tuple[int, str]:
    with socket.create_connection(("127.0.0.1", serving.running.port), timeout=30) as connection:
        connection.sendall(request.replace("\r\n", "\r\nConnection: close\r\n", 1).encode())
        answer = b"".join(iter(lambda: connection.recv(65_536), b"")).decode()
    return int(answer.split()[1]), answer


def now() -> int:
    return clock.now_ms() // 1_000


@pytest.mark.parametrize("serving", ALL, indirect=True)
def test_each_answers_its_modes_as_the_load_expects(serving):
    for mode in serving.contestant.modes:
        status, answer = asked(serving, load.request(serving.key, mode, now(), 1))
        assert (mode, status) == (mode, load.expected(mode)[0])
        assert load.expected(mode)[1] in answer


@pytest.mark.parametrize("serving", CHECKED, indirect=True)
def test_each_with_checks_refuses_what_is_not_signed_rightly(serving):
    key = serving.key
    refused = {
        "unsigned": f"GET {READ_PATH} HTTP/1.1\r\nHost: gate.test\r\n\r\n",
        "too old": load.request(key, "read", now() - 60, 0),
        "of an unknown key": load.request(key._replace(key_id="gbk_nobody"), "read", now(), 0),
        "with another body": load.request(key, "trade", now(), 3).replace('"n":3', '"n":4'),
    }
    assert {what: asked(serving, request)[0] for what, request in refused.items()} == dict.fromkeys(refused, 401)


@pytest.mark.parametrize("serving", [GATE, CLAIM], indirect=True)
def test_a_claim_lets_each_signature_pass_once(serving):
    trade = load.request(serving.key, "trade", now(), 5)
    assert [asked(serving, trade)[0] for _ in range(2)] == [200, 409]


@pytest.mark.parametrize("serving", [GATE], indirect=True)
def test_the_gate_that_is_measured_is_the_compiled_one_when_there_is_one(serving):
    """The checkout on its path would take its place, interpreted."""
    assert is_compiled(serving.running.log) is wheel.is_current()
