"""Planning and writing for rows that are created or deleted, or that have several lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from db.bulk import check_sql, creating_sql, gathering_sql
from db.bulk.creating_sql import Link
from db.bulk.spec import Spec
from db.bulk.statements import Statements


def gather(run: Statements, spec: Spec) -> bool:
    """Merge the lines that mean the same row of the table; return True if there are no problems."""
    is_clean = True
    if run.run(gathering_sql.DOUBLED).scalar():
        run.run(check_sql.name(gathering_sql.doubled(spec)))
        run.run(gathering_sql.TAKE_DOUBLED)
        is_clean = False
    if run.run(gathering_sql.has_repeated(spec)).scalar():
        run.run(check_sql.name(gathering_sql.repeated(spec)))
        is_clean = False
    if spec.within and not spec.expects and run.run(gathering_sql.HAS_COMPANY).scalar():
        found = run.run(check_sql.name(gathering_sql.contradicting(spec)))
        is_clean &= not found.rowcount
        run.run(gathering_sql.gather(spec))
    return is_clean


def unusable(run: Statements, spec: Spec, counts: Any) -> Iterator[str]:
    """Yield queries for rows that cannot be created or deleted; some may find none."""
    if not spec.expects:
        if counts.created:
            yield creating_sql.lacking(spec)
        if not spec.keeps_key:
            yield creating_sql.unnamed(spec)
        if spec.within:
            for number, _side, column in spec.aside():
                yield creating_sql.homeless(spec, number, column)
    if counts.deleted:
        found = links(run, spec)
        if found:
            yield creating_sql.in_use(spec, found)


def links(run: Statements, spec: Spec) -> list[Link]:
    """Return the columns that refer to rows of the table, within the open transaction."""
    return [Link(row.table_name, row.column_name) for row in run.run(creating_sql.links(spec))]
