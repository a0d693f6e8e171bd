"""The statements that check and write rows that are created or deleted.

`sql_collect` describes their columns in the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from aspen.database.bulk.spec import Column, Side, Spec
from aspen.database.bulk.sql_checks import quoted
from aspen.database.bulk.sql_conditions import changes, is_there, label
from aspen.database.bulk.sql_plan import PLAN, ROWS


class Link(NamedTuple):
    """A column of any table that refers to rows of a run's table.

    Attributes:
        table: The table, including the schema, quoted if necessary.
        name: The column, quoted if necessary.
    """

    table: str
    name: str


# Problems of rows that are created or deleted


def lacking(spec: Spec) -> str:
    """Return a query for the new rows without a required value."""
    return " UNION ALL ".join(
        f"""
SELECT p.line, '{column.name}', '{column.needed}'
  FROM {PLAN} p WHERE p.creates AND p.leads AND NOT p.g{number} AND p.n{number} IS NULL
"""
        for number, column in spec.own()
        if column.needed
    )


def unnamed(spec: Spec) -> str:
    """Return a query for the lines that rename a row that does not exist.

    A row that already has the new name is accepted, as long as nothing is written to it.
    """
    return f"""
SELECT p.line, '{spec.key.name}', format('{spec.table.lacks} %s', {quoted("p.key")})
  FROM {PLAN} p JOIN {ROWS} m ON m.line = p.line
 WHERE m.g{spec.key_number} AND (p.creates OR (p.renamed AND {changes(spec)}))
"""


def homeless(spec: Spec, number: int, column: Column) -> str:
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
SELECT d.id, '{link.table}' AS used_by
  FROM {PLAN} d
 WHERE d.deletes AND d.leads
   AND EXISTS (SELECT FROM {link.table} r WHERE r.{link.name} = d.id{_stays_aside(spec, link)})
"""
        for link in found
    )
    return f"""
SELECT p.line, '{spec.columns[spec.labelled].name}',
       format('%s is now in use in %s', {quoted(label(spec))},
              string_agg(DISTINCT u.used_by, ', '))
  FROM {PLAN} p JOIN ({uses}) u ON u.id = p.id
 WHERE p.deletes AND p.leads GROUP BY p.line, {label(spec)}
"""


def _stays_aside(spec: Spec, link: Link) -> str:
    """Return the condition that a row of another table is not deleted in the same run."""
    return "".join(
        f""" AND NOT EXISTS (SELECT FROM {PLAN} p WHERE {side.owner.format(t="r")}
                    AND p.x{number} = r.{side.id} AND p.n{number} IS NULL)"""
        for number, side, _column in spec.aside()
        if side.table == link.table
    )


def forsaken(spec: Spec) -> str:
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
 WHERE s.{table.id} = p.id AND p.deletes AND p.leads AND {unmoved}
"""


def number_new(spec: Spec) -> str:
    """Return a statement that gives each new row its ID, and each restored row its old one."""
    table = spec.table
    sequence = f"pg_get_serial_sequence('{table.name}', '{table.id}')"
    number = "p.key" if spec.by_id else f"nextval({sequence})"
    return f"""
UPDATE {PLAN} p SET id = a.id
  FROM (SELECT who, {number} AS id FROM {PLAN} p WHERE p.creates AND p.leads) a
 WHERE p.who = a.who
"""


# Without it, the planner's statistics do not include the rows that just got their ID.
ANALYSE_NUMBERS = f"ANALYZE {PLAN} (id)"


def insert(spec: Spec) -> str:
    """Return a statement that inserts the new rows, unless a row with the key exists by now."""
    table = spec.table
    names = [column.stored for _number, column in spec.own()]
    values = [f"p.n{number}" for number, _column in spec.own()]
    return f"""
INSERT INTO {table.name} ({table.id}, {", ".join(names)})
SELECT p.id, {", ".join(values)} FROM {PLAN} p
 WHERE p.creates AND p.leads
   AND NOT EXISTS (SELECT FROM {table.name} s WHERE {_is_so_called(spec)})
 ORDER BY p.line
"""


def _is_so_called(spec: Spec) -> str:
    """Return the condition that a row of the table has the key of a row of the plan."""
    key = spec.key
    return f"{key.compared(f's.{key.stored}')} = {key.compared('p.key')}"


def insert_aside(spec: Spec, number: int, side: Side, column: Column) -> str:
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


def delete_aside(number: int, side: Side, column: Column) -> str:
    """Return a statement that deletes rows of another table that are still as planned."""
    return f"""
DELETE FROM {side.table} t USING {PLAN} p
 WHERE t.{side.id} = p.x{number} AND {side.owner.format(t="t")}
   AND t.{column.stored} = p.o{number} AND p.n{number} IS NULL
"""


# Changes by others since the plan was made


def come_since(spec: Spec) -> str:
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
