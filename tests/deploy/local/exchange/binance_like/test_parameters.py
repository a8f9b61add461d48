"""deploy.local.exchange.binance_like.parameters: whatever a caller sends is read, or refused."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.local.exchange.binance_like.parameters import Parameters, written
from deploy.local.exchange.orders import OrderRefused


@pytest.mark.parametrize(
    ("number", "kept"),
    [
        ("0.00000100", "0.00000100"),
        ("1e3", "1000"),
        ("1E-8", "0.00000001"),
        ("2.50e1", "25"),
        ("1e999999999", "1e999999999"),
        ("1e99999999999999999999", "1e99999999999999999999"),
        ("12345678901234567890.123456789", "12345678901234567890.123456789"),
    ],
)
def test_a_number_in_a_message_keeps_its_digits_and_loses_its_exponent(number, kept):
    assert json.loads(number, parse_int=written, parse_float=written) == kept


values = st.none() | st.booleans() | st.text(max_size=20) | st.lists(st.none() | st.text(max_size=5), max_size=3)


@given(st.dictionaries(st.sampled_from(["symbol", "symbols", "limit", "quantity", "side", "newClientOrderId"]), values))
def test_whatever_is_sent_is_read_or_refused(asked):
    parameters = Parameters(asked)
    for read in (
        parameters.market,
        parameters.markets,
        lambda: parameters.limit(5, 10),
        lambda: parameters.amount("quantity", "wrong"),
        lambda: parameters.choice("side", "wrong", ("BUY",)),
        lambda: parameters.client_id("newClientOrderId"),
    ):
        with contextlib.suppress(OrderRefused):
            read()
