"""The schema of the live service, from nothing.

Revision ID: 20230321_232555
Revises: nothing; it has the ID of the live service's last revision, so that a database of that
    service needs no changes.
"""

from __future__ import annotations

import re

from alembic import op

from aspen.migrations import baseline

revision: str = "20230321_232555"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

_TABLE = re.compile(r"CREATE TABLE aspen\.(\w+)")


def upgrade() -> None:
    """Create the schema, the extensions, the tables, and their initial rows."""
    baseline.create_extensions()
    for statement in baseline.statements():
        op.execute(statement)


def downgrade() -> None:
    """Drop every table; the schema and the extensions stay, because others may use them."""
    created = (found[1] for found in map(_TABLE.match, baseline.statements()) if found)
    for table in reversed(list(created)):
        op.drop_table(table, schema=baseline.SCHEMA)
