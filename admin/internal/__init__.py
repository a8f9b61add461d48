"""The back office's API, on a port of its own behind a service token. Thin, no rules."""
