"""The statement that compares the rows of an undo file with the database."""

from __future__ import annotations

from db.bulk.conditions import given, in_scope
from db.bulk.plan_sql import ROWS, current, sides
from db.bulk.spec import Spec


def count(spec: Spec) -> str:
    """Return a query that counts the rows as written, as before, otherwise, and gone."""
    table = spec.table
    is_there = f"s.{table.id} IS NOT NULL"
    written, before = (_holds(spec, side, is_there) for side in ("e", "v"))
    return f"""
SELECT count(*) FILTER (WHERE {written}) AS written,
       count(*) FILTER (WHERE {before}) AS before,
       count(*) FILTER (WHERE {is_there} AND NOT ({written} OR {before})) AS otherwise,
       count(*) FILTER (WHERE NOT {is_there} AND NOT ({written} OR {before})) AS gone
  FROM {ROWS} m
  LEFT JOIN {table.name} s ON {in_scope(spec, "s")} AND s.{spec.key.stored} = m.key\
{sides(spec, within="m.vw::integer")}
"""


def _holds(spec: Spec, side: str, is_there: str) -> str:
    """Return the condition that a row holds what one side of the undo file says.

    Args:
        spec: The specification.
        side: ``e`` for what was written, ``v`` for what was there before.
        is_there: The condition that the row exists.
    """
    conditions = []
    for number, column in spec.numbered():
        value = f"m.{side}{number}"
        if column.reference and side == "v":  # an undo file has the ID
            value += "::integer"
        same = f"{current(number, column)} {column.equals} {value}"
        conditions.append(f"({same} OR NOT {given(spec, number, 'm')})" if spec.partial else same)
    holds = " AND ".join(conditions)
    if not spec.creates:
        return f"({is_there} AND {holds})"
    # A row with NULL as its label is one that does not exist. The same is true of its further
    # lines for another table, which say nothing more.
    gone = f"m.g{spec.labelled} AND m.{side}{spec.labelled} IS NULL"
    return f"CASE WHEN {gone} THEN NOT {is_there} ELSE {holds} END"
