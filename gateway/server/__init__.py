"""The client's connection: bytes to a frozen request, and an answer back to bytes."""
