"""The JSON of phylogenetic runs, made by PostgreSQL.

Keys, their order and their types are those of `api.schemas.phylo_runs.PhyloRunResponse`.
"""

from __future__ import annotations

import sqlalchemy as sa

from db.models import Group, Pathogen, PhyloRun, PublicRepository, User, Workflow

_RUN = sa.text("""(
SELECT row_to_json(made)::text FROM (SELECT
    workflows.id,
    date_trunc('second', workflows.start_datetime) AT TIME ZONE 'UTC' AS start_datetime,
    date_trunc('second', workflows.end_datetime) AT TIME ZONE 'UTC' AS end_datetime,
    workflows.workflow_status,
    phylo_runs.template_args,
    phylo_runs.name,
    (SELECT row_to_json(part) FROM (SELECT groups.id, groups.name, groups.location) part)
        AS "group",
    phylo_runs.template_file_path,
    phylo_runs.tree_type,
    (SELECT row_to_json(part) FROM (SELECT pathogens.id, pathogens.slug, pathogens.name) part)
        AS pathogen,
    public_repositories.name AS contextual_data_source,
    CASE WHEN users.id IS NOT NULL THEN (
        SELECT row_to_json(part) FROM (SELECT users.id, users.name) part
    ) END AS "user",
    (
        SELECT row_to_json(part) FROM (
            SELECT tree.entity_id AS id, tree.name
              FROM aspen.entities made_of_it
              JOIN aspen.phylo_trees tree ON tree.entity_id = made_of_it.id
             WHERE made_of_it.producing_workflow_id = workflows.id
             ORDER BY tree.entity_id LIMIT 1
        ) part
    ) AS phylo_tree
) made)""")
_RUNS, _WORKFLOWS = PhyloRun.__table__, Workflow.__table__


def listed() -> sa.Select[tuple[str]]:
    """Runs as answers show them, in the order of their ids."""
    return (
        sa.select(_RUN)
        .select_from(_RUNS)
        .join(_WORKFLOWS, _WORKFLOWS.c.id == _RUNS.c.workflow_id)
        .join(Group, Group.id == _RUNS.c.group_id)
        .join(Pathogen, Pathogen.id == _RUNS.c.pathogen_id)
        .join(PublicRepository, PublicRepository.id == _RUNS.c.contextual_repository_id)
        .outerjoin(User, User.id == _WORKFLOWS.c.user_id)
        .order_by(_RUNS.c.workflow_id)
    )
