"""Header hygiene, as tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http1.headers import FAMILIES, OWNED, REQUEST_DROP, is_never_forwarded, request_lines, shadows


@pytest.mark.parametrize(
    "name",
    [
        b"x_account_id",
        b"x-account_id",
        b"x_forwarded-for",
        b"content_length",
        b"transfer_encoding",
        b"x.account.id",
        b"x!account~id",
        b"x-forwarded.for",
        b"content.length",
        b"x.envoy.anything",
    ],
)
def test_names_that_fold_onto_the_gates_own_are_known(name: bytes) -> None:
    assert shadows(name)


@pytest.mark.parametrize("name", [b"x_custom", b"account_id", b"x__account_id", b"x.custom", b"x-account-id.", b"!transfer-encoding"])
def test_other_unusual_names_are_not(name: bytes) -> None:
    assert not shadows(name)


@pytest.mark.parametrize("name", sorted(REQUEST_DROP) + [family + b"x" for family in FAMILIES])
def test_a_name_in_its_usual_spelling_is_stripped_and_does_not_refuse_the_request(name: bytes) -> None:
    assert is_never_forwarded(name)
    assert not shadows(name)


def test_what_a_client_may_not_say_is_left_out_and_the_rest_keeps_its_order() -> None:
    fields = [(name, b"evil") for name in sorted(REQUEST_DROP)] + [(b"x-api-key", b"k"), (b"b", b"2"), (b"a", b"1"), (b"b", b"3")]
    assert request_lines(fields, REQUEST_DROP | {b"x-api-key"}) == b"b: 2\r\na: 1\r\nb: 3\r\n"


def test_every_name_of_the_contract_is_owned() -> None:
    assert {
        b"x-account-id", b"x-key-id", b"x-key-scopes", b"x-client-ip", b"x-request-id", b"x-forwarded-for", b"x-forwarded-proto",
        b"x-forwarded-host", b"x-gateway-assertion",
    } <= OWNED  # fmt: skip


@pytest.mark.parametrize("name", [
    b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-method", b"x-original-url",
    b"x-rewrite-url", b"x-rewrite-anything", b"x-forwarded-prefix", b"x-forwarded-user", b"x-envoy-original-path", b"true-client-ip",
    b"client-ip", b"x-forwarded", b"forwarded-for", b"x-forward-for", b"x-true-client-ip",
    b"cf-connecting-ip", b"cloudfront-viewer-address", b"proxy", b"remote-user", b"x-http-path-override",
])  # fmt: skip
def test_a_field_that_says_what_only_the_gate_may_say_does_not_go_on_in_any_spelling(name: bytes) -> None:
    assert request_lines([(name, b"DELETE"), (b"a", b"1")], REQUEST_DROP) == b"a: 1\r\n"
    assert is_never_forwarded(name)
    assert b"-" not in name or shadows(name.replace(b"-", b"_"))


@given(st.sampled_from(FAMILIES), st.from_regex(rb"[a-z0-9\-]{0,20}", fullmatch=True))
def test_whole_families_stay_behind(beginning: bytes, end: bytes) -> None:
    assert is_never_forwarded(beginning + end)
    assert request_lines([(beginning + end, b"1")], frozenset()) == b""
    assert shadows((beginning + end).replace(b"-", b"_"))


def test_names_that_only_look_alike_go_on() -> None:
    fields = [
        (name, b"1") for name in (b"x-forwar", b"x-originally", b"xx-forwarded-for", b"x", b"x-envoy", b"xforwarded-for", b"forwarded-x")
    ]
    assert request_lines(fields, REQUEST_DROP).count(b"\r\n") == len(fields)
    assert all(family[0] == ord("x") for family in FAMILIES)  # what request_lines looks at first
