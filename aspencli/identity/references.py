"""The rows that refer to a user or a group, counted in whatever tables the database has."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa

from aspen.database.sessions import Reader

_LINKS = """
SELECT format('%I.%I', n.nspname, t.relname), quote_ident(a.attname)
  FROM pg_constraint c
  JOIN pg_class t ON t.oid = c.conrelid
  JOIN pg_namespace n ON n.oid = t.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
 WHERE c.contype = 'f' AND c.confrelid = CAST(:table AS regclass)
 ORDER BY 1, 2
"""


@dataclass(frozen=True)
class Words:
    """The words for the rows of a table.

    Attributes:
        plural: The word for all of them.
        by: The column that tells kinds apart, if there are kinds with words of their own.
        kinds: These words, by the value of the column.
    """

    plural: str
    by: str | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)


_USER = {
    ("aspen.samples", "uploaded_by_id"): Words("samples uploaded"),
    ("aspen.workflows", "user_id"): Words(
        "jobs started", "workflow_type", {"PHYLO_RUN": "phylo runs started"}
    ),
}
_GROUP = {
    ("aspen.samples", "submitting_group_id"): Words("samples"),
    ("aspen.phylo_runs", "group_id"): Words("phylo runs"),
    ("aspen.entities", "group_id"): Words(
        "other entities", "entity_type", {"PHYLO_TREE": "phylo trees"}
    ),
    ("aspen.user_roles", "group_id"): Words("roles of members"),
    ("aspen.group_roles", "grantor_group_id"): Words("roles of other groups in this one"),
    ("aspen.group_roles", "grantee_group_id"): Words("roles of this group in others"),
}


def uses_of_user(reader: Reader, user_id: int) -> list[str]:
    """Describe, with counts, the rows that refer to a user, besides roles."""
    return _uses(reader, "aspen.users", user_id, _USER, besides={"aspen.user_roles"})


def uses_of_group(reader: Reader, group_id: int) -> list[str]:
    """Describe, with counts, the rows that refer to a group."""
    return _uses(reader, "aspen.groups", group_id, _GROUP)


def _uses(
    reader: Reader,
    table: str,
    row_id: int,
    known: Mapping[tuple[str, str], Words],
    besides: Collection[str] = (),
) -> list[str]:
    found = []
    for name, column in reader.execute(sa.text(_LINKS), {"table": table}).all():
        if name in besides:
            continue
        words = known.get((name, column)) or Words(f"rows of {name} ({column})")
        kind = f"{words.by}::text" if words.by else "NULL"
        # The names come from the catalog, quoted, or are our own.
        query = (
            f"SELECT {kind} AS kind, count(*) AS rows FROM {name}"  # noqa: S608
            f" WHERE {column} = :id GROUP BY 1 ORDER BY 1"
        )
        rows = reader.execute(sa.text(query), {"id": row_id})
        found += [f"{words.kinds.get(row.kind, words.plural)}: {row.rows:,}" for row in rows]
    return found
