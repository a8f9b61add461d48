"""tests.bench.latency: requests are timed from when they were due."""

import socket
import threading
import time

import pytest

from tests.bench import latency, load
from tests.bench.load import Key
from tests.support.lacking import needs

pytestmark = needs("cc")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
PAUSE = 0.7


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return load.compiled("open_loop", tmp_path_factory.mktemp("open-loop"))


@pytest.fixture
def stopping():
    """A server of one connection that answers, but stops for a while before its tenth answer; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with listening.accept()[0] as connection:
                count, held = 0, b""
                while data := connection.recv(65_536):
                    held += data
                    while b"\r\n\r\n" in held:
                        held = held.partition(b"\r\n\r\n")[2]
                        count += 1
                        if count == 10:
                            time.sleep(PAUSE)
                        connection.sendall(ANSWER)

        server = threading.Thread(target=serve)
        server.start()
        yield listening.getsockname()[1]
        server.join()


def test_who_is_due_while_the_server_stops_is_charged_with_the_whole_wait(made, stopping):
    """A closed loop would charge one request of a hundred; here seventy were due meanwhile."""
    found = latency.run(made, [Key("gbk_x", "s")], stopping, rate=100, seconds=1, connections=1)
    assert found is not None
    assert found.p99 >= PAUSE * 1_000 * 0.9
    assert found.p50 >= PAUSE * 1_000 * 0.1


@needs("nginx")
def test_a_row_for_each_share_and_contestant(place):
    rows = latency.measure(place.ground, {"again": place.ground.upstream}, 300.0, 1, 1)
    assert [(row["share"], row["who"]) for row in rows] == [(s, w) for s in ("10%", "50%", "80%") for w in (latency.UPSTREAM, "again")]
    assert all(row["added_p99"] == 0 for row in rows if row["who"] == latency.UPSTREAM)
    assert all(float(row["p999"]) >= float(row["p50"]) > 0 for row in rows)


def test_of_many_keys_each_signs_in_its_turn(made):
    keys, asked = [Key(f"gbk_{number}", "s") for number in range(5)], []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with listening.accept()[0] as connection:
                while data := connection.recv(65_536):
                    asked.append(data.partition(b"X-API-Key: ")[2].partition(b"\r\n")[0])
                    connection.sendall(ANSWER)

        server = threading.Thread(target=serve)
        server.start()
        assert latency.run(made, keys, listening.getsockname()[1], rate=20, seconds=1, connections=1) is not None
        server.join()
    assert asked == [key.key_id.encode() for key in keys] * 4
