"""Runs the steps on the connection that `fleet_server.migrate` hands over."""

from alembic import context

from fleet_server.migrate import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata(),
    render_as_batch=True,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
