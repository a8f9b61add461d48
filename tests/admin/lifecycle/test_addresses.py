"""Whitelisted addresses: public ones only, each once, three at most."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.lifecycle.addresses import parse_allowlist, why_not_public


def codes(*texts: str) -> list[tuple[str, str]]:
    return [(error.field, error.code) for error in parse_allowlist(texts)[1]]


@pytest.mark.parametrize(
    "text",
    [
        "192.168.1.10", "10.0.0.1", "127.0.0.1", "::1", "fe80::1", "::ffff:10.0.0.1", "224.0.0.1", "203.0.113.7",
        "0.0.0.0", "255.255.255.255", "100.64.0.1", "169.254.1.1", "172.31.255.255", "192.0.0.9", "192.0.2.1", "192.88.99.1",
        "198.18.0.1", "198.51.100.1", "240.0.0.1", "::", "::8.8.8.8", "64:ff9b::808:808", "2001::1", "2001:db8::1", "2002:808:808::1",
        "3fff::1", "fc00::1", "fd12::1", "ff02::1", "4000::1", "100::1", "::ffff:127.0.0.1", "5f00::1",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public_is_refused(text: str) -> None:
    assert codes(text) == [("ip_allowlist[0]", "not_public")]


@pytest.mark.parametrize(
    "text",
    [
        "1.2.3", "0x08.8.8.8", "", " 8.8.8.8", "8.8.8.8 ", "8.8.8.8\n", "08.8.8.8", "8.8.8.256", "8.8.8.8/32",
        "8.8.8.8:443", "[2606:4700::1]",
        "134744072", "8.8.8.8.8", "localhost", "2606:4700::1%eth0", "2606:4700:::1", "٨.٨.٨.٨", "8.8.8.8\x00", "1" * 100,
    ],
)  # fmt: skip
def test_what_is_not_an_address_is_refused(text: str) -> None:
    assert codes(text) == [("ip_allowlist[0]", "not_an_address")]


@pytest.mark.parametrize(
    "text", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "192.0.1.1", "100.128.0.1", "223.255.255.255", "2606:4700::1111", "2a00:1450::5"]
)
def test_a_public_address_is_kept(text: str) -> None:
    assert parse_allowlist([text]) == ((ip_address(text),), [])


def test_a_mapped_address_is_kept_as_the_ipv4_one_that_the_gate_sees() -> None:
    assert parse_allowlist(["::ffff:8.8.8.8"]) == ((ip_address("8.8.8.8"),), [])


@pytest.mark.parametrize("twin", ["8.8.8.8", "::ffff:8.8.8.8", "::FFFF:808:808"])
def test_the_same_address_twice_is_refused_however_it_is_written(twin: str) -> None:
    assert codes("8.8.8.8", twin) == [("ip_allowlist[1]", "duplicate")]


def test_two_spellings_of_one_ipv6_address_are_one() -> None:
    assert codes("2606:4700:0:0::1", "2606:4700::0001") == [("ip_allowlist[1]", "duplicate")]


def test_three_are_accepted_and_a_fourth_is_refused() -> None:
    assert codes("8.8.8.8", "8.8.4.4", "1.1.1.1") == []
    assert codes("8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1") == [("ip_allowlist", "too_many")]


def test_every_wrong_address_is_told_at_its_place() -> None:
    assert codes("10.0.0.1", "8.8.8.8", "x") == [("ip_allowlist[0]", "not_public"), ("ip_allowlist[2]", "not_an_address")]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["8.8.8.8", "10.0.0.1"], "10.0.0.1 is private: enter the public address that your bot's requests come from."),
        (["fe80::1"], "fe80::1 is link-local: enter"),
        (["4000::1"], "4000::1 is reserved: enter"),
        (["1.1.1.1", "8.8.8.8", "8.8.8.8"], "8.8.8.8 is already number 2 of the list."),
        (["8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1"], "At most 3 addresses; there are 4."),
        (["x"], "Not an IP address: write one IPv4 or IPv6 address, such as 8.8.8.8"),
    ],
)
def test_what_is_wrong_is_told_with_what_to_do(texts: list[str], message: str) -> None:
    (error,) = parse_allowlist(texts)[1]
    assert error.message.startswith(message)


def test_the_longest_spelling_of_an_address_is_read() -> None:
    assert parse_allowlist(["0000:0000:0000:0000:0000:ffff:100.100.100.100"])[1][0].code == "not_public"
    assert codes("0000:0000:0000:0000:0000:ffff:255.255.255.255") == [("ip_allowlist[0]", "not_public")]


@given(st.ip_addresses())
def test_nothing_passes_that_the_standard_library_does_not_call_global(address) -> None:
    if why_not_public(address) is None:
        assert address.is_global
        assert not address.is_multicast


@given(st.lists(st.one_of(st.text(max_size=50), st.ip_addresses().map(str)), max_size=20))
def test_any_texts_give_addresses_or_errors_and_never_raise(texts: list[str]) -> None:
    addresses, errors = parse_allowlist(texts)
    assert errors or len(addresses) == len(texts) <= 3
    assert len(errors) <= 7
