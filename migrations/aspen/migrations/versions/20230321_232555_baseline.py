"""The schema of the live service, from nothing.

Revision ID: 20230321_232555
Revises: nothing; it has the ID of the live service's last revision, so that a database of that
    service needs no changes.
"""

from __future__ import annotations

from alembic import op

from aspen.migrations import baseline
from aspen.migrations.baseline import SCHEMA

revision: str = "20230321_232555"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

_PARTS = (
    (baseline.create_lookups, baseline.LOOKUP_TABLES),
    (baseline.create_reference, baseline.REFERENCE_TABLES),
    (baseline.create_accounts, baseline.ACCOUNT_TABLES),
    (baseline.create_samples, baseline.SAMPLE_TABLES),
    (baseline.create_workflows, baseline.WORKFLOW_TABLES),
    (baseline.create_entities, baseline.ENTITY_TABLES),
)


def upgrade() -> None:
    """Create the schema, the extensions, the tables, and their initial rows."""
    baseline.create_extensions()
    for create, _ in _PARTS:
        create()
    baseline.insert()


def downgrade() -> None:
    """Drop every table; the schema and the extensions stay, because others may use them."""
    for _, tables in reversed(_PARTS):
        for table in reversed(tables):
            op.drop_table(table, schema=SCHEMA)
