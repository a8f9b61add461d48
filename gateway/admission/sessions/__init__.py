"""The registry of message dialects for WebSocket sessions: one module each, one line here. Pure."""

from gateway.admission.sessions.base import CALL, LOG_IN, LOG_OUT, STATUS, Message, SessionDialect
from gateway.admission.sessions.binance import BinanceSession
from gateway.admission.sessions.mobee import MobeeSession
from gateway.admission.sessions.shape import Shape

SESSIONS: dict[str, SessionDialect] = {
    "mobee": MobeeSession(),
    "binance": BinanceSession(),
}

__all__ = ["CALL", "LOG_IN", "LOG_OUT", "SESSIONS", "STATUS", "Message", "SessionDialect", "Shape"]
