"""Tables by the names of their columns, for short commands.

`aspen.database.models` describes every table completely, but loading it takes as long as loading
the rest of SQLAlchemy. A test compares these names with the models.
"""

from __future__ import annotations

import sqlalchemy as sa

from aspen.database.settings import SCHEMA


def _table(name: str, *columns: str) -> sa.TableClause:
    return sa.table(name, *map(sa.column, columns), schema=SCHEMA)


ENTITIES = _table("entities", "id", "entity_type", "producing_workflow_id")
GROUPS = _table(
    *("groups", "id", "name", "prefix", "address", "division", "location", "submitting_lab"),
    *("auth0_org_id", "default_tree_location_id", "tree_parameters"),
)
LOCATIONS = _table("locations", "id", "region", "country", "division", "location")
PATHOGENS = _table("pathogens", "id", "slug", "name")
PHYLO_RUNS = _table(
    *("phylo_runs", "workflow_id", "group_id", "name", "tree_type", "pathogen_id"),
)
ROLES = _table("roles", "id", "name")
SAMPLES = _table(
    *("samples", "id", "private_identifier", "public_identifier", "collection_date", "private"),
    *("submitting_group_id", "pathogen_id", "uploaded_by_id", "location_id"),
)
USERS = _table(
    *("users", "id", "name", "email", "auth0_user_id", "system_admin"),
    *("agreed_to_tos", "acknowledged_policy_version"),
)
USER_ROLES = _table("user_roles", "user_id", "group_id", "role_id")
WORKFLOWS = _table(
    *("workflows", "id", "workflow_type", "workflow_status", "start_datetime", "end_datetime"),
    "user_id",
)
ALL = (
    *(ENTITIES, GROUPS, LOCATIONS, PATHOGENS, PHYLO_RUNS, ROLES, SAMPLES, USERS, USER_ROLES),
    WORKFLOWS,
)

PLACE = sa.func.nullif(
    sa.func.concat_ws(
        " / ",
        *(LOCATIONS.c[level] for level in ("region", "country", "division", "location")),
        type_=sa.String,
    ),
    "",
)
"""A location as ``Region / Country / Division / Location``; NULL if there is none."""


def holds(text: sa.ColumnElement[object], part: str) -> sa.ColumnElement[bool]:
    """Return the condition that a text contains a part, ignoring case."""
    return sa.type_coerce(text, sa.String).icontains(part, autoescape=True)
