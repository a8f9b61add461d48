"""Whose a request is: the shortcuts for heads and times that were seen before read what the long way reads."""

import pytest

from gateway.admission.dialects.mobee import milliseconds
from gateway.errors import AmbiguousCredentials, Refusal
from gateway.http1.message import Request
from gateway.http1.request_reader import RequestReader
from tests.support.keys import NOW_MS
from tests.support.scene import Scene


def received(requests: list[Request]) -> list[Request]:
    """The same as they come over one connection: the later ones are of a known shape."""
    reader, found = RequestReader(), []
    for sent in requests:
        lines = [
            b"%b %b HTTP/1.1" % (sent.method, sent.target),
            b"host: gate.test",
            *(name + b": " + value for name, value in sent.headers),
        ]
        assert reader.read_head(b"\r\n".join([*lines, b"", b""]), 16_384)
        line = reader.line
        found.append(
            Request(
                line.method, line.target, line.path, line.query, reader.fields, b"", sent.peer, False, NOW_MS, "r-1", True, reader.shape
            )
        )
    return found


@pytest.mark.parametrize("dialect", ["mobee", "binance"])
def test_a_head_of_a_known_shape_is_authenticated_by_its_own_values(dialect):
    scene = Scene(dialect=dialect).build()
    right = scene.request()
    scene.forge = True
    requests = received([right, right, right, scene.request(), right])
    assert [request.shape is None for request in requests] == [True, False, False, False, False]
    admitted = []
    for request in requests:
        try:
            admitted.append(scene.gate.admit(request, scene.gate.route(request)).identity.key_id)
        except Refusal as refusal:
            admitted.append(refusal.code)
    assert admitted == [scene.record.key_id] * 3 + ["invalid_credentials", scene.record.key_id]


def test_a_shape_whose_credentials_are_ambiguous_is_refused_each_time():
    scene = Scene(dialect="mobee", extra=((b"x-mbx-apikey", b"gbk_1"),)).build()
    for request in received([scene.request()] * 3):
        with pytest.raises(AmbiguousCredentials):
            scene.gate.admit(request, scene.gate.route(request))


@pytest.mark.parametrize(("timestamp", "expected"), [(b"1760000000", 1_760_000_000_000), (b"1760000000123", 1_760_000_000_123)])
def test_a_time_reads_the_same_each_time(timestamp, expected):
    assert [milliseconds(timestamp, "X-Request-Timestamp") for _ in range(3)] == [expected] * 3
