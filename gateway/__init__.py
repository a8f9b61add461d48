"""The gateway: an HTTP/1.1 reverse proxy that authenticates signed API requests and forwards the ones that are allowed."""
