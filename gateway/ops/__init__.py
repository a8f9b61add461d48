"""The operators' port: health, readiness, metrics, reload, public keys."""
