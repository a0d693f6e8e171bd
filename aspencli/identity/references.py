"""The rows that refer to users or groups, counted in whatever tables the database has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from aspen.database.sessions import Reader

_LINKS = sa.text(
    """
SELECT format('%I.%I', n.nspname, t.relname), quote_ident(a.attname)
  FROM pg_constraint c
  JOIN pg_class t ON t.oid = c.conrelid
  JOIN pg_namespace n ON n.oid = t.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
 WHERE c.contype = 'f' AND c.confrelid = CAST(:table AS regclass)
 ORDER BY 1, 2
"""
)

Uses = Mapping[int, Sequence[str]]
"""What refers to each row that something refers to, such as ``samples: 12``, by the row's ID."""


@dataclass(frozen=True)
class _Words:
    """The words for the rows of a table.

    Attributes:
        plural: The word for all of them; empty if each kind has a name that is made of its value.
        by: The column that tells kinds apart, if there are kinds with words of their own.
        kinds: These words, by the value of the column.
    """

    plural: str
    by: str | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)

    def of(self, kind: str | None) -> str:
        """Return the word for rows of a kind."""
        made = (kind or "other row").lower().replace("_", " ")
        made = made if made.endswith("data") else f"{made}s"
        return self.kinds.get(kind or "", self.plural or made)


_USER = {
    ("aspen.samples", "uploaded_by_id"): _Words("samples uploaded"),
    ("aspen.workflows", "user_id"): _Words(
        "jobs started", "workflow_type", {"PHYLO_RUN": "phylo runs started"}
    ),
}
_GROUP = {
    ("aspen.samples", "submitting_group_id"): _Words("samples"),
    ("aspen.phylo_runs", "group_id"): _Words("phylo runs"),
    ("aspen.entities", "group_id"): _Words("", "entity_type"),
    ("aspen.user_roles", "group_id"): _Words("roles of members"),
    ("aspen.group_roles", "grantor_group_id"): _Words("roles of other groups in this one"),
    ("aspen.group_roles", "grantee_group_id"): _Words("roles of this group in others"),
}


def uses_of_users(reader: Reader, ids: Collection[int]) -> Uses:
    """Return the rows that refer to users, besides their roles."""
    return _uses(reader, "aspen.users", ids, _USER, besides={"aspen.user_roles"})


def uses_of_groups(reader: Reader, ids: Collection[int]) -> Uses:
    """Return the rows that refer to groups."""
    return _uses(reader, "aspen.groups", ids, _GROUP)


def _uses(
    reader: Reader,
    table: str,
    ids: Collection[int],
    known: Mapping[tuple[str, str], _Words],
    besides: Collection[str] = (),
) -> Uses:
    found: dict[int, list[str]] = {}
    if not ids:
        return found
    for name, column in reader.execute(_LINKS, {"table": table}).all():
        if name in besides:
            continue
        words = known.get((name, column)) or _Words(f"rows of {name} ({column})")
        for row_id, some in _counts(reader, name, column, ids, words).items():
            texts = [f"{what}: {number:,}" for what, number in some.items()]
            found.setdefault(row_id, []).extend(texts)
    return found


def _counts(
    reader: Reader, table: str, column: str, ids: Collection[int], words: _Words
) -> dict[int, Counter[str]]:
    """Return the number of rows that refer to each ID through a column, by what they are."""
    kind = f"{words.by}::text" if words.by else "NULL"
    # The names come from the catalog, quoted, or are our own.
    query = (
        f"SELECT {column} AS id, {kind} AS kind, count(*) AS rows FROM {table}"  # noqa: S608
        f" WHERE {column} = ANY(:ids) GROUP BY 1, 2 ORDER BY 1, 2"
    )
    counts: dict[int, Counter[str]] = {}
    for row in reader.execute(sa.text(query), {"ids": list(ids)}):
        counts.setdefault(row.id, Counter())[words.of(row.kind)] += row.rows
    return counts
