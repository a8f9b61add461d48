"""``/ws-api/v3``: Binance's WebSocket API, behind the gateway's message admission."""

from collections.abc import Callable
from typing import Any

from deploy.local.exchange.account import Account
from deploy.local.exchange.binance_like import calls, formats
from deploy.local.exchange.binance_like.calls import Call, CallRequest
from deploy.local.exchange.binance_like.parameters import Parameters, Written, written
from deploy.local.exchange.engine import Exchange
from deploy.local.exchange.identity import Identities
from deploy.local.exchange.orders import Execution, OrderRefused
from deploy.local.exchange.sockets import Session, Socket, json_object
from gateway.assertion import Asserted, AssertionRefused
from gateway.runtime import clock

MAX_USER_STREAMS = 16
"""Maximum user data streams per connection."""
_CALLS: dict[str, Call] = {
    "ping": calls.ping,
    "time": calls.time,
    "exchangeInfo": calls.exchange_info,
    "ticker.24hr": calls.day,
    "ticker.price": calls.price,
    "ticker.book": calls.book_ticker,
    "avgPrice": calls.average_price,
    "depth": calls.depth,
    "trades.recent": calls.trades,
    "trades.aggregate": calls.aggregate_trades,
    "klines": calls.klines,
    "uiKlines": calls.klines,
    "order.place": calls.place,
    "order.test": calls.test,
    "order.cancel": calls.cancel,
    "order.cancelReplace": calls.cancel_replace,
    "order.status": calls.order,
    "openOrders.status": calls.open_orders,
    "openOrders.cancelAll": calls.cancel_all,
    "allOrders": calls.all_orders,
    "account.status": calls.account,
    "account.commission": calls.commission,
    "myTrades": calls.own_trades,
}


class ApiSession(Session):
    """One connection."""

    def __init__(self, socket: Socket, exchange: Exchange, identities: Identities) -> None:
        super().__init__(socket)
        self._exchange = exchange
        self._identities = identities
        self._connected_ms = clock.now_ms()
        self._authorized_ms: int | None = None
        self._streams: dict[int, tuple[str, bool]] = {}
        """Account of each user data stream, and whether it ends when the session logs out."""
        self._next_stream = 0
        self._own: dict[str, Callable[[CallRequest, Asserted | None], Any]] = {
            "session.logon": self._log_on,
            "session.status": self._status,
            "session.logout": self._log_out,
            "session.subscriptions": lambda _request, _caller: [{"subscriptionId": number} for number in self._streams],
            "userDataStream.subscribe": lambda request, _: self._start_stream(request.account, of_session=True),
            "userDataStream.subscribe.signature": lambda request, _: self._start_stream(request.account, of_session=False),
            "userDataStream.unsubscribe": self._unsubscribe,
        }

    async def received(self, text: str) -> None:
        message = json_object(text, parse_int=written, parse_float=written)
        if message is None or not isinstance(message.get("method"), str):
            self.socket.send(_failed(None, 400, {"code": -1100, "msg": "Illegal characters found in parameter 'method'."}))
            return
        number = message.get("id")
        answer_to = int(number) if isinstance(number, Written) and number.lstrip("-").isdigit() and len(number) < 20 else number
        if not (answer_to is None or isinstance(answer_to, int | str)) or (isinstance(answer_to, str) and len(answer_to) > 64):
            self.socket.send(_failed(None, 400, {"code": -1100, "msg": "Illegal characters found in parameter 'id'."}))
            return
        try:
            self.socket.send({"id": answer_to, "status": 200, "result": await self._answer(message), "rateLimits": []})
        except OrderRefused as error:
            self.socket.send(_failed(answer_to, *calls.refusal(error)))
        except AssertionRefused:
            self.socket.send(_failed(answer_to, 401, {"code": -2015, "msg": "The message has no valid assertion of the gateway."}))

    async def _answer(self, message: dict[str, Any]) -> Any:
        """:raises OrderRefused: the call is refused

        :raises AssertionRefused: it names a caller without a valid assertion
        """
        caller = await self._identities.of(message)
        params = message.get("params")
        if not isinstance(params, dict | None):
            raise OrderRefused("invalid_parameter", "Illegal characters found in parameter 'params'.")
        now_ms = clock.now_ms()
        self._exchange.advance(now_ms)
        account = None if caller is None else self._exchange.account(caller.account_id)
        request = CallRequest(self._exchange, account, Parameters(params or {}), now_ms)
        method = message["method"].removeprefix("v3/")
        if (own := self._own.get(method)) is not None:
            return own(request, caller)
        if (call := _CALLS.get(method)) is None:
            raise OrderRefused("unknown_method", f"Unknown method '{method[:64]}'.")
        return call(request)

    def _log_on(self, request: CallRequest, caller: Asserted | None) -> dict[str, Any]:
        _ = request.account
        self._authorized_ms = request.now_ms
        return self._status(request, caller)

    def _log_out(self, request: CallRequest, _caller: Asserted | None) -> dict[str, Any]:
        self._authorized_ms = None
        for number in [number for number, (_, of_session) in self._streams.items() if of_session]:
            self._end_stream(number, request.now_ms)
        return self._status(request, None)

    def _status(self, request: CallRequest, caller: Asserted | None) -> dict[str, Any]:
        who = {"apiKey": None if caller is None else caller.key_id, "authorizedSince": self._authorized_ms}
        times = {"connectedSince": self._connected_ms, "serverTime": request.now_ms}
        return who | times | {"returnRateLimits": False, "userDataStream": bool(self._streams)}

    def _start_stream(self, account: Account, *, of_session: bool) -> dict[str, Any]:
        if len(self._streams) >= MAX_USER_STREAMS:
            raise OrderRefused("too_many_subscriptions", f"At most {MAX_USER_STREAMS} user data streams per connection.")
        number, name = self._next_stream, f"user {self._next_stream}"

        def reported(execution: Execution) -> None:
            self.socket.send({"subscriptionId": number, "event": formats.execution_report(execution)})

        def balances(update: tuple[Account, int]) -> None:
            self.socket.send({"subscriptionId": number, "event": formats.account_position(*update)})

        self.socket.listen(("orders", account.id), name, reported)
        self.socket.listen(("balances", account.id), name, balances)
        self._streams[number] = (account.id, of_session)
        self._next_stream += 1
        return {"subscriptionId": number}

    def _unsubscribe(self, request: CallRequest, _caller: Asserted | None) -> dict[str, Any]:
        """End the stream ``subscriptionId``, or all."""
        chosen = request.parameters.number("subscriptionId", -1)
        for number in list(self._streams) if chosen < 0 else [chosen] if chosen in self._streams else []:
            self._end_stream(number, request.now_ms)
        return {}

    def _end_stream(self, number: int, now_ms: int) -> None:
        account_id, _ = self._streams.pop(number)
        self.socket.leave(("orders", account_id), f"user {number}")
        self.socket.leave(("balances", account_id), f"user {number}")
        self.socket.send({"subscriptionId": number, "event": {"e": "eventStreamTerminated", "E": now_ms}})


def _failed(answer_to: object, status: int, error: dict[str, Any]) -> dict[str, Any]:
    return {"id": answer_to, "status": status, "error": error, "rateLimits": []}
