"""Indexes that are invalid, unneeded, or missing."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from aspen.database.engine import ReadSession
from aspencli.diagnostics.tables import OURS, held

SMALL = 5 * 8192
"""The size in bytes up to which an unused index is not worth reporting."""
MANY_ROWS = 10_000
"""The number of rows above which a table needs an index for each of its foreign keys."""
_LEAST_ROW = 100  # bytes; to estimate the rows of tables never analyzed
_INDEXES = """
SELECT i.indexrelid AS oid, i.indrelid AS table_oid,
    format('%I.%I', n.nspname, t.relname) AS table, format('%I.%I', n.nspname, c.relname) AS index,
    ARRAY(SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY AS k (num, place)
        LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num
        ORDER BY k.place) AS columns,
    ARRAY(SELECT unnest(i.indkey)) AS keys, i.indnkeyatts AS key_count, m.amname AS method,
    ARRAY[i.indclass::text, i.indcollation::text, i.indoption::text] AS ways,
    i.indimmediate AS at_once, to_jsonb(i) ->> 'indnullsnotdistinct' AS one_null,  -- PostgreSQL 15
    pg_get_expr(i.indexprs, i.indrelid) AS expressions,
    pg_get_expr(i.indpred, i.indrelid) AS predicate,
    i.indisunique AS unique, i.indisvalid AS valid,
    i.indisprimary OR i.indisreplident OR i.indisexclusion OR EXISTS (
        SELECT FROM pg_constraint WHERE conindid = i.indexrelid AND contype <> 'u'
    ) AS needed,
    (SELECT quote_ident(conname) FROM pg_constraint
        WHERE conindid = i.indexrelid AND contype = 'u') AS constraint,
    pg_relation_size(i.indexrelid) AS size, coalesce(s.idx_scan, 0) AS scans
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
JOIN pg_am m ON m.oid = c.relam
LEFT JOIN pg_stat_all_indexes s ON s.indexrelid = i.indexrelid
WHERE c.relkind = 'i' AND {ours} AND i.indrelid <> ALL(CAST(:held AS oid[]))
ORDER BY i.indrelid, i.indexrelid
"""
_FOREIGN_KEYS = """
SELECT k.conname::text AS name, k.conrelid AS table_oid, k.conkey AS keys,
    format('%I.%I', n.nspname, t.relname) AS table,
    ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS c (num, place)
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.num
        ORDER BY c.place) AS columns,
    format('CREATE INDEX CONCURRENTLY ON %I.%I (%s)', n.nspname, t.relname, (
        SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY c.place)
        FROM unnest(k.conkey) WITH ORDINALITY AS c (num, place)
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.num)) AS step,
    -- Never analyzed: -1, and until PostgreSQL 13 0.
    CASE WHEN t.reltuples > 0 OR t.reltuples = 0 AND (t.relpages > 0 OR pg_relation_size(t.oid) = 0)
        THEN t.reltuples::bigint END AS rows,
    pg_table_size(t.oid) AS size
FROM pg_constraint k
JOIN pg_class t ON t.oid = k.conrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE k.contype = 'f' AND t.relkind = 'r' AND {ours} AND t.oid <> ALL(CAST(:held AS oid[]))
ORDER BY k.conrelid, k.conname
"""


class Finding(enum.Enum):
    """The kind of problem with an index."""

    INVALID = "invalid"
    DUPLICATE = "duplicate"
    MISSING = "missing"
    COVERED = "covered"
    UNUSED = "unused"


@dataclass(frozen=True)
class IndexFinding:
    """A problem with an index, and the statement that would fix it.

    Attributes:
        finding: The kind of problem.
        table: The table, with its schema.
        index: The index, or the foreign key that lacks one.
        columns: The columns; None stands for an expression.
        rows: The number of rows in the table, if the index is missing.
        size: The size in bytes of the index, or of the table if the index is missing.
        scans: The number of times the index was used since statistics were reset.
        why: An explanation.
        step: The statement; the operator has to consider its effect on queries.
    """

    finding: Finding
    table: str
    index: str
    columns: tuple[str | None, ...]
    rows: int | None
    size: int
    scans: int | None
    why: str
    step: str

    @property
    def matters(self) -> bool:
        """Return False for a missing index on a table small enough to scan."""
        rows = self.size // _LEAST_ROW if self.rows is None else self.rows
        return self.finding is not Finding.MISSING or rows > MANY_ROWS


@dataclass(frozen=True)
class Indexes:
    """The problems found with indexes.

    Attributes:
        findings: The problems, by kind (worst first) and size (largest first).
        seen: The number of indexes examined.
        since: When usage statistics were last reset; None if they never were.
        left_out: The tables skipped because they are locked.
    """

    findings: tuple[IndexFinding, ...]
    seen: int
    since: Any
    left_out: tuple[str, ...]


def indexes(session: ReadSession) -> Indexes:
    """Check every index and every foreign key, except those of the system catalogs."""
    locked = held(session)
    given = {"held": list(locked)}
    indexed = session.execute(sa.text(_INDEXES.format(ours=OURS)), given).mappings()
    foreign = session.execute(sa.text(_FOREIGN_KEYS.format(ours=OURS)), given).mappings()
    found, keys = list(map(dict, indexed)), list(map(dict, foreign))
    findings = [*_invalid(found), *_repeated(found), *_missing(found, keys)]
    told = {finding.index for finding in findings}
    findings += [finding for finding in _unused(found) if finding.index not in told]
    order = list(Finding)
    since = session.scalar(
        sa.text("SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()")
    )
    findings.sort(key=lambda f: (order.index(f.finding), -f.size, f.index))
    return Indexes(tuple(findings), len(found), since, tuple(sorted(locked.values())))


_Row = Mapping[str, Any]


def _invalid(found: Sequence[_Row]) -> Iterator[IndexFinding]:
    for row in found:
        if not row["valid"]:
            why = "Build failed or still running: it slows writes, and queries cannot use it"
            step = f"REINDEX INDEX CONCURRENTLY {row['index']}"
            yield _finding(Finding.INVALID, row, why, step)


def _repeated(found: Sequence[_Row]) -> Iterator[IndexFinding]:
    """Yield each index made redundant by another one on the same table, once."""
    of_table: dict[int, list[_Row]] = {}
    for row in found:
        if row["valid"]:
            of_table.setdefault(row["table_oid"], []).append(row)
    for rows in of_table.values():
        given_up: set[int] = set()
        for row in sorted(rows, key=_worth):
            others = [other for other in rows if other["oid"] not in {row["oid"], *given_up}]
            found_one = _better(row, others)
            if found_one:
                given_up.add(row["oid"])
                yield found_one


def _worth(row: _Row) -> tuple[object, ...]:
    return (
        row["needed"],
        row["constraint"] is not None,
        row["unique"],
        row["scans"],
        -row["oid"],
    )


def _better(row: _Row, others: Sequence[_Row]) -> IndexFinding | None:
    """Return a finding if one of the others can replace this index, else None."""
    if row["needed"]:
        return None
    step = f"DROP INDEX CONCURRENTLY {row['index']}"
    if row["constraint"]:
        step = f"ALTER TABLE {row['table']} DROP CONSTRAINT {row['constraint']}"
    for other in others:
        if _same(row, other) and (other["unique"] or not row["unique"]):
            why = f"Duplicate of {other['index']}"
            return _finding(Finding.DUPLICATE, row, why, step)
    for other in others:
        if not row["unique"] and _begins(row, other):
            why = f"Covered by {other['index']}, which starts with the same columns"
            return _finding(Finding.COVERED, row, why, step)
    return None


def _same(one: _Row, other: _Row) -> bool:
    alike: tuple[str, ...] = ("keys", "key_count", "method", "ways", "expressions", "predicate")
    if one["unique"]:
        alike += ("at_once", "one_null")
    return all(one[name] == other[name] for name in alike)


def _begins(short: _Row, long: _Row) -> bool:
    """Return True if the longer index starts with the shorter one's columns, sorted alike."""
    count = short["key_count"]
    if len(short["keys"]) != count or long["key_count"] <= count or 0 in long["keys"]:
        return False  # INCLUDE columns and expressions are not compared
    alike = short["method"] == long["method"] == "btree"
    ways = zip(short["ways"], long["ways"], strict=True)
    return (
        alike
        and short["predicate"] == long["predicate"]
        and short["keys"] == long["keys"][:count]
        and all(one.split() == other.split()[:count] for one, other in ways)
    )


def _missing(found: Sequence[_Row], keys: Sequence[_Row]) -> Iterator[IndexFinding]:
    """Yield foreign keys without an index: deletes on the other side scan the whole table."""
    for key in keys:
        columns = len(key["keys"])
        if not any(
            row["table_oid"] == key["table_oid"]
            and set(row["keys"][:columns]) == set(key["keys"])
            and row["key_count"] >= columns
            and row["valid"]
            and _serves(row)
            for row in found
        ):
            yield IndexFinding(
                Finding.MISSING,
                key["table"],
                key["name"],
                tuple(key["columns"]),
                key["rows"],
                key["size"],
                None,
                "Foreign key without an index: joins, and deletes in the referenced table, scan "
                "the whole table",
                key["step"],
            )


def _serves(row: _Row) -> bool:
    # Foreign keys are looked up by equality, and a NULL key refers to nothing.
    null_left_out = f"({row['columns'][0]} IS NOT NULL)"
    return row["method"] in {"btree", "hash"} and row["predicate"] in {None, null_left_out}


def _unused(found: Sequence[_Row]) -> Iterator[IndexFinding]:
    for row in found:
        idle = row["valid"] and not row["scans"] and not row["needed"] and not row["unique"]
        if idle and row["size"] > SMALL:
            why = "Not used by any query on this server since statistics were reset"
            step = f"DROP INDEX CONCURRENTLY {row['index']}"
            yield _finding(Finding.UNUSED, row, why, step)


def _finding(finding: Finding, row: _Row, why: str, step: str) -> IndexFinding:
    columns = tuple(row["columns"])
    return IndexFinding(
        finding, row["table"], row["index"], columns, None, row["size"], row["scans"], why, step
    )
