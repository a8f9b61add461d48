"""TLS on the public port and towards upstreams."""

import ssl
from pathlib import Path

import pytest

from gateway.config.settings import Tls
from gateway.errors import ConfigError
from gateway.net.tls import ServerTls, server_context
from tests.support.certificates import self_signed
from tests.support.plane import serving
from tests.support.wire import recording_upstream

GET = b"GET /read HTTP/1.1\r\nHost: gate.example\r\n\r\n"


def trusting(certificate: Path, *protocols: str, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificate))
    if protocols:
        context.set_alpn_protocols(list(protocols))
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


async def test_the_public_port_speaks_tls_and_tells_the_upstream(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path, "gate.example")
    tls = {"listen": {"tls": {"certificate": certificate, "key": key}}}
    async with recording_upstream() as upstream, serving(upstream, **tls) as served:
        client = await served.client(ssl=trusting(certificate, "h2", "http/1.1"), server_hostname="gate.example")
        assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        for _ in range(2):
            assert (await client.ask(GET)).body == b"ok"
        assert served.gate.admitted[0].secure
        assert upstream.requests[0].values(b"x-forwarded-proto") == [b"https"]
        response = await client.ask(b"broken\r\n\r\n")
        assert response.status == 400
        assert await client.rest() == b""


async def test_a_large_response_passes_tls_with_back_pressure(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path, "gate.example")
    size = 8 << 20

    async def script(side, _request) -> None:
        side.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)

    tls = {"listen": {"tls": {"certificate": certificate, "key": key}}}
    async with recording_upstream(script) as upstream, serving(upstream, **tls) as served:
        client = await served.client(ssl=trusting(certificate), server_hostname="gate.example")
        assert len((await client.ask(GET)).body) == size


async def test_tls_1_1_is_refused(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path, "gate.example")
    context = server_context(Tls(certificate=certificate, key=key))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_1_2_and_1_3_are_spoken(tmp_path: Path, version: ssl.TLSVersion) -> None:
    certificate, key = self_signed(tmp_path, "gate.example")
    tls = {"listen": {"tls": {"certificate": certificate, "key": key}}}
    async with recording_upstream() as upstream, serving(upstream, **tls) as served:
        client = await served.client(ssl=trusting(certificate, version=version), server_hostname="gate.example")
        assert (await client.ask(GET)).status == 200


async def test_a_renewed_certificate_serves_new_connections_and_old_ones_go_on(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path / "served", "gate.example")
    old = trusting(certificate)
    tls = {"listen": {"tls": {"certificate": certificate, "key": key}}}
    async with recording_upstream() as upstream, serving(upstream, **tls) as served:
        client = await served.client(ssl=old, server_hostname="gate.example")
        assert (await client.ask(GET)).status == 200
        self_signed(tmp_path / "served", "gate.example")
        assert served.plane.tls is not None
        served.plane.tls.reload()
        assert (await client.ask(GET)).status == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            await served.client(ssl=old, server_hostname="gate.example")
        renewed = await served.client(ssl=trusting(certificate), server_hostname="gate.example")
        assert (await renewed.ask(GET)).status == 200


def test_files_that_do_not_fit_are_named_and_the_old_ones_stay(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path / "one", "gate.example")
    _, other_key = self_signed(tmp_path / "two", "gate.example")
    tls = ServerTls(Tls(certificate=certificate, key=key))
    key.write_bytes(other_key.read_bytes())
    with pytest.raises(ConfigError, match=r"listen\.tls.*certificate\.pem"):
        tls.reload()
    with pytest.raises(ConfigError, match="No such file"):
        server_context(Tls(certificate=tmp_path / "absent", key=key))


async def test_an_upstream_is_verified_and_named(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path, "spot.internal")
    context = server_context(Tls(certificate=certificate, key=key))
    names: list[str | None] = []
    context.sni_callback = lambda _sock, name, _context: names.append(name)
    async with recording_upstream(ssl=context) as upstream:
        url = f"https://127.0.0.1:{upstream.port}"
        async with serving(url, spot={"tls": {"ca": certificate, "server_name": "spot.internal"}}) as served:
            client = await served.client()
            for _ in range(2):
                assert (await client.ask(GET)).body == b"ok"
            assert names == ["spot.internal"]
        for spot in ({"tls": {"ca": certificate, "server_name": "another.internal"}}, {}, {"tls": {"ca": certificate}}):
            async with serving(url, spot=spot) as served:
                client = await served.client()
                response = await client.ask(GET)
                assert (response.status, response.body) == (502, b"upstream_unreachable")
        assert len(upstream.requests) == 2


async def test_an_authority_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"upstreams\.spot\.tls\.ca"):
        async with serving("https://127.0.0.1:1", spot={"tls": {"ca": tmp_path / "absent"}}):
            pass
