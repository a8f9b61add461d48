"""The local stack of ``gerbang up`` and the tests: PostgreSQL, Redis, a demo identity provider, a demo exchange."""
