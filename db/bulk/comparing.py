"""Whether rows hold what a bulk run wrote, or still what was there before."""

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
    """How many rows of an undo file hold what.

    Attributes:
        written: What the run wrote.
        before: What was there before it.
        otherwise: Something else.
        gone: There is no such row any more.
    """

    written: int
    before: int
    otherwise: int
    gone: int


def compare(
    database: Database, spec: Spec, scope: int | None, requests: Iterable[Request]
) -> Comparison:
    """Hold the rows of an undo file against the database; nothing is left behind there.

    Args:
        database: Where; reading is enough, for the rows go to a temporary table.
        spec: What the undo file changes.
        scope: What its run was bound to.
        requests: Each row as a request to put the old values back where the new ones are.
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
