"""The statements that find what stands in the way of a plan.

What a message quotes is written as JSON, so that no value can break out of its quotes or its line.
"""

from __future__ import annotations

from db.bulk.carrying import KEPT
from db.bulk.conditions import differs, given, in_scope, is_unknown, label, lacks_side, moved
from db.bulk.plan_sql import HELD, LEFT, PLAN, PROBLEM
from db.bulk.reference_sql import shown
from db.bulk.spec import Column, Side, Spec

_PROBLEM = f"INSERT INTO {PROBLEM} (line, column_name, reason)"
_LEFT_OUT = f"INSERT INTO {PROBLEM} (line, column_name, reason, left_out)"


def quoted(value: str) -> str:
    """A value as messages quote it."""
    return f"coalesce(to_json({value})::text, 'nothing')"


def quoted_cell(column: Column, value: str) -> str:
    """A value of a column as messages quote it."""
    return quoted(shown(column, value) if column.reference else value)


def name(found: str) -> str:
    """Take what a query finds (line, column, reason) for problems."""
    return f"{_PROBLEM}\n{found}"


def leave(found: str) -> str:
    """Leave the rows that such a query finds out of the plan."""
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
    """The rows of the file that the table has not.

    Args:
        spec: The specification.
        any_more: Whether it had them.
    """
    more = " any more" if any_more else ""
    column, called = spec.key.name, "p.key"
    if spec.tells_label:
        column, called = spec.table.label, label(spec)
    return f"""
SELECT p.line, '{column}', format('{spec.table.lacks} %s{more}', {quoted(called)})
  FROM {PLAN} p WHERE {is_unknown(spec)}
"""


def explain(spec: Spec) -> str:
    """Add to the problems of lines why their keys name no row, and which row may be meant."""
    meant = f"'; is ' || {quoted(f'h.{spec.key.stored}')} || ' meant?'"
    return f"""
UPDATE {PROBLEM} b SET reason = b.reason || '; ' || v.words || coalesce(
           (SELECT min({meant}) FROM {spec.table.name} h
             WHERE {in_scope(spec, "h")} AND CAST(h.{spec.key.stored} AS text) = v.near), '')
  FROM unnest(CAST(:lines AS bigint[]), CAST(:words AS text[]), CAST(:near AS text[]))
       AS v (line, words, near)
 WHERE b.line = v.line AND b.column_name = '{spec.key.name}'
"""


def moved_cells(spec: Spec) -> str:
    """The columns that do not hold what was expected of them."""
    return " UNION ALL ".join(
        f"""
SELECT p.line, '{column.name}', {_moved_reason(spec, number, column)}
  FROM {PLAN} p WHERE {moved(spec, number, column)}
"""
        for number, column in spec.numbered()
    )


def _moved_reason(spec: Spec, number: int, column: Column) -> str:
    return (
        f"format('%s {column.holds} %s now, not %s', {placed(spec, column)}, "
        f"{quoted_cell(column, f'p.o{number}')}, {quoted_cell(column, f'p.e{number}')})"
    )


def placed(spec: Spec, column: Column) -> str:
    """What messages call a row, and where a column of it lies if there are several places."""
    if not (spec.within and column.side):
        return quoted(label(spec))
    where = quoted_cell(spec.within, "p.within")
    return f"{quoted(label(spec))} || coalesce(' in {spec.within.name} ' || {where}, '')"


def lacking(spec: Spec, number: int, side: Side, column: Column) -> str:
    """The rows that have no place for a value, because it lies in another table."""
    return f"""
SELECT p.line, '{column.name}', format('{spec.table.noun} %s {side.lacks}', {quoted(label(spec))})
  FROM {PLAN} p WHERE {lacks_side(spec, number, side)}
"""


# Rows of the file that name the same


# Whether two rows of the file name the same row of the table, which may be there or not.
HAS_REPEATED_KEY = f"SELECT EXISTS (SELECT FROM {PLAN} p GROUP BY p.key HAVING count(*) > 1)"


def has_repeated_value(spec: Spec, number: int) -> str:
    """Whether two rows of the file want the same value of a unique column."""
    where = _wanted(spec, number)
    value = spec.columns[number].compared(f"p.n{number}")
    return f"""
SELECT EXISTS (SELECT FROM {PLAN} p WHERE {where} GROUP BY {value} HAVING count(*) > 1)
"""


def repeated_key(spec: Spec) -> str:
    """Name the rows that name a row of the table again."""
    return _repeated("p.key", spec.key, "true")


def repeated_value(spec: Spec, number: int, column: Column) -> str:
    """Name the rows that want a value again."""
    where = _wanted(spec, number)
    return _repeated(f"p.n{number}", column, where)


def _wanted(spec: Spec, number: int) -> str:
    """The condition that a row of the file wants a value of a column."""
    leads = " AND p.leads" if spec.creates else ""  # the others want the same
    return f"p.n{number} IS NOT NULL AND {given(spec, number)}{leads}"


def _repeated(value: str, column: Column, where: str) -> str:
    return f"""
{_PROBLEM}
SELECT line, '{column.name}', format('%s stands on line %s already', {quoted("value")}, first_line)
  FROM (SELECT p.line, {value} AS value, first_value(p.line)
               OVER (PARTITION BY {column.compared(value)} ORDER BY p.line) AS first_line
          FROM {PLAN} p WHERE {where}) repeated
 WHERE line <> first_line
"""


# Rows of the table that hold what a row of the file wants


def has_held(spec: Spec, number: int, column: Column) -> str:
    """Whether any row of the table holds a value of a unique column that a row of the plan wants.

    A row that changes does not hold its new value itself, so whoever holds it is another: the index
    alone can tell, and where nobody holds any the table itself is not read.
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
    """The condition that a row of the plan takes a value that it has not."""
    # That it is one at all is said for the planner, which knows nothing of folded values.
    is_one = f" AND p.n{number} IS NOT NULL" if spec.creates else ""
    return f"p.n{number} IS DISTINCT FROM p.o{number}{is_one}"


def create_held(spec: Spec) -> str:
    """Which rows hold a value of a unique column that a row of the plan wants."""
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


ANALYSE_HELD = f"ANALYZE {HELD}"


def _not_freed(spec: Spec) -> str:
    freed = " OR ".join(
        f"(k.number = {number} AND {differs(number, column, 'q')})"
        for number, column in spec.unique()
    )
    return f"NOT EXISTS (SELECT FROM {PLAN} q WHERE q.id = k.holder_id AND ({freed}))"


def _by_number(spec: Spec, values: str) -> str:
    """An expression that depends on which column it is."""
    cases = " ".join(
        f"WHEN {number} THEN {values.format(n=f'n{number}', name=column.name)}"
        for number, column in spec.unique()
    )
    return f"CASE k.number {cases} END"


def _taken_reason(spec: Spec, wanted: str) -> str:
    return (
        f"format('%s is held by {spec.table.noun} %s, which keeps it', {quoted(wanted)}, "
        f"{quoted(f'h.{spec.table.label}')})"
    )


def taken(spec: Spec) -> str:
    """The rows that want what another row of the table keeps."""
    return f"""
SELECT p.line, {_by_number(spec, "'{name}'")}, {_taken_reason(spec, _by_number(spec, "p.{n}"))}
  FROM {HELD} k
  JOIN {PLAN} p ON p.line = k.line
  JOIN {spec.table.name} h ON h.{spec.table.id} = k.holder_id
 WHERE {_not_freed(spec)}
"""


# A row that is left out keeps what it holds, which may be what another row wants, and so on: a
# chain can be as long as the file. Without the index and the statistics each step reads everything.
PREPARE_LEAVE_TAKEN = f"""
CREATE INDEX ON {HELD} (holder_id);
ANALYZE {PLAN}, {HELD}
"""


def leave_taken(spec: Spec) -> str:
    """Leave them out of the plan, and whatever wants what they keep."""
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
