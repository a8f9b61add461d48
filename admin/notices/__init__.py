"""Notifications to key owners: the sender, and delivery by mail and webhook.

A notice is written in the transaction of its event (:mod:`admin.outbox`), usually by the audit; events without a request, such as
an expiry or a first use, are detected by :mod:`admin.notices.watch`. One process at a time sends (:mod:`admin.notices.sender`) each
account's notices in order, at least once, with a stable id.
"""
