"""The statement that holds the rows of an undo file against the database."""

from __future__ import annotations

from db.bulk.conditions import given, in_scope
from db.bulk.plan_sql import ROWS, current, sides
from db.bulk.spec import Spec


def count(spec: Spec) -> str:
    """How many rows hold what was written, what was there before, and something else."""
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
    """The condition that a row holds what one side of the undo file says.

    Args:
        spec: The specification.
        side: ``e`` for what was written, ``v`` for what was there before.
        is_there: The condition that there is such a row.
    """
    conditions = []
    for number, column in spec.numbered():
        value = f"m.{side}{number}"
        if column.reference and side == "v":  # an undo file has the number
            value += "::integer"
        same = f"{current(number, column)} {column.equals} {value}"
        conditions.append(f"({same} OR NOT {given(spec, number, 'm')})" if spec.partial else same)
    holds = " AND ".join(conditions)
    if not spec.creates:
        return f"({is_there} AND {holds})"
    # A row that is to be called nothing is one that is not there. Neither is its further line in
    # another table, which tells no more than that.
    gone = f"m.g{spec.labelled} AND m.{side}{spec.labelled} IS NULL"
    return f"CASE WHEN {gone} THEN NOT {is_there} ELSE {holds} END"
