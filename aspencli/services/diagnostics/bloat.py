"""Space that tables and indexes take on the disk and do not need.

It is estimated from the planner's statistics: the pages that the rows would fill, against those
that there are (the method of check_postgres, as everybody's since). That reads nothing but
catalogues; the extension pgstattuple measures it, by reading the whole table.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from aspencli.services.diagnostics.looking import Rights, rights
from aspencli.services.diagnostics.tables import OURS, held
from db.sessions import ReadSession

# A row: 23 bytes of header and one bit a column where some are NULL, padded to 8; then the values.
# Their padding between each other is not known, and left out. A page: 24 bytes of header, 4 a row.
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
# An entry: 8 bytes of header, and one for NULLs padded to 8 where there are some; a page: 24 and 16
# bytes of headers, 4 an entry. Equal entries are folded since PostgreSQL 13, which makes an index
# smaller than reckoned here: what is told is at least there. 90 is B-tree's own fill factor.
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
"""How much must be wasted, and which part of the whole, before it is worth doing something."""


class Kind(enum.Enum):
    """What is bloated."""

    TABLE = "table"
    INDEX = "index"


@dataclass(frozen=True)
class Bloat:
    """What a table or an index takes beyond its need, in bytes.

    Attributes:
        kind: Table or index.
        name: Its name, with the schema.
        table: The table that it is, or belongs to.
        size: What it takes: a table without its long values and its indexes.
        wasted: The estimate of what it does not need; None when there are no statistics of it, or
            none that this user may see.
        dead_rows: Rows that were deleted or changed, and are not cleared away yet; of tables.
        vacuumed: When they were cleared away last.
        analysed: When statistics were made last.
        step: The statement that would give the space back; see `is_bloated`.
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
        """The part of it that is not needed, from 0 to 1."""
        if self.wasted is None:
            return None
        return round(self.wasted / self.size, 3) if self.size else 0.0

    @property
    def is_bloated(self) -> bool:
        """Return True if so much is wasted that the step is worth its cost."""
        return (self.wasted or 0) > BLOATED_BYTES and (self.share or 0) > BLOATED_SHARE


@dataclass(frozen=True)
class Bloats:
    """What was found, what it rests on, and what could not be seen.

    Attributes:
        items: The most wasted first.
        unknown: How many have no statistics that this user may see.
        left_out: The tables that somebody locks.
        rights: What this user may see.
    """

    items: tuple[Bloat, ...]
    unknown: int
    left_out: tuple[str, ...]
    rights: Rights


def bloat(session: ReadSession) -> Bloats:
    """Estimate how much each table and each B-tree takes beyond its need."""
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
    """Which part of the rows is dead, and could be cleared away without locking the table."""
    dead = float(row.dead_rows or 0)
    return dead / max(1.0, dead + float(row.rows))


def _bloat(row: Any) -> Bloat:
    kind, size = Kind(row.kind), int(row.size)
    # A table of no page needs no statistics to be told that nothing of it is wasted.
    known = size == 0 or (row.known and row.rows >= 0 and row.needed is not None)
    wasted = max(0, size - int(row.needed or 0)) if known else None
    if kind is Kind.INDEX:
        step = f"REINDEX INDEX CONCURRENTLY {row.name}"
    elif wasted and _dead_part(row) > wasted / size / 2:
        step = f"VACUUM (ANALYZE) {row.name}"
    else:
        step = f"VACUUM FULL {row.name} -- locks it meanwhile; pg_repack does not"
    return Bloat(
        kind, row.name, row.table, size, wasted, row.dead_rows, row.vacuumed, row.analysed, step
    )
