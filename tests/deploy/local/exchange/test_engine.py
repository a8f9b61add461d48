"""deploy.local.exchange.engine: money neither appears nor vanishes, whoever places, fills and cancels; each order is what it says."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.local.exchange.account import FIRST_BALANCES, MAX_KEPT, MAX_OPEN
from deploy.local.exchange.engine import MAX_ACCOUNTS, Exchange
from deploy.local.exchange.feed import Feed
from deploy.local.exchange.market import MARKETS, STEP_MS, quote
from deploy.local.exchange.orders import OrderRefused, OrderRequest
from tests.deploy.local.exchange.conftest import BTC, NOW_MS


def requested(side="buy", quantity="0.5", price="900000", **more):
    kind = "market" if price is None else "limit"
    amount = None if quantity is None else Decimal(quantity)
    return OrderRequest(BTC, side, more.pop("kind", kind), amount, None if price is None else Decimal(price), **more)


def place(engine, *asked, account="budi", **more):
    return engine.place(engine.account(account), requested(*asked, **more), engine.now_ms)


def held(engine, currency, account="budi"):
    balance = engine.account(account).balances[currency]
    return balance.available, balance.locked


def test_an_order_away_from_the_market_waits_and_locks_what_it_may_cost(engine):
    order, fills = place(engine)
    assert (order.status, fills) == ("open", [])
    assert held(engine, "IDR") == (Decimal(999_550_000), Decimal(450_000))


def test_an_order_at_the_market_is_filled_at_the_markets_price_not_at_its_limit(engine):
    order, (fill,) = place(engine, price="1100000")
    assert (order.status, fill.price, fill.maker) == ("filled", Decimal(1_001_000), False)
    assert held(engine, "IDR") == (Decimal(1_000_000_000) - Decimal(500_500), 0)
    assert held(engine, "BTC") == (Decimal("1.5"), 0)


def test_a_waiting_order_is_filled_at_its_limit_when_the_market_reaches_it_and_nobody_asks(engine, move):
    order, _ = place(engine)
    move(889_000, 891_000)
    (fill,) = engine.account("budi").fills
    assert (order.status, fill.price, fill.maker) == ("filled", Decimal(900_000), True)
    assert held(engine, "IDR") == (Decimal(999_550_000), 0)


def test_cancelling_gives_back_what_was_locked(engine):
    order, _ = place(engine, side="sell", price="2000000")
    assert held(engine, "BTC") == (Decimal("0.5"), Decimal("0.5"))
    assert engine.cancel(engine.account("budi"), order, engine.now_ms).status == "cancelled"
    assert held(engine, "BTC") == (1, 0)


def test_two_customers_meet_between_bid_and_ask_the_first_at_its_price(engine):
    resting, _ = place(engine, "sell", "0.2", "1000000", account="siti")
    order, fills = place(engine, "buy", "0.5", "1001000")
    assert [(fill.price, fill.quantity) for fill in fills] == [(1_000_000, Decimal("0.2")), (1_001_000, Decimal("0.3"))]
    assert (resting.status, order.status, order.average_price) == ("filled", "filled", Decimal(1_000_600))
    assert held(engine, "BTC", "siti") == (Decimal("0.8"), 0)
    assert held(engine, "IDR", "siti") == (1_000_200_000, 0)


def test_a_resting_order_that_is_met_in_part_keeps_the_rest_in_the_book(engine):
    resting, _ = place(engine, "sell", "0.5", "1000000", account="siti")
    place(engine, "buy", "0.2", None)
    assert (resting.status, resting.remaining) == ("open", Decimal("0.3"))
    assert dict(engine.books[BTC].levels("sell", 5))[Decimal(1_000_000)] == Decimal("0.3")
    engine.cancel(engine.account("siti"), resting, engine.now_ms)
    assert held(engine, "BTC", "siti") == (Decimal("0.8"), 0)


@pytest.mark.parametrize(
    ("in_force", "price", "status", "executed"),
    [
        ("ioc", "1000000", "expired", "0.2"),
        ("ioc", "999000", "expired", "0"),
        ("ioc", "1001000", "filled", "0.5"),
        ("fok", "1000000", "expired", "0"),
        ("fok", "1001000", "filled", "0.5"),
        ("post_only", "999000", "open", "0"),
    ],
)
def test_a_time_in_force_is_what_it_says(engine, in_force, price, status, executed):
    place(engine, "sell", "0.2", "1000000", account="siti")
    order, _ = place(engine, "buy", "0.5", price, time_in_force=in_force)
    assert (order.status, order.executed) == (status, Decimal(executed))
    assert held(engine, "IDR")[1] == (order.remaining * order.price if status == "open" else 0)


@pytest.mark.parametrize("price", ["1000000", "1001000", "2000000"])
def test_a_post_only_order_that_would_be_filled_is_refused(engine, price):
    place(engine, "sell", "0.2", "1000000", account="siti")
    with pytest.raises(OrderRefused) as refused:
        place(engine, "buy", "0.5", price, time_in_force="post_only")
    assert refused.value.code == "would_take"
    assert held(engine, "IDR") == (1_000_000_000, 0)


@pytest.mark.parametrize("side", ["buy", "sell"])
def test_a_market_order_by_worth_buys_and_sells_whole_lots_for_no_more_than_that(engine, side):
    order, _ = place(engine, side, None, None, spend=Decimal(10_000))
    assert order.status == "filled"
    assert order.spent <= order.spend
    assert order.spend - order.spent < BTC.lot * 1_001_000
    assert held(engine, "BTC")[0] == 1 + (order.executed if side == "buy" else -order.executed)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"quantity": "0"}, "invalid_quantity"),
        ({"quantity": "0.000000001"}, "invalid_quantity"),
        ({"price": "900000.5"}, "invalid_price"),
        ({"price": None, "kind": "limit"}, "invalid_price"),
        ({"kind": "market"}, "invalid_price"),
        ({"quantity": "0.001"}, "order_too_small"),
        ({"quantity": None, "price": None, "spend": Decimal(1)}, "order_too_small"),
        ({"quantity": "100000"}, "insufficient_balance"),
        ({"quantity": "100000", "price": None}, "insufficient_balance"),
        ({"side": "sell", "quantity": "2"}, "insufficient_balance"),
    ],
)
def test_an_order_that_breaks_a_rule_changes_nothing_and_a_test_of_it_says_so(engine, asked, code):
    account = engine.account("budi")
    for attempt in (engine.place, engine.test):
        with pytest.raises(OrderRefused) as refused:
            attempt(account, requested(**asked), engine.now_ms)
        assert refused.value.code == code
    assert not account.orders
    assert {name: balance.available for name, balance in account.balances.items()} == FIRST_BALANCES


def test_a_test_of_an_order_places_none(engine):
    engine.test(engine.account("budi"), requested(), engine.now_ms)
    assert not engine.account("budi").orders


def test_an_order_is_cancelled_once(engine):
    order, _ = place(engine)
    engine.cancel(engine.account("budi"), order, engine.now_ms)
    with pytest.raises(OrderRefused, match="is cancelled"):
        engine.cancel(engine.account("budi"), order, engine.now_ms)


def test_an_open_orders_own_id_is_not_used_twice(engine):
    order, _ = place(engine, client_id="mine")
    with pytest.raises(OrderRefused, match="client order id"):
        place(engine, client_id="mine")
    engine.cancel(engine.account("budi"), order, engine.now_ms)
    assert place(engine, client_id="mine")[0].number == order.number + 1


def test_what_happens_is_told_in_order_and_with_the_balances_after_it(engine, move):
    told = []
    engine.feed.listen(("orders", "budi"), 1, lambda each: told.append((each.change, each.order.status)))
    engine.feed.listen(("balances", "budi"), 1, lambda each: told.append(each[0].balances["BTC"].available))
    place(engine)
    move(889_000, 891_000)
    place(engine, price="1000", quantity="100", time_in_force="ioc")
    assert told == [
        ("placed", "open"), Decimal(1), ("traded", "filled"), Decimal("1.5"), ("placed", "open"), ("expired", "expired"), Decimal("1.5"),
    ]  # fmt: skip


def test_a_trade_of_customers_is_on_the_tape_and_in_the_candle(engine):
    before = engine.candle(BTC, NOW_MS // 60_000 * 60_000, 60_000, engine.now_ms)
    _, (fill,) = place(engine, price="1100000")
    last = engine.trades(BTC)[-1]
    assert (last.number, last.price, last.quantity, last.buyer_is_maker) == (fill.trade, 1_001_000, Decimal("0.5"), False)
    after = engine.candle(BTC, NOW_MS // 60_000 * 60_000, 60_000, engine.now_ms)
    assert (after.volume - before.volume, after.trades - before.trades, after.low) == (Decimal("0.5"), 1, 1_001_000)


def test_nothing_grows_without_end(engine):
    account = engine.account("budi")
    for _ in range(MAX_OPEN):
        place(engine, quantity="0.012")
    with pytest.raises(OrderRefused) as refused:
        place(engine, quantity="0.012")
    assert refused.value.code == "too_many_open_orders"
    for order in account.open_orders():
        engine.cancel(account, order, engine.now_ms)
    for _ in range(MAX_KEPT + 50):
        place(engine, quantity="0.012", time_in_force="ioc")
    assert len(account.orders) == MAX_KEPT
    resting, _ = place(engine)
    for number in range(MAX_ACCOUNTS):
        engine.account(str(number))
    assert resting not in list(engine.books[BTC].resting("buy"))
    assert engine.account("budi").orders == {}


steps = st.tuples(
    st.sampled_from(["budi", "siti"]),
    st.sampled_from(["buy", "sell"]),
    st.integers(1, 80),
    st.integers(-6, 6),
    st.sampled_from(["gtc", "ioc", "fok", "post_only", "market", "spend"]),
    st.booleans(),
    st.integers(0, 3),
)


@settings(max_examples=60)
@given(st.lists(steps, max_size=25))
def test_no_sequence_of_orders_makes_money_or_leaves_any_locked(sequence):
    """What two customers have together changes by what the market maker took and gave, and by nothing else."""
    engine = Exchange(Feed(), NOW_MS)
    now_ms = NOW_MS
    for account_id, side, thousandths, ticks, how, cancel, pause in sequence:
        now_ms += pause * STEP_MS
        engine.advance(now_ms)
        account, last = engine.account(account_id), quote(BTC, now_ms).last
        quantity = Decimal(thousandths) / 1000
        asked = {
            "market": OrderRequest(BTC, side, "market", quantity),
            "spend": OrderRequest(BTC, side, "market", None, None, Decimal(thousandths) * 1_000_000 + Decimal("0.01")),
        }.get(how) or OrderRequest(BTC, side, "limit", quantity, last + ticks * 60_000, time_in_force=how)
        try:
            order, _ = engine.place(account, asked, now_ms)
        except OrderRefused:
            continue
        if cancel and order.status == "open":
            engine.cancel(account, order, now_ms)
    accounts = [engine.account(account_id) for account_id in ("budi", "siti")]
    for account in accounts:
        for order in account.open_orders():
            engine.cancel(account, order, now_ms)
    for account in accounts:
        base = sum(fill.quantity * (1 if fill.order.side == "buy" else -1) for fill in account.fills)
        quotes = sum(fill.price * fill.quantity * (1 if fill.order.side == "sell" else -1) for fill in account.fills)
        assert (account.balances["BTC"].available, account.balances["BTC"].locked) == (1 + base, 0)
        assert (account.balances["IDR"].available, account.balances["IDR"].locked) == (1_000_000_000 + quotes, 0)
        for fill in account.fills:
            order = fill.order
            assert order.kind == "market" or (fill.price <= order.price if order.side == "buy" else fill.price >= order.price)
        assert all(balance.available >= 0 for balance in account.balances.values())
    assert not [*engine.books[BTC].resting("buy"), *engine.books[BTC].resting("sell")]


def test_every_market_moves_by_itself():
    engine = Exchange(Feed(), NOW_MS)
    moved = []
    for market in MARKETS.values():
        engine.feed.listen(("price", market.symbol), 1, moved.append)
    engine.advance(NOW_MS + STEP_MS - 1)
    assert moved == []
    engine.advance(NOW_MS + STEP_MS)
    assert moved == list(MARKETS.values())
