"""freqtrade's strategy: buys at once, sells what it has bought, and says what was filled. Loaded by the program itself."""

from typing import Any

from freqtrade.strategy import IStrategy


class Once(IStrategy):  # type: ignore[misc]  # which is not installed where types are checked
    INTERFACE_VERSION = 3
    timeframe = "1m"
    minimal_roi: dict[str, float] = {}  # noqa: RUF012  # as freqtrade wants it
    stoploss = -0.9
    startup_candle_count = 1

    def populate_indicators(self, candles: Any, _metadata: Any) -> Any:
        return candles

    def populate_entry_trend(self, candles: Any, _metadata: Any) -> Any:
        candles["enter_long"] = 1
        return candles

    def populate_exit_trend(self, candles: Any, _metadata: Any) -> Any:
        return candles

    def custom_exit(self, *_arguments: Any, **_more: Any) -> str:
        return "enough"

    # One percent past the price, which may move before the order comes: it fills at once, at the price that it finds.
    def custom_entry_price(self, *, proposed_rate: float, **_more: Any) -> float:
        return proposed_rate * 1.01

    def custom_exit_price(self, *, proposed_rate: float, **_more: Any) -> float:
        return proposed_rate * 0.99

    def order_filled(self, *, order: Any, **_more: Any) -> None:
        print("SAID", order.ft_order_side, order.status, flush=True)
