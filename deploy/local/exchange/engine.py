"""The matching engine of the demo exchange: accounts, order books, trades. Pure; the time is an argument.

Every call first brings the market up to the moment it is made in; so a price, an order and a balance are the same whoever looks.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from decimal import Decimal

from deploy.local.exchange.account import Account
from deploy.local.exchange.amounts import text
from deploy.local.exchange.book import Book, Match
from deploy.local.exchange.feed import Feed
from deploy.local.exchange.market import MARKETS, STEP_MS, Candle, Market, candle, last_price, quote, traded
from deploy.local.exchange.orders import ZERO, Change, Execution, Fill, Order, OrderRefused, Trade, Wish

MAX_ACCOUNTS = 1_000
MAX_TRADES = 1_000
"""Kept of each market."""
_MAX_MISSED = 200
"""Steps that are made up for: at the start, and when nobody has moved the price for a while."""


class Exchange:
    """All accounts of this process; the one longest unused goes first when there are too many, and its orders with it."""

    def __init__(self, feed: Feed, now_ms: int) -> None:
        self.feed = feed
        self.books = {market: Book(market, quote(market, now_ms)) for market in MARKETS.values()}
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._tape: dict[Market, deque[Trade]] = {market: deque(maxlen=MAX_TRADES) for market in self.books}
        self._ours: dict[Market, deque[Trade]] = {market: deque(maxlen=MAX_TRADES) for market in self.books}
        self._last_order = 0
        self._executions = now_ms
        self._step = now_ms // STEP_MS - _MAX_MISSED
        self._last_trade = self._step * 8
        """Begins beyond what an earlier run has used: each step takes one a market, and the customers' own trades the rest."""
        self.advance(now_ms)

    def account(self, account_id: str) -> Account:
        """An account, with its first balances when it is new."""
        account = self._accounts.setdefault(account_id, Account(account_id))
        self._accounts.move_to_end(account_id)
        if len(self._accounts) > MAX_ACCOUNTS:
            _, oldest = self._accounts.popitem(last=False)
            for order in oldest.open_orders():
                self.books[order.market].remove(order)
        return account

    def holder(self, order: Order) -> Account:
        """The account of an order that something is happening to."""
        return self._accounts[order.account_id]

    def advance(self, now_ms: int) -> None:
        """Bring price, tape and resting orders up to this moment."""
        step = now_ms // STEP_MS
        if step <= self._step:
            return
        for market, book in self.books.items():
            self._let_others_trade(market, range(max(self._step + 1, step - _MAX_MISSED), step + 1))
            book.quote = quote(market, now_ms)
            book.changed()
            for order in book.reached():
                self._trade(order, [Match(None, order.price, order.remaining)], now_ms, maker=True)
        self._step = step
        for market in self.books:
            self.feed.moved(market)

    def place(self, account: Account, wish: Wish, now_ms: int) -> tuple[Order, list[Fill]]:
        """Place an order: what can be filled at once is, the rest waits or ends as its time in force says.

        :raises OrderRefused: nothing has changed then
        """
        book = self.books[wish.market]
        matches = book.plan(wish)
        order, cost = self._order(account, wish, matches, now_ms)
        account.accept(order, cost)
        self._last_order = order.number
        self._tell(order, "placed", now_ms)
        killed = wish.time_in_force == "fok" and sum(match.quantity for match in matches) < order.quantity
        fills = [] if killed else self._trade(order, matches, now_ms, maker=False)
        if order.status == "open":
            if wish.time_in_force in ("ioc", "fok") or wish.kind == "market":
                self._end(account, order, now_ms, "expired")
            else:
                book.add(order)
                self.feed.moved_book(wish.market)
        self.feed.balances(account, now_ms)
        return order, fills

    def test(self, account: Account, wish: Wish, now_ms: int) -> None:
        """Check an order without placing it.

        :raises OrderRefused: by which :meth:`place` would refuse it too
        """
        order, cost = self._order(account, wish, self.books[wish.market].plan(wish), now_ms)
        account.check(order.client_id, order, cost)

    def cancel(self, account: Account, order: Order, now_ms: int, *, cancel_id: str = "") -> Order:
        """Take an order out of the book and give back what is locked for its rest.

        :param cancel_id: the customer's own name for this cancellation
        :raises OrderRefused: it is not open
        """
        if order.status != "open":
            raise OrderRefused("order_not_open", f"order {order.number} is {order.status}")
        self.books[order.market].remove(order)
        order.cancel_id = cancel_id
        self._end(account, order, now_ms, "cancelled")
        self.feed.moved_book(order.market)
        self.feed.balances(account, now_ms)
        return order

    def trades(self, market: Market) -> Sequence[Trade]:
        """The last ones, oldest first."""
        return self._tape[market]

    def candle(self, market: Market, opened_ms: int, length_ms: int, now_ms: int) -> Candle:
        """The candle that opened then, the customers' own trades included."""
        found = candle(market, opened_ms, length_ms, now_ms)
        for trade in self._ours[market]:
            if opened_ms <= trade.time_ms < opened_ms + length_ms:
                found = found._replace(
                    high=max(found.high, trade.price),
                    low=min(found.low, trade.price),
                    volume=found.volume + trade.quantity,
                    turnover=found.turnover + trade.quantity * trade.price,
                    trades=found.trades + 1,
                )
        return found

    def _order(self, account: Account, wish: Wish, matches: list[Match], now_ms: int) -> tuple[Order, Decimal]:
        """The order that a wish becomes, and what is to be locked for it.

        :raises OrderRefused: by a rule of the market
        """
        planned = sum((match.quantity for match in matches), ZERO)
        quantity = planned if wish.quantity is None else wish.quantity
        _check_amounts(wish, quantity, matches)
        if wish.time_in_force == "post_only" and matches:
            raise OrderRefused("would_take", "the order would be filled at once, and it asks not to be")
        order = Order(
            self._last_order + 1,
            account.id,
            wish.market,
            wish.side,
            wish.kind,
            wish.time_in_force,
            wish.price or ZERO,
            quantity,
            wish.spend,
            now_ms,
            wish.client_id,
            updated_ms=now_ms,
        )
        if wish.side == "sell":
            return order, quantity
        return order, _cost(matches) if wish.price is None else quantity * wish.price

    def _trade(self, order: Order, matches: list[Match], now_ms: int, *, maker: bool) -> list[Fill]:
        """Fill an order as planned, and whoever is on the other side.

        :param maker: it rested, and the market has come to it
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
            self._print(order.market, Trade(self._last_trade, match.price, match.quantity, now_ms, buyer_is_maker), ours=True)
        if matches:
            self.feed.moved_book(order.market)
        return fills

    def _book_fill(self, fill: Fill) -> None:
        order, account = fill.order, self.holder(fill.order)
        if fill.maker and fill.quantity == order.remaining:
            self.books[order.market].remove(order)
        account.fill(fill)
        self.books[order.market].changed()
        self._tell(order, "traded", fill.time_ms, fill)
        if fill.maker:  # whoever takes is told once, when all is done
            self.feed.balances(account, fill.time_ms)

    def _end(self, account: Account, order: Order, now_ms: int, change: Change) -> None:
        account.end(order, now_ms, expired=change == "expired")
        self._tell(order, change, now_ms)

    def _tell(self, order: Order, change: Change, now_ms: int, fill: Fill | None = None) -> None:
        self._executions += 1
        self.feed.happened(Execution(self._executions, order, change, now_ms, fill))

    def _let_others_trade(self, market: Market, steps: range) -> None:
        before = last_price(market, (steps.start - 1) * STEP_MS)
        for step in steps:
            moment = step * STEP_MS
            price = last_price(market, moment)
            self._last_trade += 1
            self._print(market, Trade(self._last_trade, price, traded(market, moment), moment, price < before), ours=False)
            before = price

    def _print(self, market: Market, trade: Trade, *, ours: bool) -> None:
        self._tape[market].append(trade)
        if ours:
            self._ours[market].append(trade)
        self.feed.traded(market, trade)


def _cost(matches: list[Match]) -> Decimal:
    return sum((match.quantity * match.price for match in matches), ZERO)


def _check_amounts(wish: Wish, quantity: Decimal, matches: list[Match]) -> None:
    market = wish.market
    if wish.kind == "limit":
        if wish.price is None:
            raise OrderRefused("invalid_price", "a limit order needs a price")
        if wish.price <= 0 or wish.price % market.tick:
            raise OrderRefused("invalid_price", f"price must be a positive multiple of {text(market.tick)}")
    elif wish.price is not None:
        raise OrderRefused("invalid_price", "a market order has no price")
    if wish.spend is None and (quantity <= 0 or quantity % market.lot):
        raise OrderRefused("invalid_quantity", f"quantity must be a positive multiple of {text(market.lot)}")
    if wish.spend is not None:
        worth = wish.spend if quantity else ZERO
    else:
        worth = _cost(matches) if wish.price is None else quantity * wish.price
    if worth < market.least:
        raise OrderRefused("order_too_small", f"an order must be worth at least {text(market.least)} {market.quote}")
