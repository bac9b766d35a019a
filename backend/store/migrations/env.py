"""How Alembic runs our revisions: on the connection, and in the transaction, that `Database.migrate` gives it."""

from alembic import context

# SQLite's DDL is transactional too, now that the driver leaves transactions to us: a migration that is
# interrupted never happened.
context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
context.run_migrations()
