"""IP addresses: whose they are, and membership in a list. The text form is tried in ``test_client_ip``."""

from ipaddress import IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.net.addresses import NetworkList, canonical, customer_network, is_site, most_of_site, owners, owners_with_key


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("not:an:address", "not:an:address"),
    ],
)
def test_a_customer_is_an_ipv4_address_or_the_64_of_an_ipv6_address(address, network):
    assert customer_network(address) == network


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_two_addresses_are_one_customer_when_their_first_64_bits_are_equal(prefix, one, other):
    first, second = IPv6Address(prefix << 64 | one), IPv6Address(prefix << 64 | other)
    if canonical(str(first)) == str(first) and canonical(str(second)) == str(second):  # not IPv4-mapped
        assert customer_network(str(first)) == customer_network(str(second)) == str(ip_network((prefix << 64, 64)))


@pytest.mark.parametrize("network", ["10.0.0.0/8", "::ffff:10.0.0.0/104"])
@pytest.mark.parametrize(
    ("peer", "inside"),
    [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("11.0.0.1", False), ("::ffff:11.0.0.1", False), ("", False), ("a socket", False)],
)
def test_mapped_networks_and_addresses_are_the_ipv4_ones(network, peer, inside):
    assert NetworkList([ip_network(network)]).contains(peer) is inside
    assert not NetworkList([]).contains(peer)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0000:0000:0000:0000:0000:ffff:255.255.255.255", "255.255.255.255"),  # the longest there is
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", None),
        ("10.0.0.01", None),
        ("10.1", None),
        ("0x0a000001", None),
        ("192.0.2.1:80", None),
        ("[::1]", None),
        (" 192.0.2.1", None),
        ("", None),
        ("1" * 46, None),
    ],
)
def test_an_address_has_one_text(text, address):
    assert canonical(text) == address


def test_a_list_is_true_when_there_is_anything_in_it():
    assert [bool(NetworkList(networks)) for networks in ([], [ip_network("10.0.0.0/8")])] == [False, True]


@pytest.mark.parametrize(
    ("address", "whose"),
    [
        ("192.0.2.1", ("192.0.2.1",)), ("::ffff:192.0.2.1", ("192.0.2.1",)), ("", ("",)), ("unknown", ("unknown",)),
        ("2001:db8:1:2:3::4", ("2001:db8:1::/48", "2001:db8:1:2::/64")), ("2001:DB8:1:ffff::", ("2001:db8:1::/48", "2001:db8:1:ffff::/64")),
        ("2001:db8:1:2::/64", ("2001:db8:1:2::/64",)), ("2001:db8:1::/48", ("2001:db8:1::/48",)),
    ],
)  # fmt: skip
def test_what_an_ipv6_client_uses_is_its_networks_and_its_sites(address, whose):
    assert owners(address) == whose
    assert [is_site(owner) for owner in whose] == [owner.endswith("/48") for owner in whose]


def test_customers_of_a_site_that_have_keys_are_apart_from_those_without():
    with_key, without = owners_with_key("2001:db8:1:2::1"), owners("2001:db8:1:2::1")
    assert with_key[-1] == without[-1]
    assert with_key[0] != without[0]
    assert [is_site(owner) for owner in with_key] == [True, False]
    assert owners_with_key("192.0.2.1") == ("192.0.2.1",)


@pytest.mark.parametrize(
    ("of_one", "in_all", "of_site"), [(1_000, 10_003, 2_500), (100, 10_000, 1_000), (200, 4_000, 1_000), (8, 8, 8), (60, None, 600)]
)
def test_a_site_may_have_ten_times_as_much_but_no_more_than_a_quarter_of_all(of_one, in_all, of_site):
    assert most_of_site(of_one, in_all) == of_site, "a whole number"
