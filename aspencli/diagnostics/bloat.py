"""Disk space that tables and indexes occupy but do not need.

It is estimated from the planner's statistics, by comparing the pages that the rows would fill with
the actual number of pages (the method of check_postgres, now in general use). This reads only
catalogs; the extension pgstattuple measures bloat exactly, by reading the whole table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aspencli.diagnostics import LIMIT, Diagnostic, Examined, Report, Severity
from aspencli.diagnostics.session import (
    OURS,
    held,
    moment,
    omitted_notes,
    query,
    rights,
    step_notes,
)
from aspencli.text import counted, sql_name

if TYPE_CHECKING:
    from aspen.database.sessions import ReadSession

# A row has a 23-byte header plus one bit per column if some are NULL, padded to 8; then the values,
# whose alignment padding is unknown and omitted. A page has a 24-byte header and 4 bytes per row.
_TABLES = """
SELECT 'table' AS kind, format('%I.%I', n.nspname, c.relname) AS name,
    format('%I.%I', n.nspname, c.relname) AS table,
    c.reltuples AS rows, p.size, w.known,
    ceil(c.reltuples * (4 + 8 * ceil((w.header + w.width) / 8.0)) * 100
        / w.fill / (p.block - 24)) * p.block AS needed,
    s.n_dead_tup AS dead_rows, greatest(s.last_vacuum, s.last_autovacuum) AS vacuumed,
    greatest(s.last_analyze, s.last_autoanalyze) AS analysed
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
CROSS JOIN LATERAL (
    SELECT current_setting('block_size')::numeric AS block, pg_relation_size(c.oid) AS size
) p
CROSS JOIN LATERAL (
    SELECT 8 * ceil((23 + CASE WHEN bool_or(v.null_frac > 0)
            THEN ceil(count(*) / 8.0) ELSE 0 END) / 8.0) AS header,
        sum((1 - v.null_frac) * v.avg_width)::numeric AS width,
        count(*) = count(v.attname) AS known,
        coalesce(substring(c.reloptions::text FROM 'fillfactor=(\\d+)')::numeric, 100)
            AS fill
    FROM pg_attribute a
    LEFT JOIN pg_stats v ON v.schemaname = n.nspname AND v.tablename = c.relname
        AND v.attname = a.attname AND NOT v.inherited
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
) w
WHERE c.relkind IN ('r', 'm') AND {ours} AND c.oid <> ALL(CAST(:held AS oid[]))
"""
# An entry has an 8-byte header, plus a null bitmap padded to 8 if needed; a page has 24 + 16 bytes
# of headers and 4 bytes per entry. PostgreSQL 13 and later deduplicate entries, so an index may be
# smaller than computed here: the reported waste is a minimum. B-tree's default fill factor is 90.
_INDEXES = """
SELECT 'index' AS kind, format('%I.%I', n.nspname, c.relname) AS name,
    format('%I.%I', n.nspname, t.relname) AS table,
    c.reltuples AS rows, p.size, w.known,
    ceil(c.reltuples * (4 + 8 * ceil((w.header + w.width) / 8.0)) * 100
        / w.fill / (p.block - 40)) * p.block + p.block AS needed,
    NULL::bigint AS dead_rows, NULL::timestamptz AS vacuumed, NULL::timestamptz AS analysed
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
JOIN pg_am m ON m.oid = c.relam AND m.amname = 'btree'
CROSS JOIN LATERAL (
    SELECT current_setting('block_size')::numeric AS block, pg_relation_size(c.oid) AS size
) p
CROSS JOIN LATERAL (
    SELECT CASE WHEN bool_or(v.null_frac > 0) THEN 16 ELSE 8 END AS header,
        sum((1 - v.null_frac) * v.avg_width)::numeric AS width,
        count(*) = count(v.attname) AS known,
        coalesce(substring(c.reloptions::text FROM 'fillfactor=(\\d+)')::numeric, 90)
            AS fill
    FROM pg_attribute k
    LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = i.indkey[k.attnum - 1]
    LEFT JOIN pg_stats v ON v.schemaname = n.nspname AND NOT v.inherited
        AND (v.tablename, v.attname) IN ((t.relname, a.attname), (c.relname, k.attname))
    WHERE k.attrelid = c.oid AND k.attnum > 0
) w
WHERE c.relkind = 'i' AND {ours} AND i.indrelid <> ALL(CAST(:held AS oid[]))
"""
_COLUMNS = (
    ("kind", "Kind", "secondary"),
    ("name", "Name", "whole"),
    ("table", "Table", "secondary omit"),
    ("size", "Size", "bytes"),
    ("wasted", "Wasted", "bytes"),
    ("share", "Share", "share"),
    ("dead_rows", "Dead rows", "right secondary"),
    ("vacuumed", "Vacuumed", "secondary whole"),
    ("analysed", "Analyzed", "secondary whole"),
    ("step", "Statement", "secondary omit"),
)
_BLOATED_BYTES, _BLOATED_SHARE = 10 * 1_000_000, 0.4  # the minimum waste that is worth fixing
_GRANT = (
    "Run ANALYZE, or ask an administrator to run: GRANT pg_read_all_data TO {user} "
    "(before PostgreSQL 14: GRANT SELECT ON ALL TABLES IN SCHEMA aspen)"
)


def bloat(session: ReadSession, *, limit: int | None) -> Report:
    """Estimate the wasted space in tables and indexes, largest first.

    Based on the planner's statistics, without reading tables; rough for small tables. The last
    column is the statement that reclaims the space, shown where more than 10 MB and 40% are wasted.
    Table output shows the first 20.
    """
    locked = held(session)
    found = _bloat(session, locked)
    notes = []
    if unknown := sum(row["wasted"] is None for row in found):
        seen = f"or none that user {rights(session).user} can see"
        lack = f"{unknown} of {len(found)} tables and indexes have no statistics, {seen}"
        cure = "Run ANALYZE, and connect as a user who can read the tables."
        notes = [("warn", lack), ("hint", cure)]
    shown = found[:limit]
    return Report(
        shown,
        empty="No tables.",
        notes=[*notes, *omitted_notes(list(locked.values()), "skipped")],
        asides=step_notes([row["step"] for row in shown if row["step"]]),
    )


def check(session: ReadSession) -> Examined:
    """Check for large amounts of wasted space."""
    found = _bloat(session, held(session))
    bad = [row for row in found if row["step"]]
    if not bad:
        return _unseen(session, found) or Examined(Severity.OK, "No significant bloat.")
    wasted = sum(row["wasted"] for row in bad) / 1e6
    tables = sum(row["kind"] == "table" for row in bad)
    ofs = [counted(tables, "table")] * (tables > 0)
    if len(bad) > tables:
        ofs.append("1 index" if len(bad) - tables == 1 else f"{len(bad) - tables} indexes")
    return Examined(
        Severity.WARNING,
        f"{wasted:,.1f} MB wasted in {' and '.join(ofs)}.",
        "aspencli db bloat",
        tuple(f"{row['name']}: {row['share']:.0%} wasted" for row in bad),
    )


def _unseen(session: ReadSession, found: list[dict[str, Any]]) -> Examined | None:
    """Return an unknown verdict if a large table or index has no statistics.

    Anything below the minimum waste that matters does not need them.
    """
    big = [row for row in found if row["size"] > _BLOATED_BYTES]
    unseen = [row for row in big if row["wasted"] is None]
    if not unseen:
        return None
    unseen.sort(key=lambda row: -row["size"])
    return Examined(
        Severity.UNKNOWN,
        f"This user can see no statistics of {len(unseen)} of {len(big)} large tables and indexes.",
        _GRANT.format(user=sql_name(rights(session).user)),
        tuple(row["name"] for row in unseen),
    )


def _bloat(session: ReadSession, locked: dict[int, str]) -> list[dict[str, Any]]:
    """Return the tables and B-tree indexes, most wasted first.

    The waste is None if there are no statistics, or none that this user may see; the step is None
    if it is not worth its cost.
    """
    found = [
        _row(row)
        for sql in (_TABLES, _INDEXES)
        for row in query(session, sql.format(ours=OURS), held=list(locked))
    ]
    return sorted(found, key=lambda row: (-(row["wasted"] or 0), -row["size"], row["name"]))


def _row(row: dict[str, Any]) -> dict[str, Any]:
    size, needed = int(row["size"]), row["needed"]
    # An empty table wastes nothing, even if it has no statistics.
    known = size == 0 or (row["known"] and row["rows"] >= 0 and needed is not None)
    wasted = max(0, size - int(needed or 0)) if known else None
    share = None if wasted is None else round(wasted / max(size, 1), 3)
    is_bloated = (wasted or 0) > _BLOATED_BYTES and (share or 0) > _BLOATED_SHARE
    return {
        **row,
        "size": size,
        "wasted": wasted,
        "share": share,
        "vacuumed": moment(row["vacuumed"]),
        "analysed": moment(row["analysed"]),
        "step": _step(row, (wasted or 0) / size) if is_bloated else None,
    }


def _step(row: dict[str, Any], share: float) -> str:
    """Return the statement that would reclaim the space."""
    if row["kind"] == "index":
        return f"REINDEX INDEX CONCURRENTLY {row['name']}"
    dead = float(row["dead_rows"] or 0)
    # A plain VACUUM removes dead rows.
    if dead / max(1.0, dead + float(row["rows"])) > share / 2:
        return f"VACUUM (ANALYZE) {row['name']}"
    return f"VACUUM FULL {row['name']} -- locks the table meanwhile; pg_repack does not"


DIAGNOSTIC = Diagnostic(
    bloat,
    _COLUMNS,
    ("aspencli db bloat", "aspencli db bloat --limit 5"),
    place=60,
    check=check,
    options=(LIMIT,),
)
