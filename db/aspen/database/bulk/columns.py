"""Columns of samples, users, roles, and groups that bulk runs may change, and how rows are found.

Those of users and groups include every column of their tables, so that a row that is deleted and
recreated is complete. Their lookups by name ignore letter case, although the database does not,
because a second group *czi* besides *CZI* would be a mistake.
"""

from __future__ import annotations

from functools import partial

from aspen.database.bulk.spec import BulkColumn, BulkTable, Reference, Side, Spec

# Samples

SAMPLES = BulkTable(
    name="aspen.samples",
    noun="sample",
    lacks="the group has no sample",
    scope="submitting_group_id",
    label="private_identifier",
)
ID = BulkColumn("id", type="bigint")
PRIVATE = BulkColumn("private_identifier", unique=True)
PUBLIC = BulkColumn("public_identifier", unique=True, verb="is now named")

COLLECTION_DATE = BulkColumn("collection_date", type="date")
SEQUENCING_DATE = BulkColumn(
    "sequencing_date",
    type="date",
    nullable=True,
    side=Side(
        table="aspen.pathogen_genomes",
        id="entity_id",
        joins="LEFT JOIN aspen.uploaded_pathogen_genomes {t}u ON {t}u.sample_id = {s}.id "
        "LEFT JOIN aspen.pathogen_genomes {t} ON {t}.entity_id = {t}u.pathogen_genome_id",
        owner="EXISTS (SELECT FROM aspen.uploaded_pathogen_genomes {t}u "
        "WHERE {t}u.pathogen_genome_id = {t}.entity_id AND {t}u.sample_id = p.id)",
        lacks="has no genome, which would hold the sequencing date",
    ),
)
PRIVACY = BulkColumn("private", type="boolean")
LOCATION = BulkColumn(
    "location",
    "location_id",
    type="integer",
    nullable=True,
    reference=Reference(
        table="aspen.locations",
        noun="location",
        text="concat_ws(' / ', r.region, r.country, r.division, r.location)",
        is_path=True,
    ),
)
COLUMNS = {
    column.name: column
    for column in (PRIVATE, PUBLIC, COLLECTION_DATE, SEQUENCING_DATE, PRIVACY, LOCATION)
}
"""The columns of samples that a bulk run may change, by name."""

RENAME = Spec(SAMPLES, key=PRIVATE, columns=(PUBLIC,))
"""New public identifiers for samples found by their private ones."""

# Users and their roles

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

GROUPS = BulkTable("aspen.groups", "group", "there is no group", scope=None, label="name")
USERS = BulkTable("aspen.users", "user", "there is no user", scope=None, label="email")

EMAIL = BulkColumn(
    "email", nullable=True, unique=True, fold=True, needed="is required for a new user"
)
USER_NAME = BulkColumn("name", nullable=True, needed="is required for a new user")
AUTH0_USER = BulkColumn(
    "auth0_user_id",
    nullable=True,
    unique=True,
    needed="is required for a new user: create the user at Auth0 first, and use its ID",
)
SYSTEM_ADMIN = BulkColumn("system_admin", type="boolean", nullable=True, default="false")
GISAID = BulkColumn("gisaid_submitter_id", nullable=True)
ROLE = BulkColumn(
    "role",
    "role_id",
    type="integer",
    nullable=True,
    reference=Reference("aspen.roles", "role", text="r.name"),
    side=Side(
        table="aspen.user_roles",
        id="role_id",
        joins="LEFT JOIN aspen.user_roles {t} ON {t}.user_id = {s}.id AND {t}.group_id = {within}",
        owner="{t}.user_id = p.id AND {t}.group_id = p.within",
        lacks="has several roles in that group; remove all but one manually",
        inserts={"user_id": "p.id", "group_id": "p.within"},
    ),
)
IN_GROUP = BulkColumn(
    "group",
    "group_id",
    type="integer",
    reference=Reference("aspen.groups", "group", text="r.name", also="r.prefix"),
)
_hidden = partial(BulkColumn, nullable=True, hidden=True)
USER_COLUMNS = {
    column.name: column
    for column in (
        *(EMAIL, USER_NAME, AUTH0_USER, SYSTEM_ADMIN, GISAID, ROLE),
        _hidden("agreed_to_tos", type="boolean", default="false"),
        _hidden("acknowledged_policy_version", type="date"),
        _hidden("split_id", default=_RANDOM),
        _hidden("analytics_id", default=_RANDOM),
        _hidden("created_at", type="timestamp", default="now()"),
    )
}
"""The columns of users that a bulk run may change or create, by name."""

# Groups

_NEEDED = "is required for a new group"
GROUP_NAME = BulkColumn("name", nullable=True, unique=True, fold=True, needed=_NEEDED)
PREFIX = BulkColumn("prefix", nullable=True, unique=True, fold=True, needed=_NEEDED)
ADDRESS = BulkColumn("address", nullable=True)
DIVISION = BulkColumn("division", nullable=True)
PLACE = BulkColumn("location", nullable=True)
TREE_LOCATION = BulkColumn(
    "default_tree_location",
    "default_tree_location_id",
    type="integer",
    nullable=True,
    reference=LOCATION.reference,
    needed=_NEEDED,
)
SUBMITTING_LAB = BulkColumn("submitting_lab", nullable=True)
AUTH0_ORG = BulkColumn(
    "auth0_org_id",
    nullable=True,
    unique=True,
    needed="is required for a new group: create the organization at Auth0 first, and use its ID",
)
GROUP_COLUMNS = {
    column.name: column
    for column in (
        *(GROUP_NAME, PREFIX, ADDRESS, DIVISION, PLACE, TREE_LOCATION, SUBMITTING_LAB),
        AUTH0_ORG,
        _hidden("tree_parameters", type="jsonb", default="'{}'"),
    )
}
"""The columns of groups that a bulk run may change or create, by name."""
