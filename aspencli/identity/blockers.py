"""The rows of other tables that refer to users or groups, and so prevent deleting them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from aspen.database.sessions import Reader

_LINKS = sa.text(
    """
SELECT format('%I.%I', n.nspname, t.relname) AS relation, quote_ident(a.attname) AS name,
       t.relname AS bare
  FROM pg_constraint c
  JOIN pg_class t ON t.oid = c.conrelid
  JOIN pg_namespace n ON n.oid = t.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
 WHERE c.contype = 'f' AND c.confrelid = CAST(:table AS regclass)
 ORDER BY 1, 2
"""
)
_WORDS = {"user_roles": "members", "group_roles": "roles of other groups"}


def references(
    reader: Reader, table: str, ids: Sequence[int], *, besides: Collection[str] = ()
) -> dict[int, str]:
    """Return what refers to rows of a table, in words, by the ID of the row.

    Args:
        reader: Runs the queries.
        table: The table, with its schema.
        ids: The IDs of the rows.
        besides: The tables whose references do not count, without their schema.
    """
    found: dict[int, list[str]] = {}
    if not ids:
        return {}
    for link in reader.execute(_LINKS, {"table": table}).all():
        if link.bare in besides:
            continue
        # The names are quoted by the server.
        query = f"SELECT DISTINCT {link.name} FROM {link.relation} WHERE {link.name} = ANY(:ids)"  # noqa: S608 - same
        for (row,) in reader.execute(sa.text(query), {"ids": list(ids)}):
            words = found.setdefault(row, [])
            word = _WORDS.get(link.bare, link.bare.replace("_", " "))
            words += [word] if word not in words else []
    return {row: ", ".join(words) for row, words in found.items()}
