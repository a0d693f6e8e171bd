"""The lookup tables, and their rows: the values that columns in other tables may have."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from alembic import op

from migrations.baseline.common import SCHEMA

ROWS: Mapping[str, tuple[str, ...]] = {
    "accession_types": ("GENBANK", "GISAID_ISL"),
    "entity_types": (
        "ALIGNED_GISAID_DUMP",
        "ALIGNED_PATHOGEN_GENOME",
        "ALIGNED_PUBLIC_REPOSITORY_DATA",
        "PHYLO_TREE",
        "PROCESSED_GISAID_DUMP",
        "PROCESSED_PUBLIC_REPOSITORY_DATA",
        "RAW_GISAID_DUMP",
        "RAW_PUBLIC_REPOSITORY_DATA",
        "UPLOADED_PATHOGEN_GENOME",
    ),
    "lineage_types": ("NEXTCLADE", "PANGOLIN"),
    "mutations_callers": ("NEXTCLADE",),
    "qc_metric_callers": ("NEXTCLADE",),
    "tree_types": ("NON_CONTEXTUALIZED", "OVERVIEW", "TARGETED", "UNKNOWN"),
    "workflow_status_types": ("COMPLETED", "FAILED", "STARTED"),
    "workflow_types": (
        "ALIGN_GISAID_DUMP",
        "ALIGN_PUBLIC_REPOSITORY_DATA",
        "DOWNLOAD_PUBLIC_REPOSITORY_DATA",
        "PHYLO_RUN",
        "PROCESS_GISAID_DUMP",
    ),
}

TABLES = tuple(ROWS)


def create() -> None:
    """Create the tables, and fill them."""
    for name, values in ROWS.items():
        table = op.create_table(
            name,
            sa.Column("item_id", sa.String(), nullable=False),
            sa.PrimaryKeyConstraint("item_id", name=f"pk_{name}"),
            schema=SCHEMA,
        )
        op.bulk_insert(table, [{"item_id": value} for value in values])
