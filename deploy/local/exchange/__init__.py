"""The demo exchange: a trading service to stand behind the gate. Markets and accounts are pure; the two sets of paths are thin.

Nothing is stored: a restart forgets orders and gives every account its first balances again.
"""
