"""The statements that find what stands in the way of a plan.

What a message quotes is written as JSON, so that no value can break out of its quotes or its line.
"""

from __future__ import annotations

from db.bulk.plan_sql import HELD, PLAN, PROBLEM, given, has_moved, in_scope, label, moved
from db.bulk.spec import Column, Spec

_PROBLEM = f"INSERT INTO {PROBLEM} (line, column_name, reason)"
_LEFT_OUT = f"INSERT INTO {PROBLEM} (line, column_name, reason, left_out)"


def quoted(value: str) -> str:
    """A value as messages quote it."""
    return f"coalesce(to_json({value})::text, 'nothing')"


def name_unknown(spec: Spec) -> str:
    """Name the rows of the file that the table has not."""
    return f"""
{_PROBLEM}
SELECT p.line, '{spec.key.name}', format('{spec.table.lacks} %s', {quoted("p.key")})
  FROM {PLAN} p WHERE p.id IS NULL
"""


def leave_unknown(spec: Spec) -> str:
    """Leave them out of the plan."""
    return f"""
WITH gone AS (DELETE FROM {PLAN} p WHERE p.id IS NULL RETURNING p.line, p.key)
{_LEFT_OUT}
SELECT p.line, '{spec.key.name}', format('{spec.table.lacks} %s any more', {quoted("p.key")}), true
  FROM gone p
"""


def _found_moved(spec: Spec) -> str:
    return " UNION ALL ".join(
        f"""
SELECT p.line, '{column.name}', {_moved_reason(spec, number, column)}
  FROM {PLAN} p WHERE {moved(spec, number, column)}
"""
        for number, column in spec.numbered()
    )


def name_moved(spec: Spec) -> str:
    """Name the columns that do not hold what was expected of them."""
    return f"{_PROBLEM}\n{_found_moved(spec)}"


def leave_moved(spec: Spec) -> str:
    """Leave their rows out of the plan."""
    return f"""
WITH found (line, column_name, reason) AS ({_found_moved(spec)}), gone AS (
    DELETE FROM {PLAN} p WHERE {has_moved(spec)}
)
{_LEFT_OUT}
SELECT line, column_name, reason, true FROM found
"""


def _moved_reason(spec: Spec, number: int, column: Column) -> str:
    return (
        f"format('%s {column.holds} %s now, not %s', {quoted(label(spec))}, "
        f"{quoted(f'p.o{number}')}, {quoted(f'p.e{number}')})"
    )


# Rows of the file that name the same


def has_repeated_key(*, by_id: bool) -> str:
    """Whether two rows of the file name the same row of the table.

    Args:
        by_id: Tell it by the table's numbers, at half the price of texts; every row must be known.
    """
    return _has_repeated(f"SELECT FROM {PLAN} p GROUP BY p.{'id' if by_id else 'key'}")


def has_repeated_value(spec: Spec, number: int, *, changed_only: bool) -> str:
    """Whether two rows of the file want the same value of a unique column.

    Args:
        spec: The specification.
        number: The column.
        changed_only: Look only at rows that change it.
    """
    changed = f" AND p.n{number} IS DISTINCT FROM p.o{number}" if changed_only else ""
    where = f"p.n{number} IS NOT NULL AND {given(spec, number)}{changed}"
    return _has_repeated(f"SELECT FROM {PLAN} p WHERE {where} GROUP BY p.n{number}")


def _has_repeated(grouped: str) -> str:
    return f"SELECT EXISTS ({grouped} HAVING count(*) > 1)"


def repeated_key(spec: Spec) -> str:
    """Name the rows that name a row of the table again."""
    return _repeated("key", spec.key.name, "true")


def repeated_value(spec: Spec, number: int, column: Column) -> str:
    """Name the rows that want a value again."""
    where = f"p.n{number} IS NOT NULL AND {given(spec, number)}"
    return _repeated(f"n{number}", column.name, where)


def _repeated(column: str, name: str, where: str) -> str:
    return f"""
{_PROBLEM}
SELECT line, '{name}', format('%s stands on line %s already', {quoted("value")}, first_line)
  FROM (SELECT p.line, p.{column} AS value,
               first_value(p.line) OVER (PARTITION BY p.{column} ORDER BY p.line) AS first_line
          FROM {PLAN} p WHERE {where}) repeated
 WHERE line <> first_line
"""


# Rows of the table that hold what a row of the file wants


def create_held(spec: Spec) -> str:
    """Which rows hold a value of a unique column that a row of the plan wants."""
    held = " UNION ALL ".join(
        f"""
SELECT {number}::smallint AS number, p.line, p.id, h.{spec.table.id} AS holder_id
  FROM {PLAN} p
  JOIN {spec.table.name} h ON {in_scope(spec, "h")} AND h.{column.stored} = p.n{number}
 WHERE h.{spec.table.id} IS DISTINCT FROM p.id AND p.n{number} IS DISTINCT FROM p.o{number}
"""
        for number, column in spec.unique()
    )
    return f"CREATE TEMPORARY TABLE aspencli_held AS {held}"


HAS_HELD = f"SELECT EXISTS (SELECT FROM {HELD})"


def _not_freed(spec: Spec) -> str:
    freed = " OR ".join(
        f"(k.number = {number} AND q.n{number} {column.differs} q.o{number})"
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


def name_taken(spec: Spec) -> str:
    """Name the rows that want what another row of the table keeps."""
    return f"""
{_PROBLEM}
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
    numbers = [f"p.n{number}" for number, _column in spec.unique()]
    return f"""
WITH RECURSIVE blocked AS (
    SELECT k.number, k.line, k.id, k.holder_id FROM {HELD} k WHERE {_not_freed(spec)}
    UNION
    SELECT k.number, k.line, k.id, k.holder_id
      FROM blocked b JOIN {HELD} k ON k.holder_id = b.id
), gone AS (
    DELETE FROM {PLAN} p WHERE p.line IN (SELECT line FROM blocked)
    RETURNING p.line, {", ".join(numbers)}
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
