"""Alembic revisions of the store, packaged so that an installed Rekam can migrate its own database."""
