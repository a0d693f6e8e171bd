"""The statements that read a plan: its problems, its rows, and changes by others since it was made.

Messages quote values as JSON, so that no value can break out of its quotes or its line.
"""

from __future__ import annotations

from aspen.database.bulk.spec import Column, Side, Spec
from aspen.database.bulk.sql_plan import (
    HELD,
    LEFT,
    PLAN,
    PROBLEM,
    ROWS,
    changes,
    current,
    differs,
    given,
    in_scope,
    is_there,
    is_unknown,
    label,
    lacks_side,
    moved,
    shown,
    sides,
)
from aspen.database.staging import KEPT

_PROBLEM = f"INSERT INTO {PROBLEM} (line, column_name, reason)"
_LEFT_OUT = f"INSERT INTO {PROBLEM} (line, column_name, reason, left_out)"
# Checks whether two rows of the file name the same row of the table, which need not exist.
HAS_REPEATED_KEY = f"SELECT EXISTS (SELECT FROM {PLAN} p GROUP BY p.key HAVING count(*) > 1)"
ANALYSE_HELD = f"ANALYZE {HELD}"
# A row that is left out keeps its value, which another row may want, and so on: a chain can be as
# long as the file. Without the index and the statistics, each step would read everything.
PREPARE_LEAVE_TAKEN = f"""
CREATE INDEX ON {HELD} (holder_id);
ANALYZE {PLAN}, {HELD}
"""
PROBLEMS = f"""
SELECT line, column_name, reason FROM {PROBLEM}
 WHERE left_out = :left_out ORDER BY line, column_name
"""


def quoted(value: str) -> str:
    """Return SQL for a value as messages quote it."""
    return f"coalesce(to_json({value})::text, 'nothing')"


def quoted_cell(column: Column, value: str) -> str:
    """Return SQL for a value of a column as messages quote it."""
    return quoted(shown(column, value) if column.reference else value)


def name(found: str) -> str:
    """Return a statement that records what a query finds (line, column, reason) as problems."""
    return f"{_PROBLEM}\n{found}"


def leave(found: str) -> str:
    """Return a statement that leaves the rows found by such a query out of the plan."""
    return f"""
WITH found (line, column_name, reason) AS MATERIALIZED ({found}), gone AS (
    DELETE FROM {PLAN} p WHERE p.line IN (SELECT line FROM found) RETURNING p.*
), put AS (
    INSERT INTO {LEFT} SELECT * FROM gone
)
{_LEFT_OUT}
SELECT line, column_name, reason, true FROM found
"""


def unknown(spec: Spec, *, any_more: bool) -> str:
    """Return a query for the rows of the file that the table does not have.

    Args:
        spec: The specification.
        any_more: Whether the table used to have them.
    """
    reason = f"{spec.table.lacks} %s"
    if any_more:
        reason = f"{spec.table.noun} %s no longer exists"
    column, called = spec.key.name, "p.key"
    if spec.tells_label:
        column, called = spec.table.label, label(spec)
    return f"""
SELECT p.line, '{column}', format('{reason}', {quoted(called)})
  FROM {PLAN} p WHERE {is_unknown(spec)}
"""


def explain(spec: Spec) -> str:
    """Return a statement that adds to problems why a key names no row, and what may be meant."""
    meant = f"'; did you mean ' || {quoted(f'h.{spec.key.stored}')} || '?'"
    return f"""
UPDATE {PROBLEM} b SET reason = b.reason || '; ' || v.words || coalesce(
           (SELECT min({meant}) FROM {spec.table.name} h
             WHERE {in_scope(spec, "h")} AND CAST(h.{spec.key.stored} AS text) = v.near), '')
  FROM unnest(CAST(:lines AS bigint[]), CAST(:words AS text[]), CAST(:near AS text[]))
       AS v (line, words, near)
 WHERE b.line = v.line AND b.column_name = '{spec.key.name}'
"""


def moved_values(spec: Spec) -> str:
    """Return a query for the columns that do not hold the expected value."""
    return " UNION ALL ".join(
        f"""
SELECT p.line, '{column.name}', {_moved_reason(spec, number, column)}
  FROM {PLAN} p WHERE {moved(spec, number, column)}
"""
        for number, column in spec.numbered()
    )


def _moved_reason(spec: Spec, number: int, column: Column) -> str:
    return (
        f"format('%s {column.holds} %s, expected %s', {_quoted_place(spec, column)}, "
        f"{quoted_cell(column, f'p.o{number}')}, {quoted_cell(column, f'p.e{number}')})"
    )


def _quoted_place(spec: Spec, column: Column) -> str:
    """Return SQL for a row's label, and for where the column belongs if that is ambiguous."""
    if not (spec.within and column.side):
        return quoted(label(spec))
    where = quoted_cell(spec.within, "p.within")
    return f"{quoted(label(spec))} || coalesce(' in {spec.within.name} ' || {where}, '')"


def without_target(spec: Spec, number: int, side: Side, column: Column) -> str:
    """Return a query for the values without a row in the other table that should store them."""
    return f"""
SELECT p.line, '{column.name}', format('{spec.table.noun} %s {side.lacks}', {quoted(label(spec))})
  FROM {PLAN} p WHERE {lacks_side(spec, number, side)}
"""


# Duplicates among the rows of the file


def has_repeated_value(spec: Spec, number: int) -> str:
    """Return a query that checks whether two rows of the file want the same unique value."""
    where = _wanted(spec, number)
    value = spec.columns[number].compared(f"p.n{number}")
    return f"""
SELECT EXISTS (SELECT FROM {PLAN} p WHERE {where} GROUP BY {value} HAVING count(*) > 1)
"""


def repeated_key(spec: Spec) -> str:
    """Return a statement that reports the rows that repeat a key."""
    return _repeated("p.key", spec.key, "true")


def repeated_value(spec: Spec, number: int, column: Column) -> str:
    """Return a statement that reports the rows that repeat a unique value."""
    where = _wanted(spec, number)
    return _repeated(f"p.n{number}", column, where)


def _wanted(spec: Spec, number: int) -> str:
    """Return the condition that a row of the file wants a value in a column."""
    leads = " AND p.leads" if spec.creates else ""  # the other lines want the same
    return f"p.n{number} IS NOT NULL AND {given(spec, number)}{leads}"


def _repeated(value: str, column: Column, where: str) -> str:
    return f"""
{_PROBLEM}
SELECT line, '{column.name}', format('duplicate of line %s', first_line)
  FROM (SELECT p.line, {value} AS value, first_value(p.line)
               OVER (PARTITION BY {column.compared(value)} ORDER BY p.line) AS first_line
          FROM {PLAN} p WHERE {where}) repeated
 WHERE line <> first_line
"""


# Rows of the table that hold a value wanted by a row of the file


def has_held(spec: Spec, number: int, column: Column) -> str:
    """Return a query that checks whether any row of the table holds a unique value of the plan.

    A row that changes does not hold its new value itself, so any holder is another row. The index
    alone answers this; if there are no holders, the table itself is not read.
    """
    return f"""
SELECT EXISTS (
    SELECT FROM {PLAN} p
      JOIN {spec.table.name} h ON {in_scope(spec, "h")}
           AND {column.compared(f"h.{column.stored}")} = {column.compared(f"p.n{number}")}
     WHERE {_takes(spec, number)}
)
"""


def _takes(spec: Spec, number: int) -> str:
    """Return the condition that a row of the plan takes a value that it does not hold yet."""
    # The NOT NULL test is for the planner, which has no statistics on lowercased values.
    is_one = f" AND p.n{number} IS NOT NULL" if spec.creates else ""
    return f"p.n{number} IS DISTINCT FROM p.o{number}{is_one}"


def create_held(spec: Spec) -> str:
    """Return a statement that lists the rows that hold a unique value wanted by the plan."""
    goes = f"SELECT FROM {PLAN} q WHERE q.id = h.{spec.table.id} AND q.deletes"
    going = f" AND NOT EXISTS ({goes})" if spec.creates else ""
    held = " UNION ALL ".join(
        f"""
SELECT {number}::smallint AS number, p.line, p.id, h.{spec.table.id} AS holder_id
  FROM {PLAN} p
  JOIN {spec.table.name} h ON {in_scope(spec, "h")}
       AND {column.compared(f"h.{column.stored}")} = {column.compared(f"p.n{number}")}
 WHERE h.{spec.table.id} IS DISTINCT FROM p.id AND {_takes(spec, number)}{going}
"""
        for number, column in spec.unique()
    )
    return f"CREATE TEMPORARY TABLE aspencli_held {KEPT} AS {held}"


def _not_freed(spec: Spec) -> str:
    freed = " OR ".join(
        f"(k.number = {number} AND {differs(number, column, 'q')})"
        for number, column in spec.unique()
    )
    return f"NOT EXISTS (SELECT FROM {PLAN} q WHERE q.id = k.holder_id AND ({freed}))"


def _by_number(spec: Spec, values: str) -> str:
    """Return an expression that depends on the column's number."""
    cases = " ".join(
        f"WHEN {number} THEN {values.format(n=f'n{number}', name=column.name)}"
        for number, column in spec.unique()
    )
    return f"CASE k.number {cases} END"


def _taken_reason(spec: Spec, wanted: str) -> str:
    return (
        f"format('%s is already used by {spec.table.noun} %s', {quoted(wanted)}, "
        f"{quoted(f'h.{spec.table.label}')})"
    )


def taken(spec: Spec) -> str:
    """Return a query for the rows that want a value that another row of the table keeps."""
    return f"""
SELECT p.line, {_by_number(spec, "'{name}'")}, {_taken_reason(spec, _by_number(spec, "p.{n}"))}
  FROM {HELD} k
  JOIN {PLAN} p ON p.line = k.line
  JOIN {spec.table.name} h ON h.{spec.table.id} = k.holder_id
 WHERE {_not_freed(spec)}
"""


def leave_taken(spec: Spec) -> str:
    """Return a statement that leaves them out of the plan, with all rows that depend on them."""
    return f"""
WITH RECURSIVE blocked AS (
    SELECT k.number, k.line, k.id, k.holder_id FROM {HELD} k WHERE {_not_freed(spec)}
    UNION
    SELECT k.number, k.line, k.id, k.holder_id
      FROM blocked b JOIN {HELD} k ON k.holder_id = b.id
), gone AS (
    DELETE FROM {PLAN} p WHERE p.line IN (SELECT line FROM blocked)
    RETURNING p.*
), put AS (
    INSERT INTO {LEFT} SELECT * FROM gone
), unheld AS (
    DELETE FROM {HELD} k WHERE k.line IN (SELECT line FROM blocked)
)
{_LEFT_OUT}
SELECT p.line, {_by_number(spec, "'{name}'")}, {_taken_reason(spec, _by_number(spec, "p.{n}"))},
       true
  FROM blocked k
  JOIN gone p ON p.line = k.line
  JOIN {spec.table.name} h ON h.{spec.table.id} = k.holder_id
"""


# Rows of the file


def rows(spec: Spec, *, changed_only: bool) -> str:
    """Return a query for the plan, by line."""
    where = changes(spec) if changed_only else is_there(spec)
    cells = []
    for number, column in spec.numbered():
        cells += [f"p.g{number}"] if spec.partial else []
        cells += _cells(number, column, f"p.n{number}")
    return f"""
SELECT p.line, {_named(spec, "p.key", "p.label")}{_beside(spec)}, {", ".join(cells)}
  FROM {PLAN} p WHERE {where} ORDER BY p.line LIMIT :limit
"""


def outcomes(spec: Spec, *, with_left: bool = False) -> str:
    """Return a query for every row of the file, by line, with its problems.

    Args:
        spec: The specification.
        with_left: Whether rows may have been left out of the plan; their values are included.
    """
    planned = f"(SELECT * FROM {PLAN} UNION ALL SELECT * FROM {LEFT})" if with_left else PLAN
    cells = []
    for number, column in spec.numbered():
        cells += [f"m.g{number}"] if spec.partial else []
        cells += _cells(number, column, f"m.v{number}")
    named = _named(spec, "m.key", "coalesce(p.label, m.label)")
    return f"""
SELECT m.line, {named}, f.reason, f.left_out{_beside(spec, "m.vw")},
       {", ".join(cells)}
  FROM {ROWS} m
  LEFT JOIN {planned} p ON p.line = m.line
  LEFT JOIN (SELECT line, bool_or(left_out) AS left_out,
                    string_agg(column_name || ': ' || reason, '; ' ORDER BY column_name) AS reason
               FROM {PROBLEM} GROUP BY line) f ON f.line = m.line
 ORDER BY m.line
"""


def _named(spec: Spec, key: str, label: str) -> str:
    """Return SQL for a row's name: its label if the file has labels besides keys, else its key."""
    return f"coalesce({label}, {key}::text)" if spec.tells_label else f"{key}::text"


def _beside(spec: Spec, given: str = "NULL") -> str:
    """Return SQL for a row's action, what it is within, whether it leads, and its key.

    Args:
        spec: The specification.
        given: SQL for what the file says that it is within, used if nothing was found.
    """
    if not spec.creates:
        return ""
    where = f"coalesce({shown(spec.within, 'p.within')}, {given})" if spec.within else "NULL"
    return f""",
       CASE WHEN p.creates THEN 'create' WHEN p.deletes THEN 'delete' END, {where}, p.leads,
       p.key::text"""


def _cells(number: int, column: Column, after: str) -> list[str]:
    """Return SQL for a column's old and new value.

    For a reference, also whether they are the same, because two rows may have the same name.
    """
    before = shown(column, f"p.o{number}")
    if not column.reference:
        return [before, f"{after}::text"]
    same = f"p.n{number} {column.equals} p.o{number}"
    return [before, f"coalesce({shown(column, f'p.n{number}')}, {after}::text)", same]


def moved_cells(spec: Spec) -> str:
    """Return a query for the columns that do not hold the expected value, by line."""
    found = " UNION ALL ".join(
        f"""
SELECT p.line, p.key::text AS key, {_place(spec, column)} AS label, '{column.name}' AS column_name,
       {shown(column, f"p.e{number}")} AS expected, {shown(column, f"p.o{number}")} AS found
  FROM {PLAN} p WHERE {moved(spec, number, column)}
"""
        for number, column in spec.numbered()
    )
    return f"SELECT * FROM ({found}) moved ORDER BY line, column_name"


def _place(spec: Spec, column: Column) -> str:
    if not (spec.within and column.side):
        return f"{label(spec)}::text"
    where = f"coalesce(' in ' || {shown(spec.within, 'p.within')}, '')"
    return f"{label(spec)}::text || {where}"


# Changes by others since the plan was made


def changed_since(spec: Spec) -> str:
    """Return a query for rows changed by someone else since the plan was made; line and text."""
    table, key = spec.table, spec.key
    cases = [(f"s.{table.id} IS NULL", "'was deleted'")]
    if table.scope:
        cases.append((f"s.{table.scope} <> :scope", "'was moved to another group'"))
    if not (spec.by_id or spec.changes_key):
        now = quoted(f"s.{key.stored}")
        cases.append((f"s.{key.stored} <> p.key", f"format('was renamed to %s', {now})"))
    for number, column in spec.numbered():
        now, then = current(number, column), f"p.o{number}"
        values = f"{quoted_cell(column, now)}, {quoted_cell(column, then)}"
        named = "true" if number == spec.key_number else given(spec, number)
        cases.append(
            (
                f"({named} AND {now} IS DISTINCT FROM {then})",
                f"format('{column.holds} %s, expected %s', {values})",
            )
        )
    for number, side, column in spec.aside():
        elsewhere = f"({given(spec, number)} AND t{number}.{side.id} IS DISTINCT FROM p.x{number})"
        cases.append((elsewhere, f"'has its {column.name} in a different record now'"))
    known = " AND p.id IS NOT NULL" if spec.creates else ""
    return f"""
SELECT p.line, format('line %s: {table.noun} %s %s', p.line, {quoted(label(spec))},
              CASE {" ".join(f"WHEN {condition} THEN {words}" for condition, words in cases)} END)
       AS text
  FROM {PLAN} p
  LEFT JOIN {table.name} s ON s.{table.id} = p.id{sides(spec)}
 WHERE ({" OR ".join(condition for condition, _words in cases)}){known}
"""


def deleted_since(spec: Spec) -> str:
    """Return a query for references of the plan to rows deleted since; line and text."""
    return " UNION ALL ".join(
        f"""
SELECT p.line, format('line %s: {reference.noun} %s was deleted', p.line, p.n{number}) AS text
  FROM {PLAN} p
 WHERE {differs(number, column)} AND p.n{number} IS NOT NULL
   AND NOT EXISTS (SELECT FROM {reference.table} r WHERE r.{reference.id} = p.n{number})
"""
        for number, reference, column in spec.references()
    )


def taken_since(spec: Spec) -> str:
    """Return a query for values of the plan that another row has taken since; line and text."""
    table = spec.table
    return " UNION ALL ".join(
        f"""
SELECT p.line, format('line %s: %s is now used by {table.noun} %s', p.line,
                      {quoted(f"p.n{number}")}, {quoted(f"h.{table.label}")}) AS text
  FROM {PLAN} p
  JOIN {table.name} h ON {in_scope(spec, "h")}
       AND {column.compared(f"h.{column.stored}")} = {column.compared(f"p.n{number}")}
 WHERE h.{table.id} IS DISTINCT FROM p.id AND p.n{number} IS DISTINCT FROM p.o{number}
   AND NOT EXISTS (SELECT FROM {PLAN} q WHERE q.id = h.{table.id}
                      AND {differs(number, column, "q")})
"""
        for number, column in spec.unique()
    )


def first(found: str) -> str:
    """Return a query for the first of such rows, and their total number."""
    return f"SELECT text, count(*) OVER () AS total FROM ({found}) found ORDER BY line LIMIT 200"
