"""deploy.local.exchange.amounts: plain notation both ways."""

from decimal import Decimal

import pytest

from deploy.local.exchange.amounts import decimal, floored, text
from deploy.local.exchange.orders import OrderRefused


@pytest.mark.parametrize(("value", "shown"), [("1E+3", "1000"), ("0.10", "0.1"), ("5", "5"), ("0E-8", "0"), ("0.00000001", "0.00000001")])
def test_amounts_are_told_in_plain_notation(value, shown):
    assert text(Decimal(value)) == shown


@pytest.mark.parametrize("value", ["", "1e3", "-1", "+1", ".5", "1.", "NaN", "1_0", "١", "1" * 19, 1, 1.0, None])
def test_what_is_no_plain_positive_number_as_text_is_refused(value):
    with pytest.raises(OrderRefused) as refused:
        decimal(value, "wrong")
    assert refused.value.code == "wrong"


def test_an_amount_is_rounded_down_to_whole_lots():
    assert floored(Decimal("0.129"), Decimal("0.01")) == Decimal("0.12")
    assert floored(Decimal("0.009"), Decimal("0.01")) == 0
