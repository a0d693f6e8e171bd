"""The statements that plan and write runs that may create or delete rows.

A row of the table may then have several lines, and the plan has these columns besides those
described in `sql_plan`: ``within`` is what the line is within, such as a group. ``who`` is the same
for all lines of one row of the table; one of these ``leads``, and the others only concern other
tables (`gather`); ``company`` is their number. If a row ``creates`` or ``deletes``, all of its
lines do, and they are applied together or not at all. ``renamed`` means that the row was found by
its new name in the file.
"""

from __future__ import annotations

from collections.abc import Sequence

from aspen.database.bulk.spec import BulkColumn, Side, Spec
from aspen.database.bulk.sql_plan import (
    KEPT,
    PLAN,
    ROWS,
    changes,
    current,
    is_there,
    label,
    lookups,
    quoted,
    quoted_cell,
    sides,
    stored_label,
    wanted,
)

DOUBLED = f"SELECT EXISTS (SELECT FROM {PLAN} GROUP BY line HAVING count(*) > 1)"
TAKE_DOUBLED = f"""
DELETE FROM {PLAN} WHERE line IN (SELECT line FROM {PLAN} GROUP BY line HAVING count(*) > 1)
"""
HAS_COMPANY = f"SELECT EXISTS (SELECT FROM {PLAN} WHERE company > 1)"
# Without it, the planner's statistics do not include the rows that just got their ID.
ANALYSE_NUMBERS = f"ANALYZE {PLAN} (id)"


Link = tuple[str, str]
"""A table and its column that refers to rows of a run's table, both quoted if necessary."""


def create_plan(spec: Spec) -> str:
    """Return a statement that creates the plan: each line with its current values and action."""
    says, of_row = f"q.n{spec.labelled}", "OVER (PARTITION BY q.who)"
    creates, deletes = "q.id IS NULL", "false"
    if spec.expects:
        # An undo file gives the label that a row is to have, or NULL to delete the row.
        creates += f" AND bool_or(q.g{spec.labelled} AND {says} IS NOT NULL) {of_row}"
        deletes = f"q.id IS NOT NULL AND bool_or(q.g{spec.labelled} AND {says} IS NULL) {of_row}"
    return f"""
CREATE TEMPORARY TABLE aspencli_plan {KEPT} AS
SELECT q.*, coalesce(q.stored_label, max({says}) {of_row}) AS label,
       row_number() OVER (PARTITION BY q.who ORDER BY q.line) = 1 AS leads,
       count(*) {of_row} AS company, {creates} AS creates, {deletes} AS deletes
  FROM (SELECT i.*, {_who(spec)} AS who FROM ({_planned(spec)}) i) q
"""


def _who(spec: Spec) -> str:
    # The first character distinguishes IDs from keys.
    return f"coalesce('#' || i.id, '=' || {spec.key.compared('i.key')})"


def _planned(spec: Spec) -> str:
    columns = ["m.line", "m.key", "s.id AS id", "s.at AS place", "s.renamed"]
    columns += [f"{stored_label(spec)} AS stored_label"]
    columns += ["fw.id AS within"] if spec.within else []
    for number, column in spec.numbered():
        columns += _cells(spec, number, column)
    return f"""
SELECT {", ".join(columns)}
  FROM {ROWS} m{lookups(spec)}
  LEFT JOIN ({_found(spec)}) s ON s.of_line = m.line{sides(spec, within="fw.id")}
"""


def _cells(spec: Spec, number: int, column: BulkColumn) -> list[str]:
    """Return SQL for what a line gives for a column, and for the current value."""
    is_new, now = "s.id IS NULL", current(number, column)
    is_given, new = f"m.g{number}", wanted(number, column)
    otherwise = now
    if number == spec.key_number:  # a new row gets its key, unless the line gives another value
        new = f"CASE WHEN {is_given} THEN {new} ELSE m.key END"
        is_given = f"({is_given} OR {is_new})"
    elif column.default and not spec.expects:  # an undo file has every value of a restored row
        default = f"CAST({column.default} AS {column.type})"
        otherwise = f"CASE WHEN {is_new} THEN {default} ELSE {now} END"
    cells = [f"{is_given} AS g{number}", f"{now} AS o{number}"]
    cells.append(f"CASE WHEN {is_given} THEN {new} ELSE {otherwise} END AS n{number}")
    cells += [f"m.e{number}"] if spec.expects else []
    cells += [f"t{number}.{column.side.id} AS x{number}"] if column.side else []
    return cells


def _found(spec: Spec) -> str:
    """Return a query for the rows of the table that the lines mean; ``of_line`` is the line.

    If a line renames a row and that has already been done, it means the row with the new name,
    provided that this row is exactly as the line says.
    """
    name = spec.table.name
    rows = f"""
SELECT m.line AS of_line, false AS renamed, s.ctid AS at, s.*
  FROM {ROWS} m JOIN {name} s ON {is_named(spec, "s", "m.key")}
"""
    if spec.keeps_key or spec.key_number is None:
        return rows
    same = " AND ".join(
        f"(s.{column.stored} IS NOT DISTINCT FROM {wanted(number, column)} OR NOT m.g{number})"
        for number, column in spec.own()
    )
    key = spec.key.compared
    return f"""{rows} UNION ALL
SELECT m.line, true, s.ctid, s.*
  FROM {ROWS} m{lookups(spec)}
  JOIN {name} s ON {is_named(spec, "s", f"m.v{spec.key_number}")}
 WHERE m.g{spec.key_number} AND {same}
   AND NOT EXISTS (SELECT FROM {name} y WHERE {key(f"y.{spec.key.stored}")} = {key("m.key")})
"""


def is_named(spec: Spec, alias: str, key: str) -> str:
    """Return the condition that a row of the table is the one that a key names.

    If letter case does not matter, an exact match takes precedence.
    """
    column = spec.key
    stored = f"{alias}.{column.stored}"
    if not column.fold:
        return f"{stored} = {key}"
    better = f"EXISTS (SELECT FROM {spec.table.name} b WHERE b.{column.stored} = {key})"
    return f"lower({stored}) = lower({key}) AND ({stored} = {key} OR NOT {better})"


# Lines that mean the same row


def doubled(spec: Spec) -> str:
    """Return a query for the lines that mean several rows of the table, or of another one."""
    sides = "".join(
        f" UNION ALL SELECT p.line, '{column.name}',"
        f" format('%s {side.lacks}', {quoted(label(spec))})"
        f" FROM {PLAN} p GROUP BY p.line, {label(spec)} HAVING count(DISTINCT p.x{number}) > 1"
        for number, side, column in spec.aside()
    )
    return f"""
SELECT p.line, '{spec.key.name}',
       format('%s matches several {spec.table.noun}s: %s', {quoted("p.key")},
              string_agg(DISTINCT p.id::text, ', '))
  FROM {PLAN} p GROUP BY p.line, p.key HAVING count(DISTINCT p.id) > 1
{sides}
"""


def has_repeated(spec: Spec) -> str:
    """Return a query that checks whether any lines are duplicates."""
    return f"SELECT EXISTS (SELECT FROM {PLAN} p GROUP BY {_same(spec)} HAVING count(*) > 1)"


def repeated(spec: Spec) -> str:
    """Return a query for the lines that duplicate an earlier one."""
    same = f", with the same {spec.within.name}" if spec.within else ""
    where = f"CASE WHEN within IS NULL THEN '' ELSE '{same}' END" if spec.within else "''"
    return f"""
SELECT line, '{spec.key.name}',
       format('duplicate of line %s%s', first_line, {where})
  FROM (SELECT p.*, first_value(p.line) OVER (PARTITION BY {_same(spec)} ORDER BY p.line)
               AS first_line
          FROM {PLAN} p) repeated
 WHERE line <> first_line
"""


def _same(spec: Spec) -> str:
    return "p.who, p.within" if spec.within else "p.who"


def contradicting(spec: Spec) -> str:
    """Return a query for the lines that contradict an earlier line about the same row."""
    return " UNION ALL ".join(
        f"""
SELECT p.line, '{column.name}', format('%s conflicts with line %s, which has %s',
       {quoted_cell(column, f"p.n{number}")}, f.line, {quoted_cell(column, "f.value")})
  FROM {PLAN} p
  JOIN (SELECT DISTINCT ON (who) who, line, n{number} AS value
          FROM {PLAN} WHERE company > 1 AND g{number} ORDER BY who, line) f ON f.who = p.who
 WHERE p.g{number}
   AND {column.compared(f"p.n{number}")} IS DISTINCT FROM {column.compared("f.value")}
"""
        for number, column in spec.own()
    )


def gather(spec: Spec) -> str:
    """Return a statement that moves all values of the table itself to one line of each row."""
    gathered, sets = [], []
    for number, _column in spec.own():
        g, n = f"g{number}", f"n{number}"
        gathered.append(f"bool_or({g}) AS {g}")
        gathered.append(f"(array_agg({n} ORDER BY line) FILTER (WHERE {g}))[1] AS {n}")
        sets.append(f"{g} = p.leads AND a.{g}")
        kept = f"CASE WHEN NOT p.leads THEN p.o{number} WHEN a.{g} THEN a.{n} ELSE p.{n} END"
        sets.append(f"{n} = {kept}")
    return f"""
UPDATE {PLAN} p SET {", ".join(sets)}
  FROM (SELECT who, {", ".join(gathered)} FROM {PLAN} WHERE company > 1 GROUP BY who) a
 WHERE a.who = p.who
"""


# Problems of rows that are created or deleted


def without_required(spec: Spec) -> str:
    """Return a query for the new rows without a required value."""
    return " UNION ALL ".join(
        f"""
SELECT p.line, '{column.name}', '{column.needed}'
  FROM {PLAN} p WHERE p.creates AND p.leads AND NOT p.g{number} AND p.n{number} IS NULL
"""
        for number, column in spec.own()
        if column.needed
    )


def of_missing_rows(spec: Spec) -> str:
    """Return a query for the lines that rename a row that does not exist.

    A row that already has the new name is accepted, as long as nothing is written to it.
    """
    return f"""
SELECT p.line, '{spec.key.name}', format('{spec.table.lacks} %s', {quoted("p.key")})
  FROM {PLAN} p JOIN {ROWS} m ON m.line = p.line
 WHERE m.g{spec.key_number} AND (p.creates OR (p.renamed AND {changes(spec)}))
"""


def without_scope(spec: Spec, number: int, column: BulkColumn) -> str:
    """Return a query for lines that give a value without what it is within, or the reverse."""
    assert spec.within  # noqa: S101 - only called for such specifications
    within = spec.within.name
    return f"""
SELECT p.line, '{column.name}', 'requires a {within}'
  FROM {PLAN} p JOIN {ROWS} m ON m.line = p.line WHERE p.g{number} AND m.vw IS NULL
UNION ALL
SELECT p.line, '{column.name}',
       format('is blank, but %s has no {column.name} in that {within}', {quoted(label(spec))})
  FROM {PLAN} p WHERE NOT p.g{number} AND p.within IS NOT NULL AND p.x{number} IS NULL
"""


def links(spec: Spec) -> str:
    """Return a query for every column in the database that refers to the table; see `Link`."""
    return f"""
SELECT format('%I.%I', n.nspname, t.relname) AS table_name, quote_ident(a.attname) AS column_name
  FROM pg_constraint c
  JOIN pg_class t ON t.oid = c.conrelid
  JOIN pg_namespace n ON n.oid = t.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
 WHERE c.contype = 'f' AND c.confrelid = '{spec.table.name}'::regclass
 ORDER BY 1, 2
"""


def in_use(spec: Spec, found: Sequence[Link]) -> str:
    """Return a query for the rows to delete that something refers to."""
    uses = " UNION ALL ".join(
        f"""
SELECT d.id, '{table}' AS used_by
  FROM {PLAN} d
 WHERE d.deletes AND d.leads
   AND EXISTS (SELECT FROM {table} r WHERE r.{name} = d.id{_stays_aside(spec, table)})
"""
        for table, name in found
    )
    return f"""
SELECT p.line, '{spec.columns[spec.labelled].name}',
       format('%s is now in use in %s', {quoted(label(spec))},
              string_agg(DISTINCT u.used_by, ', '))
  FROM {PLAN} p JOIN ({uses}) u ON u.id = p.id
 WHERE p.deletes AND p.leads GROUP BY p.line, {label(spec)}
"""


def _stays_aside(spec: Spec, table: str) -> str:
    """Return the condition that a row of another table is not deleted in the same run."""
    return "".join(
        f""" AND NOT EXISTS (SELECT FROM {PLAN} p WHERE {side.owner.format(t="r")}
                    AND p.x{number} = r.{side.id} AND p.n{number} IS NULL)"""
        for number, side, _column in spec.aside()
        if side.table == table
    )


def of_incomplete_rows(spec: Spec) -> str:
    """Return a query for lines of created or deleted rows of which other lines were left out."""
    return f"""
SELECT p.line, '{spec.key.name}', format('other lines for %s are skipped', {quoted(label(spec))})
  FROM {PLAN} p
  JOIN (SELECT who, count(*) AS rest FROM {PLAN} GROUP BY who) f ON f.who = p.who
 WHERE (p.creates OR p.deletes) AND f.rest < p.company
"""


# Writing


def delete(spec: Spec) -> str:
    """Return a statement that makes the planned deletes, where rows are still as planned."""
    table = spec.table
    unmoved = " AND ".join(
        f"s.{column.stored} IS NOT DISTINCT FROM p.o{number}" for number, column in spec.own()
    )
    return f"""
DELETE FROM {table.name} s USING {PLAN} p
 WHERE s.id = p.id AND p.deletes AND p.leads AND {unmoved}
"""


def number_new(spec: Spec) -> str:
    """Return a statement that gives each new row its ID, and each restored row its old one."""
    table = spec.table
    sequence = f"pg_get_serial_sequence('{table.name}', 'id')"
    number = "p.key" if spec.by_id else f"nextval({sequence})"
    return f"""
UPDATE {PLAN} p SET id = a.id
  FROM (SELECT who, {number} AS id FROM {PLAN} p WHERE p.creates AND p.leads) a
 WHERE p.who = a.who
"""


def insert(spec: Spec) -> str:
    """Return a statement that inserts the new rows, unless a row with the key exists by now."""
    table = spec.table
    names = [column.stored for _number, column in spec.own()]
    values = [f"p.n{number}" for number, _column in spec.own()]
    return f"""
INSERT INTO {table.name} (id, {", ".join(names)})
SELECT p.id, {", ".join(values)} FROM {PLAN} p
 WHERE p.creates AND p.leads
   AND NOT EXISTS (SELECT FROM {table.name} s WHERE {_is_so_called(spec)})
 ORDER BY p.line
"""


def _is_so_called(spec: Spec) -> str:
    """Return the condition that a row of the table has the key of a row of the plan."""
    key = spec.key
    return f"{key.compared(f's.{key.stored}')} = {key.compared('p.key')}"


def insert_aside(spec: Spec, number: int, side: Side, column: BulkColumn) -> str:
    """Return a statement that inserts rows into another table, unless one exists by now."""
    inserts = side.inserts or {}
    names, values = ", ".join(inserts), ", ".join(inserts.values())
    return f"""
INSERT INTO {side.table} ({names}, {column.stored})
SELECT {values}, p.n{number} FROM {PLAN} p
 WHERE {is_there(spec)} AND p.x{number} IS NULL AND p.n{number} IS NOT NULL
   AND NOT EXISTS (SELECT FROM {side.table} t WHERE {side.owner.format(t="t")})
 ORDER BY p.line
"""


def delete_aside(number: int, side: Side, column: BulkColumn) -> str:
    """Return a statement that deletes rows of another table that are still as planned."""
    return f"""
DELETE FROM {side.table} t USING {PLAN} p
 WHERE t.{side.id} = p.x{number} AND {side.owner.format(t="t")}
   AND t.{column.stored} = p.o{number} AND p.n{number} IS NULL
"""


# Changes by others since the plan was made


def created_since(spec: Spec) -> str:
    """Return a query for rows to create that someone else has created since; line and text."""
    return f"""
SELECT p.line, format('line %s: {spec.table.noun} %s exists now', p.line, {quoted(label(spec))})
       AS text
  FROM {PLAN} p
 WHERE p.creates AND p.leads
   AND EXISTS (SELECT FROM {spec.table.name} s WHERE {_is_so_called(spec)})
"""


def used_since(spec: Spec, found: Sequence[Link]) -> str:
    """Return a query for rows to delete that something refers to by now; line and text."""
    return f"""
SELECT u.line, format('line %s: %s', u.line, u.reason) AS text
  FROM ({in_use(spec, found)}) u (line, column_name, reason)
"""
