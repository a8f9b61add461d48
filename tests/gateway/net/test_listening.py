"""Listening sockets: shared among workers, with nobody else."""

import socket

import pytest

from gateway.config.values import Address
from gateway.errors import ConfigError
from gateway.net.listening import listen

ANY = Address("127.0.0.1", 0)


@pytest.fixture
def opened():
    sockets = []
    yield sockets
    for each in sockets:
        each.close()


def test_workers_share_one_port_and_the_kernel_uses_all_of_them(opened):
    opened += (workers := listen(ANY, where="listen.public", count=3))
    assert len({each.getsockname() for each in workers}) == 1
    clients = [socket.create_connection(workers[0].getsockname()) for _ in range(64)]
    opened += clients
    accepted = []
    for each in workers:
        try:
            while True:
                opened.append(each.accept()[0])
                accepted.append(each)
        except BlockingIOError:
            pass
    assert len(accepted) == 64
    assert set(accepted) == set(workers)


@pytest.mark.parametrize("count", [1, 2])
def test_a_port_that_another_gateway_listens_on_is_busy(opened, count):
    opened += (workers := listen(ANY, where="listen.public", count=count))
    with pytest.raises(ConfigError, match=r"listen.public: cannot listen on 127.0.0.1:\d+: Address already in use"):
        listen(Address(*workers[0].getsockname()), where="listen.public", count=count)


def test_a_port_that_another_program_listens_on_is_busy(opened):
    opened.append(other := socket.create_server(("127.0.0.1", 0)))
    with pytest.raises(ConfigError, match="in use"):
        listen(Address(*other.getsockname()), where="listen.ops")


def test_an_address_that_is_not_this_machines_is_named():
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:0: Cannot assign requested address"):
        listen(Address("192.0.2.1", 0), where="listen.public")


def test_a_connection_made_while_nobody_accepts_waits_for_the_next_worker(opened):
    (listening,) = listen(ANY, where="listen.public")
    opened += [listening, client := socket.create_connection(listening.getsockname())]
    worker = socket.socket(fileno=socket.dup(listening.fileno()))
    worker.close()
    opened.append(accepted := listening.accept()[0])
    client.sendall(b"x")
    accepted.settimeout(5)
    assert accepted.recv(1) == b"x"


def test_ipv6_works_too(opened):
    opened += listen(Address("::1", 0), where="listen.public", count=2)
    assert opened[0].family == socket.AF_INET6
