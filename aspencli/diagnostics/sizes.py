"""The sizes of tables on disk: heap, long values (TOAST), and indexes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aspencli.diagnostics import LIMIT, Diagnostic, Examined, Report, Severity
from aspencli.diagnostics.session import OURS, held, omitted_notes, query, scalar
from aspencli.text import counted, size_text

if TYPE_CHECKING:
    from aspen.database.sessions import ReadSession

_SIZES = """
SELECT "table", rows, coalesce(whole + indexes, guess)::bigint AS total, whole - toast AS heap,
    CASE WHEN whole IS NOT NULL THEN toast END AS toast, indexes, whole IS NULL AS estimated
FROM (SELECT format('%I.%I', n.nspname, c.relname) AS table,
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
WHERE c.relkind IN ('r', 'm', 'p') AND {ours}) AS sizes
"""
_WHOLE = "SELECT pg_database_size(current_database())"
_COLUMNS = (
    ("table", "Table", "whole"),
    ("rows", "Rows", "right"),
    ("total", "Total", "bytes"),
    ("heap", "Heap", "bytes"),
    ("toast", "TOAST", "bytes secondary"),
    ("indexes", "Indexes", "bytes"),
    ("estimated", "Estimated", "flag secondary"),
)


def sizes(session: ReadSession, *, limit: int | None) -> Report:
    """Show the size of each table, largest first: heap, long values (TOAST), and indexes.

    Row counts are the server's estimates. Sizes of locked tables are estimated, and marked as such.
    Table output shows the first 20.
    """
    tables = _tables(session)
    guessed = [row["table"] for row in tables if row["estimated"]]
    shown, whole = tables[:limit], size_text(scalar(session, _WHOLE))
    total = counted(len(tables), "table")
    return Report(
        shown,
        empty="No tables.",
        notes=[
            ("info", f"{len(shown)} of {total} shown; database size: {whole}"),
            *omitted_notes(guessed, "estimated"),
        ],
        without=() if guessed else ("estimated",),
    )


def check(session: ReadSession) -> Examined:
    """Report the size of the database and its largest tables."""
    tables = _tables(session)
    whole = scalar(session, _WHOLE) / 1e6
    biggest = tuple(f"{row['table']}: {row['total'] / 1e6:,.1f} MB" for row in tables[:3])
    message = f"{whole:,.1f} MB in {counted(len(tables), 'table')}."
    return Examined(Severity.OK, message, details=biggest)


def _tables(session: ReadSession) -> list[dict[str, Any]]:
    """Return the tables without the system catalogs, largest first."""
    rows = query(session, _SIZES.format(ours=OURS), held=list(held(session)))
    return sorted(rows, key=lambda row: (-row["total"], row["table"]))


DIAGNOSTIC = Diagnostic(
    sizes,
    _COLUMNS,
    ("aspencli db sizes", "aspencli db sizes --all -o csv"),
    place=40,
    check=check,
    options=(LIMIT,),
)
