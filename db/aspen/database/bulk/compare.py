"""The comparison of the rows of an undo file with the database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from aspen.database.bulk import sql_plan
from aspen.database.bulk.plan import temporary_tables
from aspen.database.bulk.run import lines_of
from aspen.database.bulk.spec import Request, Spec
from aspen.database.bulk.sql_plan import ROWS, current, given, in_scope, sides
from aspen.database.cancel import cancellable
from aspen.database.engine import Database
from aspen.database.staging import copy_in


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


@dataclass(frozen=True)
class Comparison:
    """The number of an undo file's rows in each state.

    Attributes:
        written: Rows that hold what the run wrote.
        before: Rows that hold what was there before it.
        otherwise: Rows that hold something else.
        gone: Rows that no longer exist.
    """

    written: int
    before: int
    otherwise: int
    gone: int


def compare(
    database: Database, spec: Spec, scope: int | None, requests: Iterable[Request]
) -> Comparison:
    """Compare the rows of an undo file with the database, leaving nothing behind there.

    Args:
        database: The database; read access is enough, because the rows go to a temporary table.
        spec: The specification of the undo run.
        scope: The scope of the original run.
        requests: Each row as a request to replace the new values with the old ones.
    """
    with database.engine.connect() as connection:  # rolled back at the end, with the table
        connection.execute(sa.text(sql_plan.READ_WRITE))
        with temporary_tables(connection):
            connection.execute(sa.text(sql_plan.create_rows(spec)))
        copy_in(connection, sql_plan.ROWS, lines_of(spec, requests))
        statement = sa.text(count(spec))
        values = {"scope": scope} if spec.table.scope else {}
        row = cancellable(connection, lambda: connection.execute(statement, values).one())
        return Comparison(row.written, row.before, row.otherwise, row.gone)
