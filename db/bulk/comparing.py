"""Comparison of an undo file's rows with the database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from db.bulk import compare_sql, plan_sql
from db.bulk.copying import copy_in
from db.bulk.lines import lines_of
from db.bulk.rows import Request
from db.bulk.spec import Spec
from db.bulk.statements import temporary_tables
from db.database import Database
from db.interrupts import cancellable


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
        connection.execute(sa.text(plan_sql.READ_WRITE))
        with temporary_tables(connection):
            connection.execute(sa.text(plan_sql.create_rows(spec)))
        copy_in(connection, plan_sql.ROWS, lines_of(spec, requests))
        count = sa.text(compare_sql.count(spec))
        values = {"scope": scope} if spec.table.scope else {}
        row = cancellable(connection, lambda: connection.execute(count, values).one())
        return Comparison(row.written, row.before, row.otherwise, row.gone)
