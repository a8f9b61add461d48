"""Notifications to key owners: the sender, and delivery by mail and webhook.

A notice is written in the transaction of what it tells of (:mod:`admin.outbox`), most of them by the audit; what no request does,
an expiry or a first use, is found by :mod:`admin.notices.watch`. One process at a time sends (:mod:`admin.notices.sender`), each account's
notices in order, at least once, with the same id each time.
"""
