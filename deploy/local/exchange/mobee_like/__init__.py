"""Mobee's API over the demo exchange: REST and the stream.

Source: Mobee's open API documentation, "Websocket Subscription". It documents the data of ``MK`` only; that of the other events is our own.
"""
