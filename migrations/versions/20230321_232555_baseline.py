"""The schema of the live service, from nothing.

Revision ID: 20230321_232555
Revises: nothing; it has the ID of the live service's last revision, so that a database of that
    service needs no changes.
"""

from __future__ import annotations

from alembic import op

from migrations.baseline import (
    accounts,
    entities,
    extensions,
    lookups,
    reference,
    samples,
    seeds,
    workflows,
)
from migrations.baseline.common import SCHEMA

revision: str = "20230321_232555"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

_PARTS = (lookups, reference, accounts, samples, workflows, entities)


def upgrade() -> None:
    """Create the schema, the extensions, the tables, and their initial rows."""
    extensions.create()
    for part in _PARTS:
        part.create()
    seeds.insert()


def downgrade() -> None:
    """Drop every table; the schema and the extensions stay, because others may use them."""
    for part in reversed(_PARTS):
        for table in reversed(part.TABLES):
            op.drop_table(table, schema=SCHEMA)
