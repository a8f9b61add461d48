"""Which address a request comes from."""

import socket
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.settings import ClientIp
from gateway.http1.message import Request
from gateway.net.addresses import canonical
from gateway.net.client_ip import ClientIpRule, client_ip, notes
from tests.support.inside import remembered

TRUSTED = ("127.0.0.1/32", "10.0.0.0/8", "2001:db8:f::/48", "::ffff:172.16.0.0/108")
PROXY = "10.0.0.1"


def rule_of(settings: ClientIp) -> ClientIpRule:
    return ClientIpRule(settings.trusted_proxies, settings.header, settings.header_form)


def a_request(peer: str, *headers: tuple[str, str]) -> Request:
    lines = tuple((name.lower().encode(), value.encode("latin-1")) for name, value in headers)
    return Request(b"GET", b"/", b"/", None, lines, b"", peer, secure=False, received_ms=0, request_id="r")


def seen(*lines: str, peer: str = PROXY, header: str = "X-Forwarded-For", form: str | None = None) -> str:
    """The address, or ``"?"`` when it cannot be read; then a problem is always told."""
    rule = rule_of(ClientIp(trusted_proxies=TRUSTED, header=header, header_form=form))
    found = rule.of(a_request(peer, *((header, line) for line in lines)))
    assert (found.address == "") is not (found.problem == "")
    return found.address or "?"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("255.255.255.255", "255.255.255.255"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("2001:0db8:0000:0000:0000:0000:0000:0001", "2001:db8::1"),
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("::", "::"),
        ("::1", "::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:0201", "192.0.2.1"),
        ("0:0:0:0:0:ffff:192.0.2.1", "192.0.2.1"),
        ("64:ff9b::192.0.2.1", "64:ff9b::c000:201"),
        ("::192.0.2.1", "::c000:201"),
        ("", None),
        (" 192.0.2.1", None),
        ("192.0.2.1 ", None),
        ("192.0.2.1\n", None),
        ("192.0.2", None),
        ("192.0.513", None),
        ("3221225985", None),
        ("0xc0000201", None),
        ("0xc0.0.2.1", None),
        ("0300.0.2.1", None),
        ("192.0.02.1", None),
        ("192.0.2.01", None),
        ("192.0.2.256", None),
        ("192.0.2.-1", None),
        ("192.0.2.1.", None),
        ("192.0.2.1.5", None),
        ("192.0.2.1/32", None),
        ("192.0.2.1:80", None),
        ("١٩٢.0.2.1", None),
        ("1e1.0.2.1", None),
        ("fe80::1%eth0", None),
        ("fe80::1%25eth0", None),
        ("::ffff:192.0.2.1%1", None),
        ("[2001:db8::1]", None),
        ("2001:db8::1::", None),
        ("2001:db8:1", None),
        ("2001:db8::12345", None),
        ("1:2:3:4:5:6:7:8:9", None),
        ("::ffff:192.0.2", None),
        ("::ffff:192.0.02.1", None),
        (":1", None),
        ("localhost", None),
        ("unknown", None),
    ],
)
def test_an_address_has_one_text_form(text, address):
    assert canonical(text) == address


@pytest.mark.parametrize(
    ("peer", "lines", "address"),
    [
        # The peer first: headers are looked at only when it is a trusted proxy.
        ("203.0.113.9", ["192.0.2.1"], "203.0.113.9"),
        ("203.0.113.9", ["garbage"], "203.0.113.9"),
        ("::ffff:203.0.113.9", ["192.0.2.1"], "203.0.113.9"),
        ("2001:DB8::9", ["192.0.2.1"], "2001:db8::9"),
        ("", ["192.0.2.1"], "?"),
        ("fe80::1%eth0", [], "?"),
        (PROXY, [], PROXY),
        ("::ffff:10.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("2001:db8:f::1", ["192.0.2.1"], "192.0.2.1"),
        ("2001:db8:f:1::1", ["192.0.2.1"], "192.0.2.1"),
        ("2001:db8:10::1", ["192.0.2.1"], "2001:db8:10::1"),
        ("172.16.5.5", ["192.0.2.1"], "192.0.2.1"),
        ("172.32.5.5", ["192.0.2.1"], "172.32.5.5"),
        # The rightmost untrusted one.
        (PROXY, ["192.0.2.1"], "192.0.2.1"),
        (PROXY, ["192.0.2.1, 198.51.100.2"], "198.51.100.2"),
        (PROXY, ["192.0.2.1,198.51.100.2,10.1.1.1"], "198.51.100.2"),
        (PROXY, ["192.0.2.1, 198.51.100.2, 127.0.0.1, 10.1.1.1"], "198.51.100.2"),
        (PROXY, ["192.0.2.1, 10.1.1.1, 198.51.100.2"], "198.51.100.2"),
        (PROXY, ["\t192.0.2.1 ,\t10.1.1.1\t"], "192.0.2.1"),
        (PROXY, ["::ffff:192.0.2.1"], "192.0.2.1"),
        (PROXY, ["192.0.2.1, ::ffff:10.1.1.1"], "192.0.2.1"),
        (PROXY, ["2001:DB8:0::7"], "2001:db8::7"),
        # Over all lines, in order.
        (PROXY, ["192.0.2.1", "198.51.100.2"], "198.51.100.2"),
        (PROXY, ["192.0.2.1", "10.1.1.1"], "192.0.2.1"),
        (PROXY, ["192.0.2.1, 198.51.100.2", "10.1.1.1, 10.1.1.2"], "198.51.100.2"),
        (PROXY, ["192.0.2.1", "", "10.1.1.1"], "192.0.2.1"),
        # All trusted: the leftmost.
        (PROXY, ["10.2.2.2, 10.1.1.1"], "10.2.2.2"),
        (PROXY, ["10.2.2.2", "10.1.1.1"], "10.2.2.2"),
        # Empty elements say nothing.
        (PROXY, [""], PROXY),
        (PROXY, [" , ,"], PROXY),
        (PROXY, ["192.0.2.1,, 10.1.1.1,"], "192.0.2.1"),
        # What cannot be read ends the walk, and what stands left of it is never believed.
        (PROXY, ["unknown"], "?"),
        (PROXY, ["192.0.2.1, unknown"], "?"),
        (PROXY, ["192.0.2.1, unknown, 10.1.1.1"], "?"),
        (PROXY, ["unknown, 192.0.2.1"], "192.0.2.1"),
        (PROXY, ["192.0.2.1 198.51.100.2"], "?"),
        (PROXY, ["192.0.2.1; 198.51.100.2"], "?"),
        (PROXY, ['"192.0.2.1"'], "?"),
        (PROXY, ["192.0.02.1"], "?"),
        (PROXY, ["0x0a000001"], "?"),
        (PROXY, ["192.0.2"], "?"),
        (PROXY, ["fe80::1%eth0"], "?"),
        (PROXY, ["192.0.2.1, 10.1"], "?"),
        (PROXY, ["192.0.2.1\xa0"], "?"),
        (PROXY, ["1" * 5000], "?"),
        # Ports and brackets, as some proxies write them.
        (PROXY, ["192.0.2.1:4711"], "192.0.2.1"),
        (PROXY, ["[2001:db8::7]"], "2001:db8::7"),
        (PROXY, ["[2001:db8::7]:443"], "2001:db8::7"),
        (PROXY, ["192.0.2.1, 10.1.1.1:4711"], "192.0.2.1"),
        (PROXY, ["[::ffff:192.0.2.1]:1"], "192.0.2.1"),
        (PROXY, ["192.0.2.1:"], "?"),
        (PROXY, ["192.0.2.1:471100"], "?"),
        (PROXY, ["[192.0.2.1]:80"], "?"),
        (PROXY, ["[2001:db8::7"], "?"),
        (PROXY, ["[2001:db8::7]443"], "?"),
        (PROXY, ["[fe80::1%eth0]:80"], "?"),
        (PROXY, ["2001:db8::7:443"], "2001:db8::7:443"),
    ],
)
def test_forwarded_for_is_read_from_the_right_as_far_as_it_is_trusted(peer, lines, address):
    assert seen(*lines, peer=peer) == address


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        (["for=192.0.2.1"], "192.0.2.1"),
        (["For=192.0.2.1"], "192.0.2.1"),
        (['for="192.0.2.1"'], "192.0.2.1"),
        (['for="192.0.2.1:4711"'], "192.0.2.1"),
        (['for="192.0.2.1:_port"'], "192.0.2.1"),
        (['for="[2001:db8::7]"'], "2001:db8::7"),
        (['for="[2001:db8::7]:4711"'], "2001:db8::7"),
        (['for="[::ffff:192.0.2.1]"'], "192.0.2.1"),
        ([r'for="\1\92.0.2.1"'], "192.0.2.1"),
        (["for=192.0.2.1;proto=https;by=10.0.0.1"], "192.0.2.1"),
        (["by=10.0.0.1 ; for=192.0.2.1"], "192.0.2.1"),
        (["for=192.0.2.1, for=198.51.100.2"], "198.51.100.2"),
        (["for=192.0.2.1", "for=10.1.1.1"], "192.0.2.1"),
        (["for=192.0.2.1, for=10.1.1.1;proto=http,for=127.0.0.1"], "192.0.2.1"),
        (["for=10.2.2.2, for=10.1.1.1"], "10.2.2.2"),
        (['for=192.0.2.1;ext="a,b;for=9.9.9.9", for=10.1.1.1'], "192.0.2.1"),
        (["for=unknown, for=192.0.2.1"], "192.0.2.1"),
        (["for=192.0.2.1;;proto=http"], "192.0.2.1"),
        (["for=192.0.2.1,,"], "192.0.2.1"),
        ([""], PROXY),
        (["for=unknown"], "?"),
        (["for=192.0.2.1, for=unknown"], "?"),
        (["for=_hidden"], "?"),
        (['for="_hidden:_port"'], "?"),
        (["for=192.0.2.1, for=_mystery, for=10.1.1.1"], "?"),
        (["proto=https"], "?"),
        (["for=192.0.2.1, proto=https"], "?"),
        (["for=192.0.2.1:4711"], "?"),
        (["for=[2001:db8::7]"], "?"),
        (['for="2001:db8::7"'], "?"),
        (['for="[192.0.2.1]"'], "?"),
        (['for="[fe80::1%eth0]"'], "?"),
        (['for="192.0.2.1:"'], "?"),
        (["192.0.2.1"], "?"),
        (["Xfor=192.0.2.1"], "?"),
        (['for="192.0.2.1"Xa=b'], "?"),
        (["for = 192.0.2.1"], "?"),
        (['for="192.0.2.1'], "?"),
        (['for="192.0.2.1"x'], "?"),
        (["for=192.0.2.1 for=10.1.1.1"], "?"),
        (["for=192.0.2.1;for=198.51.100.2"], "?"),
        (["for=192.0.02.1"], "?"),
        (['for=""'], "?"),
        # A quote that the client leaves open swallows nothing that a proxy appends: the line is malformed.
        (['for=192.0.2.1;x=", for=198.51.100.2'], "?"),
        (['for=192.0.2.1;x=", for="[2001:db8::7]"'], "?"),
        (['for=192.0.2.1;x="\\', 'for="198.51.100.2"'], "198.51.100.2"),
        (['for="', "for=10.1.1.1"], "?"),
    ],
)
def test_forwarded_is_read_as_rfc_7239_says(lines, address):
    assert seen(*lines, header="Forwarded") == address


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        (["192.0.2.1"], "192.0.2.1"),
        (["::ffff:192.0.2.1"], "192.0.2.1"),
        (["2001:DB8::7"], "2001:db8::7"),
        (["10.1.1.1"], "10.1.1.1"),
        ([], PROXY),
        (["192.0.2.1", "192.0.2.1"], "?"),
        (["192.0.2.1, 198.51.100.2"], "?"),
        (["192.0.2.1:80"], "192.0.2.1"),
        (["[2001:db8::7]:80"], "2001:db8::7"),
        (["[2001:db8::7]"], "2001:db8::7"),
        (["[192.0.2.1]:80"], "?"),
        (["unknown"], "?"),
        ([""], "?"),
    ],
)
def test_a_single_address_header_carries_one_address(lines, address):
    assert seen(*lines, header="CF-Connecting-IP") == address


@pytest.mark.parametrize("peer", ["192.0.2.1", PROXY])
@pytest.mark.parametrize("believed", [True, False])
def test_an_address_that_was_read_comes_without_a_problem(peer, believed):
    found = rule_of(ClientIp(trusted_proxies=TRUSTED)).of(a_request(peer).replace(believed=believed))
    assert (found.address, found.problem) == (peer, "")


@pytest.mark.parametrize(("lines", "what"), [(["192.0.2.1", "192.0.2.1"], "with 2 lines,"), (["192.0.2"], "with '192.0.2',")])
def test_the_problem_of_a_single_address_header_counts_its_lines_or_shows_the_one(lines, what):
    rule = rule_of(ClientIp(trusted_proxies=TRUSTED, header="X-Real-IP"))
    assert what in rule.of(a_request(PROXY, *(("X-Real-IP", line) for line in lines))).problem


def test_only_the_configured_header_is_read():
    rule = rule_of(ClientIp(trusted_proxies=TRUSTED, header="X-Forwarded-For"))
    request = a_request(PROXY, ("Forwarded", "for=192.0.2.1"), ("X-Real-IP", "192.0.2.1"), ("X_Forwarded_For", "192.0.2.1"))
    assert rule.of(request).address == PROXY


def test_the_problem_names_the_header_and_the_hop_without_control_characters():
    rule = rule_of(ClientIp(trusted_proxies=TRUSTED))
    problem = rule.of(a_request(PROXY, ("X-Forwarded-For", "192.0.2.1, \x1b[31mred"))).problem
    assert "X-Forwarded-For" in problem
    assert r"\x1b[31mred" in problem


def test_a_peer_that_is_no_proxy_is_known_again_and_one_without_an_address_has_none():
    rule = rule_of(ClientIp(trusted_proxies=TRUSTED))
    assert rule.of(a_request("192.0.2.1")) is rule.of(a_request("192.0.2.1", ("X-Forwarded-For", "198.51.100.2")))
    nobody = rule.of(a_request("unix:"))
    assert (nobody.address, nobody.problem) == ("", "the connection has no IP address")


def test_many_peers_do_not_grow_the_memory_without_bound():
    rule = rule_of(ClientIp())
    for number in range(70_000):
        peer = str(IPv4Address(number))
        assert rule.of(a_request(peer)).address == peer
    assert len(remembered(rule)) <= 65_536


# -- oracles that know the truth because they made the text from it

_PACKED = st.one_of(
    st.binary(min_size=4, max_size=4),
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=4, max_size=4).map(lambda four: bytes(10) + b"\xff\xff" + four),
    st.sampled_from(
        [bytes([10, 1, 1, 1]), bytes([127, 0, 0, 1]), bytes([10, 0, 0, 7]), socket.inet_pton(socket.AF_INET6, "2001:db8:f::5")]
    ),
)
_BAD = st.sampled_from(["unknown", "_hidden", "192.0.2", "0x7f.1.1.1", "010.1.1.1", "fe80::1%lo", "host.example", "1.2.3.4.5", "300.1.1.1"])


def text_of(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def plain(packed: bytes) -> bytes:
    return packed[12:] if packed[:12] == bytes(10) + b"\xff\xff" else packed


def is_trusted(packed: bytes) -> bool:
    if len(packed) == 4:
        return packed[0] == 10 or packed == b"\x7f\0\0\1" or (packed[0] == 172 and packed[1] // 16 == 1)
    return packed[:6] == bytes.fromhex("20010db8000f")


def expected(hops: list[bytes | None]) -> bytes | None:
    """``None`` when it cannot be told. Written from the rule's sentence: drop trusted ones off the right end, but for the last."""
    chain = [None if hop is None else plain(hop) for hop in hops]
    while len(chain) > 1 and chain[-1] is not None and is_trusted(chain[-1]):
        chain.pop()
    return chain[-1]


@given(st.text("0123456789abcdefABCDEFx:.%/ \u0661", max_size=24) | _PACKED.map(text_of))
def test_any_text_is_an_address_exactly_when_the_system_says_so(text):
    packed = None
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            packed = socket.inet_pton(family, text)
        except (OSError, UnicodeEncodeError):
            continue
    found = canonical(text)
    assert (found is None) is (packed is None)
    if found is not None and packed is not None:
        assert ip_address(found).packed == plain(packed)
        assert canonical(found) == found


@given(st.lists(st.tuples(_PACKED, st.booleans()) | _BAD, min_size=1, max_size=8), st.data())
def test_forwarded_for_agrees_with_an_oracle(hops, data):
    truth = [None if isinstance(hop, str) else hop[0] for hop in hops]
    texts = [hop if isinstance(hop, str) else written(hop[0], port=hop[1]) for hop in hops]
    lines = split(texts, data)
    address = seen(*lines)
    right = expected([*truth, bytes([10, 0, 0, 1])])
    assert address == ("?" if right is None else str(ip_address(right)))


@given(st.lists(st.tuples(_PACKED, st.booleans()) | st.sampled_from(["unknown", "_hidden"]), min_size=1, max_size=8), st.data())
def test_forwarded_agrees_with_an_oracle(hops, data):
    truth = [None if isinstance(hop, str) else hop[0] for hop in hops]
    texts = [element(hop if isinstance(hop, str) else written(hop[0], port=hop[1], brackets=True), data) for hop in hops]
    address = seen(*split(texts, data), header="Forwarded")
    right = expected([*truth, bytes([10, 0, 0, 1])])
    assert address == ("?" if right is None else str(ip_address(right)))


@given(st.lists(st.binary(max_size=60), max_size=4), st.sampled_from(["X-Forwarded-For", "Forwarded", "X-Real-IP"]))
def test_no_bytes_make_it_fail_or_answer_what_is_no_address(values, header):
    rule = rule_of(ClientIp(trusted_proxies=TRUSTED, header=header))
    lines = tuple((header.lower().encode(), value) for value in values)
    found = rule.of(a_request(PROXY).replace(headers=lines))
    assert bool(found.address) is not bool(found.problem)
    if found.address:
        assert str(ip_address(found.address)) == found.address
    assert found.problem.isprintable()


@given(_PACKED)
def test_trusted_networks_hold_in_every_spelling_of_an_address(packed):
    rule = rule_of(ClientIp(trusted_proxies=TRUSTED))
    assert rule.trusted.contains(str(ip_address(plain(packed)))) is is_trusted(plain(packed))


def test_the_oracle_trusts_what_the_configuration_names():
    networks = [ip_network(network) for network in TRUSTED]
    assert IPv6Address("::ffff:172.16.0.0") in networks[3]
    assert is_trusted(IPv4Address("172.16.0.0").packed)


def written(packed: bytes, *, port: bool, brackets: bool = False) -> str:
    text = text_of(packed)
    if ":" in text and (port or brackets):
        text = f"[{text}]"
    return f"{text}:4711" if port else text


def split(texts: list[str], data: st.DataObject) -> list[str]:
    """The same list over some lines, with the white space that is allowed."""
    lines, line = [], [texts[0]]
    for text in texts[1:]:
        if data.draw(st.booleans()):
            line.append(text)
        else:
            lines.append(line)
            line = [text]
    return [data.draw(st.sampled_from([",", ", ", " ,\t", ",,"])).join(line) for line in [*lines, line]]


def element(node: str, data: st.DataObject) -> str:
    """One element of Forwarded, with some other parameters around it."""
    if data.draw(st.booleans()) or set(node) & set(':[]"'):
        escaped = "".join("\\" + character if data.draw(st.integers(0, 9)) == 0 else character for character in node)
        node = f'"{escaped}"'
    pairs = [f"{data.draw(st.sampled_from(['for', 'For', 'FOR']))}={node}"]
    pairs += data.draw(st.lists(st.sampled_from(["proto=https", "by=_gate", 'host="a,b"']), unique=True, max_size=2))
    return data.draw(st.sampled_from([";", "; "])).join(data.draw(st.permutations(pairs)))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.99:4321", "192.0.2.99"),
        ("2600:300:f:abcd::9:9985", "2600:300:f:abcd::9"),
        ("[2600:300:f:abcd::9]:9985", "2600:300:f:abcd::9"),
        ("2001:db8:1:2:3:4:5:6:443", "2001:db8:1:2:3:4:5:6"),
        ("2001:db8:1:2:3:4:5:6", "?"),
        ("192.0.2.99", "?"),
        ("192.0.2.99:", "?"),
        ("192.0.2.99:http", "?"),
        ("::1:443443", "?"),
        ("[2600:300:f:abcd::9:9985", "?"),
        ("2600:300:f:abcd::9]:9985", "?"),
        (":80", "?"),
    ],
)
def test_a_field_that_is_documented_with_a_port_is_read_with_its_port(text, address):
    assert seen(text, header="CloudFront-Viewer-Address") == address


@given(_PACKED, st.integers(0, 65535))
def test_cloudfronts_address_and_port_are_told_apart_whatever_they_are(packed, port):
    assert seen(f"{text_of(packed)}:{port}", header="CloudFront-Viewer-Address") == str(ip_address(plain(packed)))


CUSTOM = "X-Our-Client"
AMBIGUOUS = "2600:300:f:abcd::9:9985"


@pytest.mark.parametrize(
    ("text", "unknown", "address", "with_port"),
    [
        (AMBIGUOUS, "?", AMBIGUOUS, "2600:300:f:abcd::9"),
        ("2001:db8::1:2", "?", "2001:db8::1:2", "2001:db8::1"),
        ("2001:db8::1:0443", "?", "2001:db8::1:443", "2001:db8::1"),
        ("::1:443", "?", "::1:443", "::1"),
        ("1::8:0", "?", "1::8:0", "1::8"),
        ("::ffff:7f00:1", "?", "127.0.0.1", "::ffff:7f00"),
        ("1:2:3:4:5:6::8:80", "1:2:3:4:5:6:0:8", "?", "1:2:3:4:5:6:0:8"),
        ("2600:300:f:abcd::9:59985", "2600:300:f:abcd::9", "?", "2600:300:f:abcd::9"),
        ("2001:db8:1:2:3:4:5:6:443", "2001:db8:1:2:3:4:5:6", "?", "2001:db8:1:2:3:4:5:6"),
        ("2001:db8:1:2:3:4:5:443", "2001:db8:1:2:3:4:5:443", "2001:db8:1:2:3:4:5:443", "?"),
        ("2001:db8::443", "2001:db8::443", "2001:db8::443", "?"),
        ("2001:db8::9:99a5", "2001:db8::9:99a5", "2001:db8::9:99a5", "?"),
        ("::443", "::443", "::443", "?"),
        ("2001:db8::", "2001:db8::", "2001:db8::", "?"),
        ("2001:db8:::443", "2001:db8::", "?", "2001:db8::"),
        ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1", "?"),
        ("::ffff:192.0.2.1:80", "192.0.2.1", "?", "192.0.2.1"),
        ("::1:65536", "?", "?", "?"),
        ("::1:443443", "?", "?", "?"),
        ("[2001:db8::9]", "2001:db8::9", "2001:db8::9", "?"),
        ("[2001:db8::9:9985]:80", "2001:db8::9:9985", "2001:db8::9:9985", "2001:db8::9:9985"),
        ("192.0.2.99", "192.0.2.99", "192.0.2.99", "?"),
        ("192.0.2.99:80", "192.0.2.99", "192.0.2.99", "192.0.2.99"),
        ("[192.0.2.99]:80", "?", "?", "?"),
        ("unknown", "?", "?", "?"),
    ],
)
def test_a_field_of_no_known_form_is_read_where_it_has_one_reading_and_otherwise_as_configured(text, unknown, address, with_port):
    assert seen(text, header=CUSTOM) == unknown
    for header in (CUSTOM, "CF-Connecting-IP", "CloudFront-Viewer-Address"):
        assert seen(text, header=header, form="address") == address
        assert seen(text, header=header, form="address:port") == with_port


@pytest.mark.parametrize(
    "name", ["CF-Connecting-IP", "cf-connecting-ipv6", "X-Azure-ClientIP", "X-Appengine-User-Ip", "X-Envoy-External-Address"]
)
def test_a_field_that_is_documented_as_an_address_is_read_as_one(name):
    assert seen(AMBIGUOUS, header=name) == AMBIGUOUS


def test_what_can_be_read_in_two_ways_is_shown_with_its_field():
    rule = rule_of(ClientIp(trusted_proxies=TRUSTED, header=CUSTOM))
    problem = rule.of(a_request(PROXY, (CUSTOM, AMBIGUOUS))).problem
    assert problem == f"the trusted proxy {PROXY} sent {CUSTOM} with '{AMBIGUOUS}', which is either an IPv6 address or one with a port"


_GROUPS = st.lists(st.sampled_from([0, 0, 1, 9, 0x10, 0x443, 0x9985, 0xABCD, 0xFFFF]) | st.integers(0, 0xFFFF), min_size=8, max_size=8)


def spellings(packed: bytes) -> list[str]:
    """An address as proxies write it: shortened, in full, in capitals."""
    address = ip_address(packed)
    return [str(address), text_of(packed), address.exploded, str(address).upper()]


def meanings(text: str) -> set[str]:
    """Every client that a proxy can mean by a text without brackets, by the system's parser."""
    address, _, port = text.rpartition(":")
    found = set()
    for part, stands in ((text, True), (address, port.isdecimal() and int(port) <= 65535)):
        for family in (socket.AF_INET, socket.AF_INET6) if stands else ():
            with suppress(OSError):
                found.add(str(ip_address(plain(socket.inet_pton(family, part)))))
    return found


@given(_PACKED | _GROUPS.map(lambda groups: b"".join(group.to_bytes(2, "big") for group in groups)), st.integers(0, 65535))
def test_a_field_of_no_known_form_is_believed_exactly_if_nobody_else_can_be_meant(packed, port):
    true = str(ip_address(plain(packed)))
    for text in spellings(packed):
        for written in (text, f"{text}:{port}"):
            meant = meanings(written)
            assert true in meant
            assert seen(written, header=CUSTOM) == (true if len(meant) == 1 else "?"), written
        if ":" in text:
            assert seen(f"[{text}]", header=CUSTOM) == seen(f"[{text}]:{port}", header=CUSTOM) == true


@pytest.mark.parametrize(
    ("peer", "believed", "lines", "secure", "host"),
    [
        (PROXY, True, [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "api.example:8443")], True, b"api.example:8443"),
        (PROXY, True, [("X-Forwarded-Proto", "http, HTTPS")], True, b"inside"),
        (PROXY, True, [("X-Forwarded-Proto", "https"), ("X-Forwarded-Proto", "http")], False, b"inside"),
        (PROXY, True, [("X-Forwarded-Proto", "wss"), ("X-Forwarded-Host", "a,b")], False, b"inside"),
        (PROXY, True, [("X-Forwarded-Host", "a"), ("X-Forwarded-Host", "b")], False, b"inside"),
        (PROXY, False, [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "api.example")], False, b"inside"),
        ("192.0.2.1", True, [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "api.example")], False, b"inside"),
    ],
)
def test_scheme_and_host_are_those_a_trusted_proxy_tells(peer, believed, lines, secure, host):
    rule = rule_of(ClientIp(trusted_proxies=TRUSTED))
    request = a_request(peer, ("Host", "inside"), *lines).replace(believed=believed)
    sent = rule.as_sent(request)
    assert (sent.secure, sent.field_lines(b"host")) == (secure, [host])
    assert [line for line in sent.headers if line[0] != b"host"] == [line for line in request.headers if line[0] != b"host"]
    assert bool(rule.of(request).secure) is secure


@pytest.mark.parametrize(
    ("lines", "secure", "host"),
    [
        ([("Forwarded", "for=192.0.2.1;proto=HTTPS;host=api.example")], True, b"api.example"),
        ([("Forwarded", 'for=192.0.2.1;Proto=https;host="api.example:8443"')], True, b"api.example:8443"),
        ([("Forwarded", "for=192.0.2.1;proto=https;host=a.example, for=10.0.0.2;proto=http;host=b.example")], False, b"b.example"),
        ([("Forwarded", "for=192.0.2.1;proto=https"), ("Forwarded", "for=10.0.0.2;proto=http")], False, b"inside"),
        ([("Forwarded", "for=192.0.2.1;proto=wss;host=a/b")], False, b"inside"),
        ([("Forwarded", "for=192.0.2.1;proto=https;proto=http")], False, b"inside"),
        ([("Forwarded", 'for=192.0.2.1;host="a,b"')], False, b"inside"),
        ([("Forwarded", "for=192.0.2.1"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "api.example")], False, b"inside"),
        ([("Forwarded", "")], False, b"inside"),
        ([], False, b"inside"),
    ],
)
def test_where_forwarded_names_the_client_it_names_scheme_and_host_too(lines, secure, host):
    rule = rule_of(ClientIp(trusted_proxies=TRUSTED, header="Forwarded"))
    for peer, believed, at, asked in ((PROXY, True, secure, host), (PROXY, False, False, b"inside"), ("192.0.2.1", True, False, b"inside")):
        request = a_request(peer, ("Host", "inside"), *lines).replace(believed=believed)
        sent = rule.as_sent(request)
        assert (sent.secure, sent.field_lines(b"host")) == (at, [asked])
        assert bool(rule.of(request).secure) is at


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"header": "X-Our-Client"}, ["client_ip.header"]),
        ({"header": "X-Our-Client", "header_form": "address"}, []),
        ({"header": "X-Our-Client", "header_form": "address:port"}, []),
        ({"header": "CloudFront-Viewer-Address", "header_form": "address:port"}, []),
        ({"header": "CloudFront-Viewer-Address", "header_form": "address"}, ["client_ip.header_form"]),
        ({"header": "X-Real-IP", "header_form": "address:port"}, ["client_ip.header_form"]),
        ({"header": "X-Azure-ClientIP"}, []),
        ({"header": "CloudFront-Viewer-Address"}, []),
        ({"header": "CF-Connecting-IP"}, []),
        ({"trusted_proxies": ["35.191.0.0/16", "130.211.0.0/22"]}, ["client_ip.trusted_proxies"]),
        ({"trusted_proxies": ["10.0.0.0/8"]}, []),
    ],
)
def test_check_tells_what_a_valid_rule_may_still_get_wrong(settings, where):
    assert [path for path, _ in notes(ClientIp.model_validate(settings))] == where


INSIDE = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "header", "expected"),
    [
        ("8.8.8.8", [], "8.8.8.8"),
        ("8.8.8.8", ["1.1.1.1"], "8.8.8.8"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1"], "1.1.1.1"),
        ("10.0.0.1", ["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
        ("10.0.0.1", ["6.6.6.6", "1.1.1.1, 10.0.0.2"], "1.1.1.1"),
        ("10.0.0.1", ["6.6.6.6, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["6.6.6.6, nonsense, 10.0.0.3"], "10.0.0.1"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.20:17085"], "198.51.100.20"),
        ("10.0.0.1", ["[2606:4700::1111]:443"], "2606:4700::1111"),
        ("10.0.0.1", ["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
        ("::ffff:10.0.0.1", ["::ffff:1.1.1.1"], "1.1.1.1"),
        ("fd00::1", ["2606:4700::1111"], "2606:4700::1111"),
        ("fe80::1%eth0", [], "fe80::1"),
        (None, ["1.1.1.1"], None),
        ("", [], None),
    ],
)
def test_for_the_admin_service_only_a_trusted_proxy_is_believed(peer: str | None, header: list[str], expected: str | None) -> None:
    assert client_ip(peer, header, INSIDE) == expected


@given(st.lists(st.text(max_size=60), max_size=4))
def test_no_header_raises_in_the_admin_service(header: list[str]) -> None:
    assert client_ip("10.0.0.1", header, INSIDE)
