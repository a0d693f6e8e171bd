"""The rows that every deployment starts with, under the live service's IDs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

from migrations.baseline.common import SCHEMA

ROLES = (
    {"id": 1, "name": "admin"},
    {"id": 2, "name": "viewer"},
    {"id": 3, "name": "member"},
)

PATHOGENS = (
    {"id": 1, "slug": "SC2", "name": "SARS-CoV-2", "nextclade_dataset_name": "sars-cov-2"},
    {"id": 2, "slug": "MPX", "name": "Monkeypox", "nextclade_dataset_name": "hMPXV"},
    {"id": 3, "slug": "HCV", "name": "Hepatitis C", "nextclade_dataset_name": None},
)

PUBLIC_REPOSITORIES = (
    {"id": 1, "name": "GISAID"},
    {"id": 2, "name": "GenBank"},
)

# The live service used ID 3 for a row that it has since removed.
PATHOGEN_REPO_CONFIGS = (
    {"id": 1, "prefix": "hCoV-19", "public_repository_id": 1, "pathogen_id": 1},
    {"id": 2, "prefix": "SARS-CoV-2/human", "public_repository_id": 2, "pathogen_id": 1},
    {"id": 4, "prefix": "hcv", "public_repository_id": 2, "pathogen_id": 3},
    {"id": 5, "prefix": "MPXV", "public_repository_id": 2, "pathogen_id": 2},
)


def insert() -> None:
    """Insert the rows, and set each sequence to continue after them."""
    _insert("roles", ROLES)
    _insert("pathogens", PATHOGENS)
    _insert("public_repositories", PUBLIC_REPOSITORIES)
    _insert("pathogen_repo_configs", PATHOGEN_REPO_CONFIGS)


def _insert(name: str, rows: Sequence[dict[str, Any]]) -> None:
    columns = [
        sa.column(column, sa.Integer() if isinstance(value, int) else sa.String())
        for column, value in rows[0].items()
    ]
    op.bulk_insert(sa.table(name, *columns, schema=SCHEMA), list(rows))
    last = max(row["id"] for row in rows)
    op.execute(f"SELECT pg_catalog.setval('{SCHEMA}.{name}_id_seq', {last})")
