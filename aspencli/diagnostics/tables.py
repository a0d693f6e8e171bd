"""The tables of a database: which ones are locked, and how large they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from aspen.database.engine import ReadSession

OURS = (
    "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%'"
    " AND n.nspname NOT LIKE 'pg\\_temp\\_%'"
)
"""The SQL condition for schemas ``n`` that are neither system nor temporary schemas."""
# Reading the size of a relation takes a lock on it, which would wait for any session that holds an
# exclusive lock or is queued for one.
_HELD = """
WITH held AS MATERIALIZED (
    SELECT DISTINCT relation FROM pg_locks
    WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock' AND pid <> pg_backend_pid()
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm', 'p') AND (c.oid IN (SELECT relation FROM held)
    OR c.reltoastrelid IN (SELECT relation FROM held WHERE relation <> 0)
    OR c.oid IN (SELECT indrelid FROM pg_index JOIN held ON relation = indexrelid))
"""
_SIZES = """
SELECT format('%I.%I', n.nspname, c.relname) AS table,
    -- Never analyzed: -1, and until PostgreSQL 13 0.
    CASE WHEN c.reltuples > 0 OR c.reltuples = 0 AND c.relpages > 0 THEN c.reltuples::bigint
        WHEN c.reltuples = 0 AND c.oid <> ALL(CAST(:held AS oid[])) THEN
            CASE WHEN pg_relation_size(c.oid) = 0 THEN 0 END END AS rows,
    e.pages * current_setting('block_size')::bigint AS guess,
    CASE WHEN c.oid <> ALL(CAST(:held AS oid[])) THEN pg_table_size(c.oid) END AS whole,
    CASE WHEN c.oid <> ALL(CAST(:held AS oid[])) AND c.reltoastrelid <> 0
        THEN pg_total_relation_size(c.reltoastrelid) ELSE 0 END AS toast,
    CASE WHEN c.oid <> ALL(CAST(:held AS oid[])) THEN pg_indexes_size(c.oid) END AS indexes
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
    SELECT c.relpages::bigint + coalesce(sum(i.relpages), 0) AS pages
    FROM pg_class i
    WHERE i.oid = c.reltoastrelid OR i.oid IN (
        SELECT indexrelid FROM pg_index WHERE indrelid IN (c.oid, c.reltoastrelid)
    )
) e
WHERE c.relkind IN ('r', 'm', 'p') AND {ours}
"""


@dataclass(frozen=True)
class TableSize:
    """The size of a table on disk, in bytes.

    Attributes:
        table: The name with the schema, quoted for SQL.
        rows: The number of rows as of the last analyze; None before the first one.
        total: The total size.
        heap: The size of the rows, without TOAST data.
        toast: The size of the TOAST data.
        indexes: The size of the indexes.
        estimated: True if the table is locked: ``total`` is then as of the last vacuum, and the
            parts are unknown.
    """

    table: str
    rows: int | None
    total: int
    heap: int | None
    toast: int | None
    indexes: int | None
    estimated: bool


@dataclass(frozen=True)
class Sizes:
    """The tables, largest first, and the size of the whole database in bytes."""

    tables: tuple[TableSize, ...]
    database: int


def held(session: ReadSession) -> Mapping[int, str]:
    """Return the tables that are exclusively locked, or about to be, by OID."""
    return {row.oid: row.name for row in session.execute(sa.text(_HELD))}


def sizes(session: ReadSession) -> Sizes:
    """Return the size of each table, except the system catalogs."""
    query = sa.text(_SIZES.format(ours=OURS))
    rows = session.execute(query, {"held": list(held(session))}).mappings()
    tables = [_sized(row) for row in rows]
    whole = session.scalar(sa.text("SELECT pg_database_size(current_database())"))
    return Sizes(tuple(sorted(tables, key=lambda t: (-t.total, t.table))), int(whole or 0))


def _sized(row: sa.RowMapping) -> TableSize:
    if row["whole"] is None:
        return TableSize(row["table"], row["rows"], int(row["guess"]), None, None, None, True)
    whole, toast, indexes = row["whole"], row["toast"], row["indexes"]
    return TableSize(
        row["table"], row["rows"], whole + indexes, whole - toast, toast, indexes, False
    )
