"""Columns of users, roles, and groups that bulk runs may change, and how rows are found.

They include every column of their tables, so that a row that is deleted and recreated is complete.
Lookups by name ignore letter case, although the database does not, because a second group *czi*
besides *CZI* would be a mistake.
"""

from __future__ import annotations

from dataclasses import replace

from aspen.database.bulk.samples import LOCATION
from aspen.database.bulk.spec import Column, Reference, Side, Table

# Same format as `aspen.database.models.accounts.random_identifier`: 20 lowercase letters and
# digits. Bytes 6 and 8 of a random UUID are not entirely random, so this uses two UUIDs and skips
# those bytes.
# (The reference to the row makes the query run once per row.)
_RANDOM = """(
    SELECT string_agg(substr('abcdefghijklmnopqrstuvwxyz0123456789',
                             get_byte(b.bytes, i.n) % 36 + 1, 1), '')
      FROM (SELECT uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) AS bytes
             WHERE m.line IS NOT NULL) b,
           unnest(ARRAY[0, 1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 13, 14, 15,
                        16, 17, 18, 19, 20, 21]) AS i (n))"""

GROUPS = Table("aspen.groups", "group", "there is no group", scope=None, label="name")
USERS = Table("aspen.users", "user", "there is no user", scope=None, label="email")

_GROUP = Reference("aspen.groups", "group", text="r.name", also="r.prefix")
_ROLE = Reference("aspen.roles", "role", text="r.name")

# Users

EMAIL = Column(
    "email",
    "email",
    nullable=True,
    unique=True,
    fold=True,
    needed="is required for a new user",
)
USER_NAME = Column("name", "name", nullable=True, needed="is required for a new user")
AUTH0_USER = Column(
    "auth0_user_id",
    "auth0_user_id",
    nullable=True,
    unique=True,
    needed="is required for a new user: create the user at Auth0 first, and use its ID",
)
SYSTEM_ADMIN = Column(
    "system_admin", "system_admin", type="boolean", nullable=True, default="false"
)
GISAID = Column("gisaid_submitter_id", "gisaid_submitter_id", nullable=True)
ROLE = Column(
    "role",
    "role_id",
    type="integer",
    nullable=True,
    reference=_ROLE,
    side=Side(
        table="aspen.user_roles",
        id="role_id",
        joins="LEFT JOIN aspen.user_roles {t} ON {t}.user_id = {s}.id AND {t}.group_id = {within}",
        owner="{t}.user_id = p.id AND {t}.group_id = p.within",
        lacks="has several roles in that group; remove all but one manually",
        inserts={"user_id": "p.id", "group_id": "p.within"},
    ),
)
IN_GROUP = Column("group", "group_id", type="integer", reference=_GROUP)

_OF_USERS = (
    Column("agreed_to_tos", "agreed_to_tos", "boolean", nullable=True, default="false"),
    Column("acknowledged_policy_version", "acknowledged_policy_version", "date", nullable=True),
    Column("split_id", "split_id", nullable=True, default=_RANDOM),
    Column("analytics_id", "analytics_id", nullable=True, default=_RANDOM),
    Column("created_at", "created_at", "timestamp", nullable=True, default="now()"),
)

USER_COLUMNS = {
    column.name: column
    for column in (
        *(EMAIL, USER_NAME, AUTH0_USER, SYSTEM_ADMIN, GISAID, ROLE),
        *(replace(column, hidden=True) for column in _OF_USERS),
    )
}
"""The columns of users that a bulk run may change or create, by name."""

# Groups

GROUP_NAME = Column(
    "name",
    "name",
    nullable=True,
    unique=True,
    fold=True,
    needed="is required for a new group",
)
PREFIX = Column(
    "prefix",
    "prefix",
    nullable=True,
    unique=True,
    fold=True,
    needed="is required for a new group",
)
ADDRESS = Column("address", "address", nullable=True)
DIVISION = Column("division", "division", nullable=True)
PLACE = Column("location", "location", nullable=True)
TREE_LOCATION = Column(
    "default_tree_location",
    "default_tree_location_id",
    type="integer",
    nullable=True,
    reference=LOCATION.reference,
    needed="is required for a new group",
)
SUBMITTING_LAB = Column("submitting_lab", "submitting_lab", nullable=True)
AUTH0_ORG = Column(
    "auth0_org_id",
    "auth0_org_id",
    nullable=True,
    unique=True,
    needed="is required for a new group: create the organization at Auth0 first, and use its ID",
)
_TREE_PARAMETERS = Column(
    "tree_parameters", "tree_parameters", "jsonb", nullable=True, default="'{}'", hidden=True
)
GROUP_COLUMNS = {
    column.name: column
    for column in (
        *(GROUP_NAME, PREFIX, ADDRESS, DIVISION, PLACE, TREE_LOCATION, SUBMITTING_LAB),
        *(AUTH0_ORG, _TREE_PARAMETERS),
    )
}
"""The columns of groups that a bulk run may change or create, by name."""
