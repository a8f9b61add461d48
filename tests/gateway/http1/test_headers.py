"""Header hygiene, as tables."""

import pytest

from gateway.http1.headers import OWNED, REQUEST_DROP, request_lines, shadows, without


@pytest.mark.parametrize("name", [b"x_account_id", b"x-account_id", b"x_forwarded-for", b"content_length", b"transfer_encoding"])
def test_names_that_fold_onto_the_gates_own_are_known(name: bytes) -> None:
    assert shadows(name)


@pytest.mark.parametrize("name", [b"x_custom", b"account_id", b"x__account_id"])
def test_other_names_with_an_underscore_are_not(name: bytes) -> None:
    assert not shadows(name)


def test_what_a_client_may_not_say_is_left_out_and_the_rest_keeps_its_order() -> None:
    fields = [(name, b"evil") for name in sorted(REQUEST_DROP)] + [(b"x-api-key", b"k"), (b"b", b"2"), (b"a", b"1"), (b"b", b"3")]
    assert request_lines(fields, REQUEST_DROP | {b"x-api-key"}) == b"b: 2\r\na: 1\r\nb: 3\r\n"


def test_every_name_of_the_contract_is_owned() -> None:
    assert {
        b"x-account-id", b"x-key-id", b"x-key-scopes", b"x-client-ip", b"x-request-id", b"x-forwarded-for", b"x-forwarded-proto",
        b"x-forwarded-host", b"x-gateway-assertion",
    } <= OWNED  # fmt: skip


@pytest.mark.parametrize("name", [b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-original-url", b"x-rewrite-url"])
def test_a_field_that_names_another_method_or_path_than_was_admitted_does_not_go_on(name: bytes) -> None:
    assert request_lines([(name, b"DELETE"), (b"a", b"1")], REQUEST_DROP) == b"a: 1\r\n"
    assert shadows(name.replace(b"-", b"_"))


def test_lines_are_left_out_by_name_whatever_their_case() -> None:
    assert without([b"X-Hop: 1", b"x-hop:2", b"X-Hopper: 3"], frozenset({b"x-hop"})) == [b"X-Hopper: 3"]
