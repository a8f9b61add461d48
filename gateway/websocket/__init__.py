"""WebSocket frames and messages (RFC 6455). Pure: no I/O."""
