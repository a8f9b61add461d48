"""Fields of a configuration: what each accepts, and that nothing else passes."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from gateway.config.fields import AddressField, EndpointField, HeaderName, NetworkField, PathField, RateField, ServerField
from gateway.config.values import Address, Rate

NO_URLS = [
    "",
    "127.0.0.1:80",
    "ftp://x",
    "http://",
    "http://x#y",
    "http://u:p@x",
    "http://@x",
    "http://x:0",
    "http://a..b",
    f"http://{'x' * 64}.example:80",
    "http://x:99999",
    "http://[::1",
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1/second", Rate(1, 1_000)), ("1200/minute", Rate(1200, 60_000)), ("5/hour", Rate(5, 3_600_000)), ("9/day", Rate(9, 86_400_000))],
)
def test_rates(text, expected):
    rate = TypeAdapter(RateField).validate_python(text)
    assert rate == expected
    assert str(rate) == text


@pytest.mark.parametrize(
    "text", ["", "0/minute", "-1/minute", "1", "1/min", "1 / minute", "01/minute", "1.5/minute", "1/minute\n", "9999999999/day"]
)
def test_what_is_no_rate(text):
    with pytest.raises(ValidationError, match="write a rate as"):
        TypeAdapter(RateField).validate_python(text)


@pytest.mark.parametrize(
    ("field", "said"), [(RateField, "write a rate as"), (AddressField, "write an address as"), (NetworkField, "write a network as")]
)
@pytest.mark.parametrize("value", [5, 5.5, True, None, b"1", ["", 0], [0, 0], (1200, 60_000), {}], ids=repr)
def test_what_is_no_text_is_refused_in_the_words_of_its_field(field, said, value):
    """A network is no number (5 would be 0.0.0.5), a rate and an address no array, whose values nobody has looked at."""
    with pytest.raises(ValidationError, match=said):
        TypeAdapter(field).validate_python(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("127.0.0.1:80", Address("127.0.0.1", 80)), ("[::1]:0", Address("::1", 0)), ("localhost:65535", Address("localhost", 65535))],
)
def test_addresses(text, expected):
    address = TypeAdapter(AddressField).validate_python(text)
    assert address == expected
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["", ":80", "127.0.0.1", "127.0.0.1:", "::1:80", "127.0.0.1:65536", "[::1]", "a b:80", "[x]:1\n", "a..b:80", f"{'x' * 64}:80"]
)
def test_what_is_no_address(text):
    with pytest.raises(ValidationError, match="write an address as"):
        TypeAdapter(AddressField).validate_python(text)


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "10.0.0", "x", "010.0.0.0/8", "::/129", ""])
def test_what_is_no_network_is_refused_not_taken_as_text(text):
    with pytest.raises(ValidationError):
        TypeAdapter(NetworkField).validate_python(text)


@pytest.mark.parametrize("text", ["", "a b", "a:", "ü", "-".join("abcdefghij")])
def test_what_is_no_header_name(text):
    with pytest.raises(ValidationError, match="header field name"):
        TypeAdapter(HeaderName).validate_python(text)


@pytest.mark.parametrize(
    "text",
    [*NO_URLS, "http://x/path", "http://x?y"],
)
def test_what_is_no_server(text):
    with pytest.raises(ValidationError, match="write a server as"):
        TypeAdapter(ServerField).validate_python(text)


@pytest.mark.parametrize("text", NO_URLS)
def test_what_is_no_endpoint(text):
    with pytest.raises(ValidationError, match="write an endpoint as"):
        TypeAdapter(EndpointField).validate_python(text)


@pytest.mark.parametrize(("field", "text"), [(ServerField, "HTTPS://spot.internal/"), (EndpointField, "HTTPS://spot.internal/v1/Traces")])
def test_a_scheme_is_read_in_any_case_and_kept_in_lower_case(field, text):
    expected = text.replace("HTTPS", "https").rstrip("/")
    assert TypeAdapter(field).validate_python(text) == expected, "who compares the text must not take it for plain HTTP"


@given(st.text(max_size=40))
def test_no_text_does_anything_but_parse_or_be_refused(text):
    for field in (RateField, AddressField, NetworkField, ServerField):
        adapter = TypeAdapter(field)
        with suppress(ValidationError):
            adapter.validate_python(text)


def test_a_path_with_nul_is_none():
    with pytest.raises(ValidationError, match="contains NUL"):
        TypeAdapter(PathField).validate_python("a\0b")
