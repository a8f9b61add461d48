"""The client side of the proxy: connections, request parsing, answers, WebSocket sessions."""
