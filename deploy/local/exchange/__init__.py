"""The demo exchange: a trading service for the gateway to protect.

:mod:`.market` (the price), :mod:`.book`, :mod:`.account` and :mod:`.engine` are pure; :mod:`.feed` distributes events; the two
APIs are thin: :mod:`.mobee_like` and :mod:`.binance_like` serialize the same orders in their own formats. Nothing is stored: a restart
resets every account to its initial balances.
"""
