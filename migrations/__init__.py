"""The schema's history: Alembic revisions, and what applies, compares and writes them."""
