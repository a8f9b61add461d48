"""On ``PYTHONPATH`` while hummingbot is built: of its modules in Cython, only those that its connector imports are compiled."""

import importlib.util
from typing import Any

MODULES = (
    *("connector/connector_base", "connector/exchange_base", "connector/in_flight_order_base", "connector/trading_rule"),
    *("core/clock", "core/network_iterator", "core/pubsub", "core/time_iterator"),
    *("core/data_type/limit_order", "core/data_type/order_book", "core/data_type/order_book_query_result"),
    *("core/event/event_listener", "core/event/event_logger", "core/event/event_reporter"),
)

if importlib.util.find_spec("Cython"):
    import Cython.Build

    everything = Cython.Build.cythonize

    def cythonize(_sources: list[str], **options: Any) -> Any:
        return everything([f"hummingbot/{module}.pyx" for module in MODULES], **options)

    Cython.Build.cythonize = cythonize
