"""WebSocket frames and messages in bytes (RFC 6455). Pure: no I/O."""
