"""The schema migrations of the `aspen` database, run by Alembic."""
