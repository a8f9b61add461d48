"""deploy.local.exchange.account: money neither appears nor vanishes, whatever is placed, filled and cancelled."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.local.exchange.account import FIRST_BALANCES, Account, OrderRefused, text
from deploy.local.exchange.market import MARKETS, Quote

BTC = MARKETS["BTC-IDR"]
NOW = Quote(last=Decimal(1_000_000), bid=Decimal(999_000), ask=Decimal(1_001_000), time_ms=0)


def place(account, number=1, *, side="buy", kind="limit", quantity="0.5", price="900000", **more):
    price = None if price is None else Decimal(price)
    return account.place(number, BTC, side=side, kind=kind, quantity=Decimal(quantity), price=price, quote=NOW, now_ms=1, **more)


def held(account, currency):
    return account.balances[currency].available, account.balances[currency].locked


def test_an_order_away_from_the_market_waits_and_locks_what_it_may_cost():
    account = Account()
    assert place(account).status == "open"
    assert held(account, "IDR") == (Decimal(999_550_000), Decimal(450_000))


def test_an_order_at_the_market_is_filled_at_the_markets_price_not_at_its_limit():
    account = Account()
    order = place(account, price="1100000")
    assert (order.status, order.fill_price) == ("filled", Decimal(1_001_000))
    assert held(account, "IDR") == (Decimal(1_000_000_000) - Decimal(500_500), 0)
    assert held(account, "BTC") == (Decimal("1.5"), 0)


def test_a_waiting_order_is_filled_when_the_market_reaches_it():
    account = Account()
    order = place(account)
    account.settle(lambda _market: Quote(Decimal(890_000), Decimal(889_000), Decimal(891_000), 0), 2)
    assert (order.status, order.fill_price, order.updated_ms) == ("filled", Decimal(891_000), 2)


def test_cancelling_gives_back_what_was_locked():
    account = Account()
    place(account, side="sell", price="2000000")
    assert held(account, "BTC") == (Decimal("0.5"), Decimal("0.5"))
    assert account.cancel(1, 5).status == "cancelled"
    assert held(account, "BTC") == (1, 0)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"quantity": "0"}, "invalid_quantity"),
        ({"quantity": "0.000000001"}, "invalid_quantity"),
        ({"price": "900000.5"}, "invalid_price"),
        ({"price": None}, "invalid_price"),
        ({"kind": "market"}, "invalid_price"),
        ({"quantity": "0.001"}, "order_too_small"),
        ({"quantity": "100000"}, "insufficient_balance"),
        ({"side": "sell", "quantity": "2"}, "insufficient_balance"),
    ],
)
def test_an_order_that_breaks_a_rule_changes_nothing(asked, code):
    account = Account()
    with pytest.raises(OrderRefused) as refused:
        place(account, **asked)
    assert refused.value.code == code
    assert not account.orders
    assert {name: balance.available for name, balance in account.balances.items()} == FIRST_BALANCES


def test_an_order_is_cancelled_once_and_only_when_it_is_there():
    account = Account()
    place(account)
    account.cancel(1, 2)
    for number, code in ((1, "order_not_open"), (2, "order_not_found")):
        with pytest.raises(OrderRefused) as refused:
            account.cancel(number, 3)
        assert refused.value.code == code


def test_an_open_orders_own_id_is_not_used_twice():
    account = Account()
    place(account, client_id="mine")
    with pytest.raises(OrderRefused, match="client order id"):
        place(account, 2, client_id="mine")
    account.cancel(1, 2)
    assert place(account, 3, client_id="mine").number == 3


prices = st.integers(1, 2000).map(lambda thousands: Decimal(thousands * 1000))


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(["buy", "sell"]), st.integers(1, 80), prices, prices, st.booleans()), max_size=12))
def test_no_sequence_of_orders_makes_money_or_leaves_any_locked(steps):
    account = Account()
    worth_in, worth_out = Decimal(0), Decimal(0)
    for number, (side, hundredths, limit, last, cancel) in enumerate(steps, start=1):
        quote = Quote(last, last, last, 0)
        account.settle(lambda _market, quote=quote: quote, number)
        try:
            account.place(number, BTC, side=side, kind="limit", quantity=Decimal(hundredths) / 100, price=limit, quote=quote, now_ms=number)
        except OrderRefused:
            continue
        if cancel and account.orders[number].status == "open":
            account.cancel(number, number)
    for order in list(account.open_orders()):
        account.cancel(order.number, 99)
    for order in account.orders.values():
        if order.status == "filled":
            signed = order.quantity if order.side == "buy" else -order.quantity
            worth_in += signed
            worth_out += signed * order.fill_price
            assert order.fill_price <= order.price if order.side == "buy" else order.fill_price >= order.price
    assert held(account, "BTC") == (1 + worth_in, 0)
    assert held(account, "IDR") == (Decimal(1_000_000_000) - worth_out, 0)
    assert all(balance.available >= 0 for balance in account.balances.values())


@pytest.mark.parametrize(("value", "shown"), [("1E+3", "1000"), ("0.10", "0.1"), ("5", "5"), ("0E-8", "0"), ("0.00000001", "0.00000001")])
def test_amounts_are_told_in_plain_notation(value, shown):
    assert text(Decimal(value)) == shown
