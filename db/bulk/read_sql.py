"""The statements that tell what a plan is: its rows, and what stands in its way."""

from __future__ import annotations

from db.bulk.check_sql import quoted
from db.bulk.plan_sql import PLAN, PROBLEM, ROWS, changes, given, in_scope, label, moved
from db.bulk.spec import Spec

PROBLEMS = f"""
SELECT line, column_name, reason FROM {PROBLEM}
 WHERE NOT left_out ORDER BY line, column_name
"""
LEFT_OUT = f"""
SELECT line, column_name, reason FROM {PROBLEM}
 WHERE left_out ORDER BY line, column_name
"""


def _cells(spec: Spec, named: str, before: str, after: str) -> str:
    """What a row says of each column: whether it names it, what is there, what shall be."""
    cells = []
    for number, _column in spec.numbered():
        cells += [f"{named}{number}"] if spec.partial else []
        cells += [f"{before}{number}::text", f"{after}{number}::text"]
    return ", ".join(cells)


def rows(spec: Spec, *, changed_only: bool) -> str:
    """The plan, by line."""
    where = changes(spec) if changed_only else "p.id IS NOT NULL"
    return f"""
SELECT p.line, p.key::text, {_cells(spec, "p.g", "p.o", "p.n")}
  FROM {PLAN} p WHERE {where} ORDER BY p.line LIMIT :limit
"""


def outcomes(spec: Spec) -> str:
    """Every row of the file, by line, with what stands in its way."""
    return f"""
SELECT m.line, m.key::text, f.reason, f.left_out, {_cells(spec, "m.g", "p.o", "m.v")}
  FROM {ROWS} m
  LEFT JOIN {PLAN} p ON p.line = m.line
  LEFT JOIN (SELECT line, bool_or(left_out) AS left_out,
                    string_agg(column_name || ': ' || reason, '; ' ORDER BY column_name) AS reason
               FROM {PROBLEM} GROUP BY line) f ON f.line = m.line
 ORDER BY m.line
"""


def moved_cells(spec: Spec) -> str:
    """Each column of the plan that does not hold what was expected of it, by line."""
    found = " UNION ALL ".join(
        f"""
SELECT p.line, p.key::text AS key, {label(spec)}::text AS label, '{column.name}' AS column_name,
       p.e{number}::text AS expected, p.o{number}::text AS found
  FROM {PLAN} p WHERE {moved(spec, number, column)}
"""
        for number, column in spec.numbered()
    )
    return f"SELECT * FROM ({found}) moved ORDER BY line, column_name"


def moved_since(spec: Spec) -> str:
    """What somebody changed since the plan was made; the first, and how many."""
    table, key = spec.table, spec.key
    cases = [f"WHEN s.{table.id} IS NULL THEN 'is gone'"]
    same = []
    if table.scope:
        cases.append(f"WHEN s.{table.scope} <> :scope THEN 'is in another group now'")
        same.append((f"s.{table.scope}", ":scope"))
    if not spec.by_id:
        cases.append(
            f"WHEN s.{key.stored} <> p.key THEN format('is %s now', {quoted(f's.{key.stored}')})"
        )
        same.append((f"s.{key.stored}", "p.key"))
    conditions = [f"({left}) IS DISTINCT FROM ({right})" for left, right in same]
    for number, column in spec.numbered():
        differs = f"({given(spec, number)} AND s.{column.stored} IS DISTINCT FROM p.o{number})"
        conditions.append(differs)
        now, then = quoted(f"s.{column.stored}"), quoted(f"p.o{number}")
        cases.append(f"WHEN {differs} THEN format('{column.holds} %s now, not %s', {now}, {then})")
    return f"""
SELECT format('line %s: {table.noun} %s %s', p.line, {quoted(label(spec))},
              CASE {" ".join(cases)} END) AS text, count(*) OVER () AS total
  FROM {PLAN} p
  LEFT JOIN {table.name} s ON s.{table.id} = p.id
 WHERE {" OR ".join(conditions)}
 ORDER BY p.line LIMIT 200
"""


def taken_since(spec: Spec) -> str:
    """What somebody took since that a row of the plan wants; the first, and how many."""
    table = spec.table
    found = " UNION ALL ".join(
        f"""
SELECT p.line, format('line %s: %s is held by {table.noun} %s now', p.line,
                      {quoted(f"p.n{number}")}, {quoted(f"h.{table.label}")}) AS text
  FROM {PLAN} p
  JOIN {table.name} h ON {in_scope(spec, "h")} AND h.{column.stored} = p.n{number}
 WHERE h.{table.id} IS DISTINCT FROM p.id AND p.n{number} IS DISTINCT FROM p.o{number}
   AND NOT EXISTS (SELECT FROM {PLAN} q WHERE q.id = h.{table.id}
                      AND q.n{number} {column.differs} q.o{number})
"""
        for number, column in spec.unique()
    )
    return f"""
SELECT text, count(*) OVER () AS total FROM ({found}) taken ORDER BY line LIMIT 200
"""
