"""HTTP/1.1 parsing and serialization for both directions (RFC 9110, RFC 9112); the defences against request smuggling. Pure: no I/O."""
