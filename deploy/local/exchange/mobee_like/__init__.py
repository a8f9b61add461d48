"""Mobee's API over the demo exchange: REST and the stream.

Source: Mobee's open API documentation, "Websocket Subscription". It shows the data of ``MK`` alone; that of the other events is ours.
"""
