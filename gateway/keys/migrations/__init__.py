"""The Alembic migrations of the whole database, run by ``gateway.keys.migrate``."""
