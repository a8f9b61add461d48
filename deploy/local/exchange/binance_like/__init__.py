"""Binance's spot API over the demo exchange: REST, WebSocket API, public market streams.

Source: Binance's "Spot API" documentation. Amounts are text; a refusal is ``{"code": negative number, "msg": text}``.
"""
