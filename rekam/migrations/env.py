"""Runs the revisions on the connection the store hands over, inside the store's own transaction."""

from alembic import context

from rekam.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by rebuilding it
)
context.run_migrations()
