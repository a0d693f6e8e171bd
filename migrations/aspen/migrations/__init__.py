"""Alembic revisions, and the code that applies, compares, and writes them."""
