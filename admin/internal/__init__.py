"""The internal API for the back office, on its own port, authenticated by service tokens."""
