"""Indexes that are invalid, unneeded, or missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from aspencli.diagnostics import Diagnostic, Examined, Option, Report, Severity
from aspencli.diagnostics.session import (
    OURS,
    held,
    moment,
    omitted_notes,
    query,
    scalar,
    step_notes,
)

if TYPE_CHECKING:
    from aspen.database.sessions import ReadSession

_SMALL = 5 * 8192  # bytes; an unused index up to this size is not worth reporting
_MANY_ROWS = 10_000  # a larger table needs an index for each of its foreign keys
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
_RESET = "SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()"
# The size is that of the table if its index is missing.
_COLUMNS = (
    ("finding", "Finding", ""),
    ("table", "Table", "whole"),
    ("index", "Index or key", "whole"),
    ("columns", "Columns", "list secondary"),
    ("rows", "Rows", "right secondary omit"),
    ("size", "Size", "bytes"),
    ("scans", "Scans", "right secondary omit"),
    ("why", "Why", "secondary"),
    ("step", "Statement", "secondary omit"),
)
_KINDS = ("invalid", "duplicate", "missing", "covered", "unused")  # worst first
_MISSING = (
    "Foreign key without an index: joins, and deletes in the referenced table, scan the whole table"
)
_Row = dict[str, Any]


def indexes(session: ReadSession, *, only: Sequence[str], everything: bool) -> Report:
    """Show indexes that are invalid, duplicate, covered by another, unused, or missing.

    Missing: foreign keys without an index, in tables with more than 10,000 rows. Unused: indexes
    over 40 kB that no query has used since the server's statistics were reset, except unique ones.
    Nothing is changed; the last column is the statement that fixes the finding. The exit code is 0
    even if there are findings.
    """
    locked = held(session)
    found, seen = _findings(session, locked)
    asked = [row for row in found if row["finding"] in (only or _KINDS)]
    shown = [row for row in asked if everything or _matters(row)]
    notes = []
    if any(row["finding"] == "unused" for row in shown):
        notes.append(("info", _counted_since(session)))
    if small := len(asked) - len(shown):
        notes.append(("info", f"{small} missing on small tables not shown; use --all"))
    return Report(
        [{**row, "columns": [name or "(expression)" for name in row["columns"]]} for row in shown],
        empty=f"No findings ({seen} indexes checked).",
        notes=[*notes, *omitted_notes(list(locked.values()), "skipped")],
        asides=step_notes([row["step"] for row in shown]),
        # For missing indexes, the statement already says everything.
        without=("why",) if all(row["finding"] == "missing" for row in shown) else (),
    )


def _counted_since(session: ReadSession) -> str:
    reset = moment(scalar(session, _RESET))
    since = f"since {reset}" if reset else "since the server was created"
    return f"Index use is counted {since}, on this server only (not on standbys)."


def check(session: ReadSession) -> Examined:
    """Check for invalid, missing, redundant, and unused indexes."""
    findings, seen = _findings(session, held(session))
    found = [row for row in findings if _matters(row)]
    counts = {kind: sum(row["finding"] == kind for row in found) for kind in _KINDS}
    summary = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    if not summary:
        return Examined(Severity.OK, f"{seen} indexes checked; no problems.")
    verdict = Severity.PROBLEM if counts["invalid"] else Severity.NOTE
    if verdict is Severity.NOTE and (counts["missing"] or counts["duplicate"]):
        verdict = Severity.WARNING
    return Examined(
        verdict,
        f"{summary} ({seen} indexes checked).",
        "aspencli db indexes",
        tuple(f"{row['finding']}: {row['table']} {row['index']}" for row in found),
    )


def _matters(row: _Row) -> bool:
    """Return False for a missing index on a table small enough to scan."""
    rows = row["size"] // _LEAST_ROW if row["rows"] is None else row["rows"]
    return row["finding"] != "missing" or bool(rows > _MANY_ROWS)


def _findings(session: ReadSession, locked: dict[int, str]) -> tuple[list[_Row], int]:
    """Return the problems, worst kind and largest first, and the number of indexes examined."""
    found = query(session, _INDEXES.format(ours=OURS), held=list(locked))
    keys = query(session, _FOREIGN_KEYS.format(ours=OURS), held=list(locked))
    findings = [*_invalid(found), *_repeated(found), *_missing(found, keys)]
    named = {row["index"] for row in findings}
    findings += [row for row in _unused(found) if row["index"] not in named]
    findings.sort(key=lambda row: (_KINDS.index(row["finding"]), -row["size"], row["index"]))
    return findings, len(found)


def _invalid(found: Sequence[_Row]) -> Iterator[_Row]:
    for row in found:
        if not row["valid"]:
            why = "Build failed or still running: it slows writes, and queries cannot use it"
            step = f"REINDEX INDEX CONCURRENTLY {row['index']}"
            yield _finding("invalid", row, why, step)


def _repeated(found: Sequence[_Row]) -> Iterator[_Row]:
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


def _better(row: _Row, others: Sequence[_Row]) -> _Row | None:
    """Return a finding if one of the others can replace this index, else None."""
    if row["needed"]:
        return None
    step = f"DROP INDEX CONCURRENTLY {row['index']}"
    if row["constraint"]:
        step = f"ALTER TABLE {row['table']} DROP CONSTRAINT {row['constraint']}"
    for other in others:
        if _same(row, other) and (other["unique"] or not row["unique"]):
            why = f"Duplicate of {other['index']}"
            return _finding("duplicate", row, why, step)
    for other in others:
        if not row["unique"] and _begins(row, other):
            why = f"Covered by {other['index']}, which starts with the same columns"
            return _finding("covered", row, why, step)
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


def _missing(found: Sequence[_Row], keys: Sequence[_Row]) -> Iterator[_Row]:
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
            yield {
                **key,
                "finding": "missing",
                "index": key["name"],
                "scans": None,
                "why": _MISSING,
            }


def _serves(row: _Row) -> bool:
    # Foreign keys are looked up by equality, and a NULL key refers to nothing.
    null_left_out = f"({row['columns'][0]} IS NOT NULL)"
    return row["method"] in {"btree", "hash"} and row["predicate"] in {None, null_left_out}


def _unused(found: Sequence[_Row]) -> Iterator[_Row]:
    for row in found:
        idle = row["valid"] and not row["scans"] and not row["needed"] and not row["unique"]
        if idle and row["size"] > _SMALL:
            why = "Not used by any query on this server since statistics were reset"
            step = f"DROP INDEX CONCURRENTLY {row['index']}"
            yield _finding("unused", row, why, step)


def _finding(finding: str, row: _Row, why: str, step: str) -> _Row:
    return {**row, "finding": finding, "rows": None, "why": why, "step": step}


DIAGNOSTIC = Diagnostic(
    indexes,
    _COLUMNS,
    ("aspencli db indexes", "aspencli db indexes --only missing -o json"),
    place=50,
    check=check,
    options=(
        Option(
            "only", "--only", "Show only this kind of finding; repeatable.", _KINDS, several=True
        ),
        Option("everything", "--all", "Include missing indexes of small tables."),
    ),
)
