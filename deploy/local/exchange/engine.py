"""The matching engine of the demo exchange: accounts, order books, trades. Pure; the time is an argument.

Every call first advances the market to the current time, so all APIs show the same prices, orders and balances.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from decimal import Decimal

from deploy.local.exchange.account import Account
from deploy.local.exchange.amounts import text
from deploy.local.exchange.book import Book, Match
from deploy.local.exchange.feed import Feed
from deploy.local.exchange.market import MARKETS, STEP_MS, Candle, Market, candle, last_price, quote, traded
from deploy.local.exchange.orders import ZERO, Change, Execution, Fill, Order, OrderRefused, OrderRequest, Trade

MAX_ACCOUNTS = 1_000
MAX_TRADES = 1_000
"""Trades kept per market."""
_MAX_MISSED = 200
"""Maximum price steps simulated in retrospect: at the start, and when the price has not been advanced for a while."""


class Exchange:
    """All accounts of this process. When there are too many, the least recently used one is dropped with its orders."""

    def __init__(self, feed: Feed, now_ms: int) -> None:
        self.feed = feed
        self.books = {market: Book(market, quote(market, now_ms)) for market in MARKETS.values()}
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._tape: dict[Market, deque[Trade]] = {market: deque(maxlen=MAX_TRADES) for market in self.books}
        self._customer_trades: dict[Market, deque[Trade]] = {market: deque(maxlen=MAX_TRADES) for market in self.books}
        self._last_order = 0
        self._executions = now_ms
        self._step = now_ms // STEP_MS - _MAX_MISSED
        self._last_trade = self._step * 8
        """Starts beyond the numbers of an earlier run: each step uses one per market, and customers' trades the others."""
        self.advance(now_ms)

    def account(self, account_id: str) -> Account:
        """An account; a new one starts with the initial balances."""
        account = self._accounts.setdefault(account_id, Account(account_id))
        self._accounts.move_to_end(account_id)
        if len(self._accounts) > MAX_ACCOUNTS:
            _, oldest = self._accounts.popitem(last=False)
            for order in oldest.open_orders():
                self.books[order.market].remove(order)
        return account

    def advance(self, now_ms: int) -> None:
        """Advance price, public trades and resting orders to this moment."""
        step = now_ms // STEP_MS
        if step <= self._step:
            return
        for market, book in self.books.items():
            self._simulate_trades(market, range(max(self._step + 1, step - _MAX_MISSED), step + 1))
            book.quote = quote(market, now_ms)
            book.changed()
            for order in book.reached():
                self._trade(order, [Match(None, order.price, order.remaining)], now_ms, maker=True)
        self._step = step
        for market in self.books:
            self.feed.price_changed(market)

    def place(self, account: Account, requested: OrderRequest, now_ms: int) -> tuple[Order, list[Fill]]:
        """Place an order: it is matched immediately as far as possible; the rest is booked or expires per its time in force.

        :raises OrderRefused: nothing has changed
        """
        book = self.books[requested.market]
        matches = book.plan(requested)
        order, cost = self._order(account, requested, matches, now_ms)
        account.accept(order, cost)
        self._last_order = order.number
        self._publish(order, "placed", now_ms)
        killed = requested.time_in_force == "fok" and sum(match.quantity for match in matches) < order.quantity
        fills = [] if killed else self._trade(order, matches, now_ms, maker=False)
        if order.status == "open":
            if requested.time_in_force in ("ioc", "fok") or requested.kind == "market":
                self._end(account, order, now_ms, "expired")
            else:
                book.add(order)
                self.feed.book_changed(requested.market)
        self.feed.balances(account, now_ms)
        return order, fills

    def test(self, account: Account, requested: OrderRequest, now_ms: int) -> None:
        """Check an order without placing it.

        :raises OrderRefused: as :meth:`place` would
        """
        order, cost = self._order(account, requested, self.books[requested.market].plan(requested), now_ms)
        account.check(order.client_id, order, cost)

    def cancel(self, account: Account, order: Order, now_ms: int, *, cancel_id: str = "") -> Order:
        """Remove an order from the book and release the funds locked for its remainder.

        :param cancel_id: the client's id for this cancellation
        :raises OrderRefused: it is not open
        """
        if order.status != "open":
            raise OrderRefused("order_not_open", f"order {order.number} is {order.status}")
        self.books[order.market].remove(order)
        order.cancel_id = cancel_id
        self._end(account, order, now_ms, "cancelled")
        self.feed.book_changed(order.market)
        self.feed.balances(account, now_ms)
        return order

    def trades(self, market: Market) -> Sequence[Trade]:
        """The most recent ones, oldest first."""
        return self._tape[market]

    def candle(self, market: Market, opened_ms: int, length_ms: int, now_ms: int) -> Candle:
        """The candle that opened at this time, including the customers' trades."""
        found = candle(market, opened_ms, length_ms, now_ms)
        for trade in self._customer_trades[market]:
            if opened_ms <= trade.time_ms < opened_ms + length_ms:
                found = found._replace(
                    high=max(found.high, trade.price),
                    low=min(found.low, trade.price),
                    volume=found.volume + trade.quantity,
                    turnover=found.turnover + trade.quantity * trade.price,
                    trades=found.trades + 1,
                )
        return found

    def _order(self, account: Account, requested: OrderRequest, matches: list[Match], now_ms: int) -> tuple[Order, Decimal]:
        """The order for a request, and the funds to lock for it.

        :raises OrderRefused: by a rule of the market
        """
        planned = sum((match.quantity for match in matches), ZERO)
        quantity = planned if requested.quantity is None else requested.quantity
        _check_amounts(requested, quantity, matches)
        if requested.time_in_force == "post_only" and matches:
            raise OrderRefused("would_take", "a post-only order would be filled immediately")
        order = Order(
            self._last_order + 1,
            account.id,
            requested.market,
            requested.side,
            requested.kind,
            requested.time_in_force,
            requested.price or ZERO,
            quantity,
            requested.spend,
            now_ms,
            requested.client_id,
            updated_ms=now_ms,
        )
        if requested.side == "sell":
            return order, quantity
        return order, _cost(matches) if requested.price is None else quantity * requested.price

    def _trade(self, order: Order, matches: list[Match], now_ms: int, *, maker: bool) -> list[Fill]:
        """Fill an order as planned, and the orders on the other side.

        :param maker: whether the order was resting in the book
        """
        fills = []
        for match in matches:
            self._last_trade += 1
            fill = Fill(self._last_trade, order, match.price, match.quantity, now_ms, maker)
            self._book_fill(fill)
            if match.resting is not None:
                self._book_fill(fill._replace(order=match.resting, maker=True))
            fills.append(fill)
            buyer_is_maker = (order.side == "buy") == maker
            self._record(order.market, Trade(self._last_trade, match.price, match.quantity, now_ms, buyer_is_maker), by_customer=True)
        if matches:
            self.feed.book_changed(order.market)
        return fills

    def _book_fill(self, fill: Fill) -> None:
        order, account = fill.order, self._accounts[fill.order.account_id]
        if fill.maker and fill.quantity == order.remaining:
            self.books[order.market].remove(order)
        account.fill(fill)
        self.books[order.market].changed()
        self._publish(order, "traded", fill.time_ms, fill)
        if fill.maker:  # the taker's event is published once, at the end
            self.feed.balances(account, fill.time_ms)

    def _end(self, account: Account, order: Order, now_ms: int, change: Change) -> None:
        account.end(order, now_ms, expired=change == "expired")
        self._publish(order, change, now_ms)

    def _publish(self, order: Order, change: Change, now_ms: int, fill: Fill | None = None) -> None:
        self._executions += 1
        self.feed.executed(Execution(self._executions, order, change, now_ms, fill))

    def _simulate_trades(self, market: Market, steps: range) -> None:
        before = last_price(market, (steps.start - 1) * STEP_MS)
        for step in steps:
            moment = step * STEP_MS
            price = last_price(market, moment)
            self._last_trade += 1
            self._record(market, Trade(self._last_trade, price, traded(market, moment), moment, price < before), by_customer=False)
            before = price

    def _record(self, market: Market, trade: Trade, *, by_customer: bool) -> None:
        self._tape[market].append(trade)
        if by_customer:
            self._customer_trades[market].append(trade)
        self.feed.traded(market, trade)


def _cost(matches: list[Match]) -> Decimal:
    return sum((match.quantity * match.price for match in matches), ZERO)


def _check_amounts(requested: OrderRequest, quantity: Decimal, matches: list[Match]) -> None:
    market = requested.market
    if requested.kind == "limit":
        if requested.price is None:
            raise OrderRefused("invalid_price", "a limit order needs a price")
        if requested.price <= 0 or requested.price % market.tick:
            raise OrderRefused("invalid_price", f"price must be a positive multiple of {text(market.tick)}")
    elif requested.price is not None:
        raise OrderRefused("invalid_price", "a market order has no price")
    if requested.spend is None and (quantity <= 0 or quantity % market.lot):
        raise OrderRefused("invalid_quantity", f"quantity must be a positive multiple of {text(market.lot)}")
    if requested.spend is not None:
        worth = requested.spend if quantity else ZERO
    else:
        worth = _cost(matches) if requested.price is None else quantity * requested.price
    if worth < market.least:
        raise OrderRefused("order_too_small", f"an order must be worth at least {text(market.least)} {market.quote}")
