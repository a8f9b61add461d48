"""One of each security rule: a search over the product's code finds a single writer."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text() for room in ("gateway", "admin", "deploy") for path in (ROOT / room).rglob("*.py")
}
ONCE = {
    "the parser of X-Forwarded-For": (r"\bclass ClientIpRule\b|def \w*forwarded_for\b", "gateway/net/client_ip.py"),
    "the TLS context of a server": (r"\.load_cert_chain\(", "gateway/net/tls.py"),
    "Redis errors translated": (r"redis\.exceptions|\bRedisError\b", "gateway/keys/redis_client.py"),
    "the generic cell rate algorithm": (r"\binterval\w* = .*period_ms / ", "gateway/runtime/gcra.py"),
    "times in RFC 3339": (r"def rfc3339\b|isoformat\(timespec", "gateway/runtime/moments.py"),
    "the text of an address": (r"\.ipv4_mapped\b", "gateway/net/addresses.py"),
    "IPv6 addresses grouped by customer": (r">> 64|\{\w+\}/64|, 64\)\)", "gateway/net/addresses.py"),
    "whether a list of networks holds an address": (r"any\(addr\w* in \w+ for\b|\.subnet_of\(", "gateway/net/addresses.py"),
    "the hop-by-hop fields": (r'b"proxy-authenticate"', "gateway/http1/headers.py"),
    "the connection options": (r"def \w*connection_options\b|def persists\b", "gateway/http1/framing.py"),
    "the chunks that are read": (r"int\(match\[1\], 16\)|class \w*Chunk\w*\b", "gateway/http1/chunked.py"),
    "the chunks that are written": (r"def chunk\b|^LAST_CHUNK\b", "gateway/http1/framing.py"),
    "content in chunks, as a length": (r"(?m)^CHUNKED\b", "gateway/http1/framing.py"),
    "what is remembered of heads": (r"def remember\(memo\b", "gateway/http1/memo.py"),
    "the members of a problem": (r"urn:gerbang:problem:|about:blank", "gateway/errors.py"),
    "the media type of a problem": (r'= "application/problem\+json"|type="application/problem\+json"', "gateway/errors.py"),
}


@pytest.mark.parametrize("rule", ONCE)
def test_each_rule_stands_once(rule: str) -> None:
    pattern, home = ONCE[rule]
    found = [name for name, text in SOURCES.items() if re.search(pattern, text)]
    assert found == [home]


READS_ADDRESSES = {
    "admin/internal/models.py": "filters of a search",
    "admin/lifecycle/operations.py": "the address of a past refusal, compared with a filter",
    "admin/notices/letters.py": "canonical text for a mail",
    "admin/pages/keys.py": "whether the browser's address may be listed",
    "admin/stepup/passkeys.py": "whether a host name is an address",
    "deploy/cli/arguments.py": "an argument of a command",
    "gateway/admission/builtin.py": "the family of an address that is known",
    "gateway/config/fields.py": "networks of the configuration",
    "gateway/config/plain.py": "the same, as a worker gets them",
    "gateway/keys/codec.py": "the allow list of a sealed record",
    "gateway/net/addresses.py": "the rule itself",
    "gateway/net/proxy_protocol.py": "the source that a PROXY header names",
}
"""Modules that make an address or a network of text or bytes, and what for. Whoever decides whether a peer is trusted must do that, so a
second answer to the question appears here; the only one is ``NetworkList`` of ``gateway.net.addresses``."""
_READING = re.compile(r"\b(?:ip_address|ip_network|ip_interface|inet_aton|inet_pton)\b|\bIPv[46]Address\(")


def test_addresses_are_read_only_where_it_is_known_what_for() -> None:
    assert {name for name, text in SOURCES.items() if _READING.search(text)} == set(READS_ADDRESSES)


@pytest.mark.parametrize(
    "second",
    [
        "trusted = any(ip_address(peer) in network for network in proxies)",
        "return ipaddress.ip_address(peer) in self._proxies",
        "socket.inet_pton(socket.AF_INET, peer)",
        "int(IPv4Address(peer)) & mask == base",
    ],
)
def test_a_second_answer_to_whether_a_peer_is_trusted_would_be_found(second: str) -> None:
    assert _READING.search(second)
