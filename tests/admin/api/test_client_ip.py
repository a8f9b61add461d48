"""The customer's address: the peer, or what a trusted proxy says, from the right."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.api.client_ip import client_ip, failure_group

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


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
        ("10.0.0.1", ["6.6.6.6, nonsense, 10.0.0.3"], "10.0.0.3"),
        ("10.0.0.1", ["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
        ("::ffff:10.0.0.1", ["::ffff:1.1.1.1"], "1.1.1.1"),
        ("fd00::1", ["2606:4700::1111"], "2606:4700::1111"),
        ("fe80::1%eth0", [], "fe80::1"),
        (None, ["1.1.1.1"], None),
        ("", [], None),
    ],
)
def test_only_a_trusted_proxy_is_believed(peer: str | None, header: list[str], expected: str | None) -> None:
    assert client_ip(peer, header, TRUSTED) == expected


def test_failures_are_counted_by_address_or_by_a_customers_whole_prefix() -> None:
    assert failure_group("8.8.8.8") == "8.8.8.8"
    assert failure_group("2606:4700::1") == failure_group("2606:4700::ffff") == "2606:4700::/64"
    assert failure_group(None) == "None"


@given(st.lists(st.text(max_size=60), max_size=4))
def test_no_header_raises(header: list[str]) -> None:
    assert client_ip("10.0.0.1", header, TRUSTED)
