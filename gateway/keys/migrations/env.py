"""Alembic's entry: runs on the connection, and in the transaction, that ``gateway.keys.migrate`` opened."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
