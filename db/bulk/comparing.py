"""Whether samples hold what a bulk rename wrote, or still what was there before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from db.bulk import rename_sql as sql
from db.bulk.copying import copy_in, copy_line
from db.bulk.rename_types import Request
from db.database import Database
from db.interrupts import cancellable

_COUNT = """
SELECT count(*) FILTER (WHERE s.public_identifier = m.expected) AS written,
       count(*) FILTER (WHERE s.public_identifier = m.public_identifier) AS before,
       count(*) FILTER (WHERE s.public_identifier NOT IN (m.expected, m.public_identifier))
           AS otherwise,
       count(*) FILTER (WHERE s.id IS NULL) AS gone
  FROM pg_temp.aspencli_mapping m
  LEFT JOIN aspen.samples s
    ON s.submitting_group_id = :group AND s.private_identifier = m.private_identifier
"""


@dataclass(frozen=True)
class Comparison:
    """How many samples of an undo file hold what.

    Attributes:
        written: What the rename wrote.
        before: What was there before it.
        otherwise: Something else.
        gone: The group has no such sample any more.
    """

    written: int
    before: int
    otherwise: int
    gone: int


def compare(database: Database, group_id: int, requests: Iterable[Request]) -> Comparison:
    """Hold the rows of an undo file against the database; nothing is left behind there.

    Args:
        database: Where; reading is enough, for the rows go to a temporary table.
        group_id: The group of the samples.
        requests: Each row as a request to put the old identifier back where the new one is.
    """
    lines = (copy_line(r.line, r.private, r.public, r.expected) for r in requests)
    with database.engine.connect() as connection:  # rolled back at the end, with the table
        connection.execute(sa.text(sql.READ_WRITE))
        connection.execute(sa.text(sql.CREATE_MAPPING))
        copy_in(connection, sql.MAPPING, lines)
        count = sa.text(_COUNT)
        row = cancellable(connection, lambda: connection.execute(count, {"group": group_id}).one())
        return Comparison(row.written, row.before, row.otherwise, row.gone)
