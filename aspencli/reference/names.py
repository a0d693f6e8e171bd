"""The names of what is in a database, the newest first, for completion in the shell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from aspen.database.tables import GROUPS, PATHOGENS, PHYLO_RUNS, SAMPLES, USERS, WORKFLOWS

if TYPE_CHECKING:
    from aspen.database.sessions import Reader


def read_names(
    reader: Reader, limits: Mapping[str, int]
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield each kind of items with their names, at most as many as its limit."""
    runs = (
        sa.select(
            PHYLO_RUNS.c.workflow_id.label("id"),
            PHYLO_RUNS.c.name,
            sa.cast(WORKFLOWS.c.workflow_status, sa.Text).label("workflow_status"),
            GROUPS.c.name.label("group"),
        )
        .select_from(PHYLO_RUNS)
        .join(WORKFLOWS, WORKFLOWS.c.id == PHYLO_RUNS.c.workflow_id)
        .join(GROUPS, GROUPS.c.id == PHYLO_RUNS.c.group_id)
        .order_by(PHYLO_RUNS.c.workflow_id.desc())
    )
    statements = {
        "groups": sa.select(GROUPS.c.id, GROUPS.c.prefix, GROUPS.c.name).order_by(GROUPS.c.id),
        "pathogens": sa.select(PATHOGENS.c.slug, PATHOGENS.c.name).order_by(PATHOGENS.c.id),
        "users": sa.select(USERS.c.email, USERS.c.name).order_by(USERS.c.id.desc()),
        "phylo_runs": runs,
        "samples": sa.select(SAMPLES.c.public_identifier, SAMPLES.c.private_identifier).order_by(
            SAMPLES.c.id.desc()
        ),
    }
    for kind, statement in statements.items():
        rows = reader.execute(statement.limit(limits[kind])).mappings()
        yield kind, [dict(row) for row in rows]
