"""Runs the steps on the connection and in the transaction that `fleet_server.migrate` hands over.

SQLite can undo changes of the schema as PostgreSQL can, though alembic does not expect it to.
"""

from alembic import context

from fleet_server.migrate import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata(),
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
