"""PROXY protocol versions 1 and 2: the grammar, and who is believed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.settings import ClientIp
from gateway.net.client_ip import ClientIpRule
from gateway.net.proxy_protocol import SIGNATURE_V2, ProxyHeaderError, parse_v1, parse_v2, v2_payload_length
from tests.support.plane import serving
from tests.support.wire import recording_upstream

GET = b"GET /read HTTP/1.1\r\nHost: gate.example\r\n\r\n"


def v2(payload: bytes, *, command: int = 0x21, family: int = 0x11) -> bytes:
    return SIGNATURE_V2 + bytes([command, family]) + len(payload).to_bytes(2, "big") + payload


IPV4 = bytes([203, 0, 113, 7, 10, 0, 0, 1]) + (4711).to_bytes(2, "big") + (443).to_bytes(2, "big")
IPV6 = bytes.fromhex("20010db8000000000000000000000001" + "00" * 15 + "01") + (4711).to_bytes(2, "big") + (443).to_bytes(2, "big")

GOOD = {
    "version 1, IPv4": (b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n", "203.0.113.7"),
    "version 1, IPv6": (b"PROXY TCP6 2001:db8::1 ::1 4711 443\r\n", "2001:db8::1"),
    "version 1, unknown": (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    "version 1, unknown with more": (b"PROXY UNKNOWN ffff:: ffff:: 65535 65535\r\n", "127.0.0.1"),
    "version 2, IPv4": (v2(IPV4), "203.0.113.7"),
    "version 2, IPv6": (v2(IPV6, family=0x21), "2001:db8::1"),
    "version 2, with TLVs": (v2(IPV4 + b"\x04\x00\x03abc"), "203.0.113.7"),
    "version 2, local": (v2(b"", command=0x20, family=0), "127.0.0.1"),
    "version 2, Unix socket": (v2(b"\x00" * 216, family=0x31), "127.0.0.1"),
}

BAD = {
    "none at all": GET,
    "version 1, another family's address": b"PROXY TCP4 2001:db8::1 10.0.0.1 4711 443\r\n",
    "version 1, not an address": b"PROXY TCP4 203.0.113.999 10.0.0.1 4711 443\r\n",
    "version 1, not a port": b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 99999\r\n",
    "version 1, a signed port": b"PROXY TCP4 203.0.113.7 10.0.0.1 +471 443\r\n",
    "version 1, a port with a zero before it": b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 080\r\n",
    "version 1, too few": b"PROXY TCP4 203.0.113.7 10.0.0.1 4711\r\n",
    "version 1, too many": b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443 1\r\n",
    "version 1, another protocol": b"PROXY UDP4 203.0.113.7 10.0.0.1 4711 443\r\n",
    "version 1, bare LF": b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\n",
    "version 1, no end": b"PROXY TCP4 " + b"2" * 200,
    "version 1, lower case": b"proxy TCP4 203.0.113.7 10.0.0.1 4711 443\r\n",
    "version 2, too short for IPv4": v2(IPV4[:8]),
    "version 2, too short for IPv6": v2(IPV4, family=0x21),
    "version 2, another version": v2(IPV4, command=0x31),
    "version 2, another command": v2(IPV4, command=0x22),
    "version 2, unknown family": v2(IPV4, family=0x41),
    **{
        f"version 2, undefined protocol {byte:#04x}": v2(IPV6, family=byte)
        for byte in (0x03, 0x0F, 0x13, 0x1F, 0x23, 0x2F, 0x33, 0x01, 0x10)
    },
    "version 2, far too long": SIGNATURE_V2 + b"\x21\x11\xff\xff",
}


def parsed(header: bytes) -> str | None:
    """As :func:`gateway.net.proxy_protocol.read_source` puts the parts together."""
    if header.startswith(SIGNATURE_V2):
        length = v2_payload_length(header[:16])
        return parse_v2(header[:16], header[16 : 16 + length])
    return parse_v1(header)


@pytest.mark.parametrize(("header", "source"), GOOD.values(), ids=GOOD.keys())
def test_a_good_header_names_the_source_or_nobody(header: bytes, source: str) -> None:
    assert parsed(header) == (None if source == "127.0.0.1" else source)


@pytest.mark.parametrize("header", BAD.values(), ids=BAD.keys())
def test_any_other_header_is_refused_by_the_grammar_alone(header: bytes) -> None:
    with pytest.raises(ProxyHeaderError):
        parsed(header)


LONGEST_V1 = b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n"


@pytest.mark.parametrize(
    ("header", "source"),
    [
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 0 65535\r\n", "203.0.113.7"),
        (LONGEST_V1, None),
        (v2(b"\0" * 4_096, command=0x20), None),
        (v2(b"", command=0x20, family=0xFF), None),  # of LOCAL nothing else is looked at
        (v2(b"", family=0x00), None),
        (v2(b"", family=0x32), None),
        (v2(IPV4, family=0x12), "203.0.113.7"),
        (v2(IPV4[:12]), "203.0.113.7"),
        (v2(IPV6[:36], family=0x22), "2001:db8::1"),
    ],
)
def test_the_ends_of_what_is_allowed(header: bytes, source: str | None) -> None:
    assert parsed(header) == source


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (LONGEST_V1.replace(b"UNKNOWN ", b"UNKNOWN f"), "not a version 1 line"),
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2", "not a version 1 line"),
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2\n", "not a version 1 line"),
        (b"XPROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\n", "not a version 1 line"),
        (b"PROXY TCP5 203.0.113.7 10.0.0.1 1 2\r\n", "not TCP4, TCP6 or UNKNOWN"),
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 1\r\n", "not TCP4, TCP6 or UNKNOWN"),
        (b"PROXY TCP4  203.0.113.7 10.0.0.1 1 2\r\n", "not TCP4, TCP6 or UNKNOWN"),
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2 3\r\n", "not TCP4, TCP6 or UNKNOWN"),
        (b"PROXY TCP4 203.0.113.7 \xd9\xa1 1 2\r\n", "not an address"),
        (b"PROXY TCP4 203.0.113.7 x 1 2\r\n", "not an address"),
        (b"PROXY TCP4 203.0.113.7 ::1 1 2\r\n", "address of another family"),
        (b"PROXY TCP6 203.0.113.7 10.0.0.1 1 2\r\n", "address of another family"),
        (b"PROXY TCP6 ::1 10.0.0.1 1 2\r\n", "address of another family"),
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 65536 2\r\n", "not a port"),
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 1 65536\r\n", "not a port"),
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 01 2\r\n", "not a port"),
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 1 -2\r\n", "not a port"),
        (v2(b"\0" * 4_097), "header too long"),
        (v2(b"", command=0x22), "not a version 2 header"),
        (SIGNATURE_V2 + b"\x21\x11\x00", "not a version 2 header"),
        (v2(IPV4)[1:], "not a version"),
        (v2(IPV4[:11]), "no room"),
        (v2(IPV6[:35], family=0x21), "no room"),
        (v2(IPV6, family=0x13), "an undefined family"),
    ],
)
def test_just_beyond_them_it_is_refused_with_its_reason(header: bytes, why: str) -> None:
    with pytest.raises(ProxyHeaderError, match=why):
        parsed(header)


@pytest.mark.parametrize(("header", "source"), GOOD.values(), ids=GOOD.keys())
async def test_a_trusted_peer_says_who_the_client_is(header: bytes, source: str) -> None:
    client_ip = {"proxy_protocol": True, "proxy_peers": ("127.0.0.0/8",)}
    async with recording_upstream() as upstream, serving(upstream, client_ip=client_ip) as served:
        client = await served.client()
        client.send(header + GET)
        assert (await client.response()).status == 200
        assert served.gate.admitted[0].peer == source
        assert (await client.ask(GET)).status == 200


@pytest.mark.parametrize("header", BAD.values(), ids=BAD.keys())
async def test_a_trusted_peer_without_a_good_header_is_dropped(header: bytes) -> None:
    client_ip = {"proxy_protocol": True, "proxy_peers": ("127.0.0.0/8",)}
    async with recording_upstream() as upstream, serving(upstream, client_ip=client_ip) as served:
        client = await served.client()
        client.send(header + GET)
        assert await client.rest() == b""
        assert served.gate.routed == []
        assert served.metrics.connections_refused["proxy header"] == 1


@pytest.mark.parametrize("header", [header for name, (header, _) in GOOD.items() if "unknown" in name or "local" in name])
async def test_a_peer_that_does_not_say_who_the_client_is_is_not_believed_by_a_field_either(header: bytes) -> None:
    client_ip = {"proxy_protocol": True, "proxy_peers": ("127.0.0.0/8",), "trusted_proxies": ("127.0.0.0/8",)}
    rule = ClientIpRule(ClientIp.model_validate(client_ip).trusted_proxies)
    async with recording_upstream() as upstream, serving(upstream, client_ip=client_ip) as served:
        for sent, address in ((header, "127.0.0.1"), (GOOD["version 1, IPv4"][0].replace(b"203.0.113.7", b"127.0.0.9"), "8.8.8.8")):
            client = await served.client()
            client.send(sent + GET[:-2] + b"X-Forwarded-For: 8.8.8.8\r\nX-Forwarded-Proto: https\r\n\r\n")
            assert (await client.response()).status == 200
            assert rule.of(served.gate.admitted[-1]).address == address
            assert rule.as_sent(served.gate.admitted[-1]).secure is (address == "8.8.8.8")


async def test_a_field_is_believed_of_no_client_whose_balancer_may_send_a_header() -> None:
    """A transparent balancer's peers are everybody."""
    client_ip = {"proxy_protocol": True, "proxy_peers": ("0.0.0.0/0",), "trusted_proxies": ("10.0.0.0/8",)}
    rule = ClientIpRule(ClientIp.model_validate(client_ip).trusted_proxies)
    async with recording_upstream() as upstream, serving(upstream, client_ip=client_ip) as served:
        client = await served.client()
        client.send(GOOD["version 1, IPv4"][0] + GET[:-2] + b"X-Forwarded-For: 8.8.8.8\r\nX-Forwarded-Proto: https\r\n\r\n")
        assert (await client.response()).status == 200
        assert rule.of(served.gate.admitted[0]).address == "203.0.113.7"
        assert rule.as_sent(served.gate.admitted[0]).secure is False


async def test_a_header_may_come_byte_by_byte() -> None:
    client_ip = {"proxy_protocol": True, "proxy_peers": ("127.0.0.0/8",)}
    async with recording_upstream() as upstream, serving(upstream, client_ip=client_ip) as served:
        for header in (GOOD["version 1, IPv4"][0], GOOD["version 2, IPv6"][0]):
            client = await served.client()
            for byte in header:
                client.send(bytes([byte]))
                await client.writer.drain()
            assert (await client.ask(GET)).status == 200
        assert [request.peer for request in served.gate.admitted] == ["203.0.113.7", "2001:db8::1"]


async def test_a_header_that_does_not_come_is_not_waited_for() -> None:
    client_ip = {"proxy_protocol": True, "proxy_peers": ("127.0.0.0/8",)}
    async with serving(client_ip=client_ip, limits={"header_timeout_ms": 100}) as served:
        client = await served.client()
        client.send(b"PROXY TCP4 ")
        assert await client.rest() == b""


async def test_a_peer_that_is_not_trusted_is_a_client_whatever_it_says() -> None:
    async with (
        recording_upstream() as upstream,
        serving(
            upstream, client_ip={"proxy_protocol": True, "proxy_peers": ("10.0.0.0/8",), "trusted_proxies": ("127.0.0.0/8",)}
        ) as served,
    ):
        client = await served.client()
        assert (await client.ask(GET)).status == 200
        assert served.gate.admitted[0].peer == "127.0.0.1"
        liar = await served.client()
        assert (await liar.ask(GOOD["version 1, IPv4"][0] + GET)).status == 400


async def test_a_header_where_none_is_configured_is_a_broken_request() -> None:
    async with serving(client_ip={"trusted_proxies": ("127.0.0.0/8",)}) as served:
        client = await served.client()
        assert (await client.ask(GOOD["version 1, IPv4"][0] + GET)).status == 400


LINES = st.text("PROXY TCP46 .:0123456789abc\r\n", max_size=60).map(lambda text: b"PROXY " + text.encode())


@settings(max_examples=300, deadline=None)
@given(LINES | st.binary(max_size=120))
def test_no_version_1_line_does_anything_but_name_an_address_or_be_refused(line: bytes) -> None:
    try:
        source = parse_v1(line)
    except ProxyHeaderError:
        return
    assert source is None or set(source) <= set("0123456789abcdef.:%")


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=4, max_size=4), st.binary(max_size=60))
def test_no_version_2_header_does_anything_but_name_an_address_or_be_refused(fixed: bytes, payload: bytes) -> None:
    header = SIGNATURE_V2 + fixed
    try:
        v2_payload_length(header)
        source = parse_v2(header, payload)
    except ProxyHeaderError:
        return
    assert source is None or set(source) <= set("0123456789abcdef.:")
