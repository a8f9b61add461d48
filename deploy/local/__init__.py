"""Everything ``gerbang up`` and the tests run on one machine: PostgreSQL, Redis, a demo identity provider, a demo exchange."""
