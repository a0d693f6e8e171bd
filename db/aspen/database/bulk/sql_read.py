"""The statements that read a plan: its rows and its problems."""

from __future__ import annotations

from aspen.database.bulk.spec import Column, Spec
from aspen.database.bulk.sql_checks import quoted, quoted_cell
from aspen.database.bulk.sql_plan import (
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
    label,
    moved,
    shown,
    sides,
)

PROBLEMS = f"""
SELECT line, column_name, reason FROM {PROBLEM}
 WHERE NOT left_out ORDER BY line, column_name
"""
LEFT_OUT = f"""
SELECT line, column_name, reason FROM {PROBLEM}
 WHERE left_out ORDER BY line, column_name
"""


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
SELECT p.line, p.key::text AS key, {_placed(spec, column)} AS label, '{column.name}' AS column_name,
       {shown(column, f"p.e{number}")} AS expected, {shown(column, f"p.o{number}")} AS found
  FROM {PLAN} p WHERE {moved(spec, number, column)}
"""
        for number, column in spec.numbered()
    )
    return f"SELECT * FROM ({found}) moved ORDER BY line, column_name"


def _placed(spec: Spec, column: Column) -> str:
    if not (spec.within and column.side):
        return f"{label(spec)}::text"
    where = f"coalesce(' in ' || {shown(spec.within, 'p.within')}, '')"
    return f"{label(spec)}::text || {where}"


def moved_since(spec: Spec) -> str:
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


def gone_since(spec: Spec) -> str:
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
