"""Disk space that tables and indexes occupy but do not need.

It is estimated from the planner's statistics, by comparing the pages that the rows would fill with
the actual number of pages (the method of check_postgres, now in general use). This reads only
catalogs; the extension pgstattuple measures bloat exactly, by reading the whole table.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from aspen.database.engine import ReadSession
from aspencli.diagnostics.session import Rights, rights
from aspencli.diagnostics.tables import OURS, held

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

BLOATED_BYTES, BLOATED_SHARE = 10 * 1_000_000, 0.4
"""The minimum waste, in bytes and as a share of the size, that is worth fixing."""


class Kind(enum.Enum):
    """The kind of a relation."""

    TABLE = "table"
    INDEX = "index"


@dataclass(frozen=True)
class Bloat:
    """The bloat of a table or an index; sizes are in bytes.

    Attributes:
        kind: Table or index.
        name: The name, with the schema.
        table: The table itself, or the table of the index.
        size: The size; for a table, without TOAST data and indexes.
        wasted: The estimated waste; None if there are no statistics, or none that this user may
            see.
        dead_rows: The number of dead rows not yet vacuumed; None for an index.
        vacuumed: The time of the last vacuum.
        analysed: The time of the last analyze.
        step: The statement that would reclaim the space; see `is_bloated`.
    """

    kind: Kind
    name: str
    table: str
    size: int
    wasted: int | None
    dead_rows: int | None
    vacuumed: Any
    analysed: Any
    step: str

    @property
    def share(self) -> float | None:
        """Return the wasted share of the size, from 0 to 1; None if it is unknown."""
        if self.wasted is None:
            return None
        return round(self.wasted / self.size, 3) if self.size else 0.0

    @property
    def is_bloated(self) -> bool:
        """Return True if enough is wasted to make the step worth its cost."""
        return (self.wasted or 0) > BLOATED_BYTES and (self.share or 0) > BLOATED_SHARE


@dataclass(frozen=True)
class Bloats:
    """The bloat of all tables and indexes.

    Attributes:
        items: The tables and indexes, most wasted first.
        unknown: The number of items without statistics that this user may see.
        left_out: The tables skipped because they are locked.
        rights: The user's visibility rights.
    """

    items: tuple[Bloat, ...]
    unknown: int
    left_out: tuple[str, ...]
    rights: Rights


def bloat(session: ReadSession) -> Bloats:
    """Estimate the wasted space of each table and each B-tree index."""
    locked = held(session)
    found = [
        _bloat(row)
        for query in (_TABLES, _INDEXES)
        for row in session.execute(sa.text(query.format(ours=OURS)), {"held": list(locked)})
    ]
    found.sort(key=lambda item: (-(item.wasted or 0), -item.size, item.name))
    unknown = sum(item.wasted is None for item in found)
    return Bloats(tuple(found), unknown, tuple(sorted(locked.values())), rights(session))


def _dead_part(row: Any) -> float:
    """Return the share of dead rows, which a plain VACUUM could remove."""
    dead = float(row.dead_rows or 0)
    return dead / max(1.0, dead + float(row.rows))


def _bloat(row: Any) -> Bloat:
    kind, size = Kind(row.kind), int(row.size)
    # An empty table wastes nothing, even if it has no statistics.
    known = size == 0 or (row.known and row.rows >= 0 and row.needed is not None)
    wasted = max(0, size - int(row.needed or 0)) if known else None
    if kind is Kind.INDEX:
        step = f"REINDEX INDEX CONCURRENTLY {row.name}"
    elif wasted and _dead_part(row) > wasted / size / 2:
        step = f"VACUUM (ANALYZE) {row.name}"
    else:
        step = f"VACUUM FULL {row.name} -- locks the table meanwhile; pg_repack does not"
    return Bloat(
        kind, row.name, row.table, size, wasted, row.dead_rows, row.vacuumed, row.analysed, step
    )
