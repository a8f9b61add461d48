"""Connections fit into what file descriptors there are."""

import resource
import subprocess
import sys

import pytest

from gateway.net import descriptors
from gateway.net.tally import Tally
from gateway.server.plane import MAX_EXCESS_REFUSED
from tests.support.plane import serving
from tests.support.wire import recording_upstream

GET = b"GET /read HTTP/1.1\r\nHost: gate\r\n\r\n"


@pytest.mark.parametrize(("soft", "connections"), [(100, 8), (1_024, 256), (65_536, 32_512), (resource.RLIM_INFINITY, 1 << 30)])
def test_each_connection_leaves_a_descriptor_for_its_other_side(monkeypatch, soft, connections):
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (soft, soft))
    assert descriptors.connections() == connections


def test_a_process_takes_as_many_descriptors_as_it_is_allowed():
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128))\n"
        "from gateway.net import descriptors; descriptors.raise_limit(); print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "(128, 128)"


async def test_with_few_descriptors_one_address_does_not_have_all_connections(monkeypatch):
    monkeypatch.setattr(descriptors, "connections", lambda: 16)
    async with recording_upstream() as upstream, serving(upstream) as served:
        opening = Tally()
        for number in range(15 + MAX_EXCESS_REFUSED):
            opening.add((f"n{number}",))
        assert served.plane.has_room("127.0.0.1", opening)
        opening.add(("n",))
        assert not served.plane.has_room("127.0.0.1", opening), "nor do those whose PROXY header is awaited"
        assert served.metrics.connections_refused.pop("in all") == 1
        for _ in range(8):
            assert (await (await served.client()).ask(GET)).status == 200
        assert (await (await served.client()).response()).status == 503
        others = [await served.client(local_addr=("127.0.0.2", 0)) for _ in range(8)]
        for other in others:
            assert (await other.ask(GET)).status == 200
        assert (await (await served.client(local_addr=("127.0.0.3", 0))).response()).status == 503
        assert dict(served.metrics.connections_refused) == {"from your address": 1, "in all": 1}
