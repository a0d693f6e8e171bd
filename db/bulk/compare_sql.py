"""The statement that holds the rows of an undo file against the database."""

from __future__ import annotations

from db.bulk.plan_sql import ROWS, current, given, in_scope, sides
from db.bulk.spec import Spec


def count(spec: Spec) -> str:
    """How many rows hold what was written, what was there before, and something else."""
    table = spec.table
    written, before = _all(spec, "e"), _all(spec, "v")
    return f"""
SELECT count(*) FILTER (WHERE s.{table.id} IS NOT NULL AND {written}) AS written,
       count(*) FILTER (WHERE s.{table.id} IS NOT NULL AND {before}) AS before,
       count(*) FILTER (WHERE s.{table.id} IS NOT NULL AND NOT ({written} OR {before}))
           AS otherwise,
       count(*) FILTER (WHERE s.{table.id} IS NULL) AS gone
  FROM {ROWS} m
  LEFT JOIN {table.name} s ON {in_scope(spec, "s")} AND s.{spec.key.stored} = m.key\
{sides(spec)}
"""


def _all(spec: Spec, side: str) -> str:
    conditions = []
    for number, column in spec.numbered():
        value = f"m.{side}{number}"
        if column.reference and side == "v":  # an undo file has the number
            value += "::integer"
        same = f"{current(number, column)} {column.equals} {value}"
        conditions.append(f"({same} OR NOT {given(spec, number, 'm')})" if spec.partial else same)
    return f"({' AND '.join(conditions)})"
