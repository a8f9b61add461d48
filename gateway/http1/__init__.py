"""HTTP/1.1 in bytes, both directions (RFC 9110, RFC 9112): heads, framing, content codings, answers. Pure: no I/O."""
