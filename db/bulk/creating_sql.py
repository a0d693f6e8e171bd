"""The statements for rows that come into being, or go: what stands in their way, and their writing.

`gathering_sql` tells what the plan has for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from db.bulk.check_sql import quoted
from db.bulk.conditions import changes, is_there, label
from db.bulk.plan_sql import PLAN, ROWS
from db.bulk.spec import Column, Side, Spec


class Link(NamedTuple):
    """A column of some table that refers to rows of the table of a run.

    Attributes:
        table: With its schema, quoted where it has to be.
        name: The column, quoted in the same way.
    """

    table: str
    name: str


# What stands in the way of a row that comes or goes


def lacking(spec: Spec) -> str:
    """The new rows that do not say what they need to."""
    return " UNION ALL ".join(
        f"""
SELECT p.line, '{column.name}', '{column.needed}'
  FROM {PLAN} p WHERE p.creates AND p.leads AND NOT p.g{number} AND p.n{number} IS NULL
"""
        for number, column in spec.own()
        if column.needed
    )


def unnamed(spec: Spec) -> str:
    """The lines that want to call a row something else, which is not there.

    One that is called so already is as good, as long as nothing is written to it.
    """
    return f"""
SELECT p.line, '{spec.key.name}', format('{spec.table.lacks} %s', {quoted("p.key")})
  FROM {PLAN} p JOIN {ROWS} m ON m.line = p.line
 WHERE m.g{spec.key_number} AND (p.creates OR (p.renamed AND {changes(spec)}))
"""


def homeless(spec: Spec, number: int, column: Column) -> str:
    """The lines that do not say within what a value lies, or that say no more than that."""
    assert spec.within  # noqa: S101 - only such specifications are asked
    within = spec.within.name
    return f"""
SELECT p.line, '{column.name}', 'is given without a {within}'
  FROM {PLAN} p JOIN {ROWS} m ON m.line = p.line WHERE p.g{number} AND m.vw IS NULL
UNION ALL
SELECT p.line, '{column.name}',
       format('is blank, and %s has none in that {within} to be left', {quoted(label(spec))})
  FROM {PLAN} p WHERE NOT p.g{number} AND p.within IS NOT NULL AND p.x{number} IS NULL
"""


def links(spec: Spec) -> str:
    """Every column of the database that refers to rows of the table; see `Link`."""
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
    """The rows that shall go, and that something refers to."""
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
       format('%s is in use by now, in %s', {quoted(label(spec))},
              string_agg(DISTINCT u.used_by, ', '))
  FROM {PLAN} p JOIN ({uses}) u ON u.id = p.id
 WHERE p.deletes AND p.leads GROUP BY p.line, {label(spec)}
"""


def _stays_aside(spec: Spec, link: Link) -> str:
    """The condition that a row of another table is not one that goes in the same run."""
    return "".join(
        f""" AND NOT EXISTS (SELECT FROM {PLAN} p WHERE {side.owner.format(t="r")}
                    AND p.x{number} = r.{side.id} AND p.n{number} IS NULL)"""
        for number, side, _column in spec.aside()
        if side.table == link.table
    )


def forsaken(spec: Spec) -> str:
    """The lines of rows that come or go, of which others were left out."""
    return f"""
SELECT p.line, '{spec.key.name}', format('%s is left alone as a whole', {quoted(label(spec))})
  FROM {PLAN} p
  JOIN (SELECT who, count(*) AS rest FROM {PLAN} GROUP BY who) f ON f.who = p.who
 WHERE (p.creates OR p.deletes) AND f.rest < p.company
"""


# Writing


def delete(spec: Spec) -> str:
    """Take the rows away that shall go, if they are as they were planned."""
    table = spec.table
    unmoved = " AND ".join(
        f"s.{column.stored} IS NOT DISTINCT FROM p.o{number}" for number, column in spec.own()
    )
    return f"""
DELETE FROM {table.name} s USING {PLAN} p
 WHERE s.{table.id} = p.id AND p.deletes AND p.leads AND {unmoved}
"""


def number_new(spec: Spec) -> str:
    """Give each row that is made the number that will identify it; once more, if it had one."""
    table = spec.table
    sequence = f"pg_get_serial_sequence('{table.name}', '{table.id}')"
    number = "p.key" if spec.by_id else f"nextval({sequence})"
    return f"""
UPDATE {PLAN} p SET id = a.id
  FROM (SELECT who, {number} AS id FROM {PLAN} p WHERE p.creates AND p.leads) a
 WHERE p.who = a.who
"""


# Without it the planner takes the rows that have a number for those that had one before.
ANALYSE_NUMBERS = f"ANALYZE {PLAN} (id)"


def insert(spec: Spec) -> str:
    """Make the new rows, unless there is one by now that the key names."""
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
    """The condition that a row of the table is called as one of the plan."""
    key = spec.key
    return f"{key.compared(f's.{key.stored}')} = {key.compared('p.key')}"


def insert_aside(spec: Spec, number: int, side: Side, column: Column) -> str:
    """Make rows of another table, unless there is one by now."""
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
    """Take rows of another table away, if they are as they were planned."""
    return f"""
DELETE FROM {side.table} t USING {PLAN} p
 WHERE t.{side.id} = p.x{number} AND {side.owner.format(t="t")}
   AND t.{column.stored} = p.o{number} AND p.n{number} IS NULL
"""


# What became of it meanwhile


def come_since(spec: Spec) -> str:
    """Rows of the table that were to be made, and that somebody else made; line and text."""
    return f"""
SELECT p.line, format('line %s: there is a {spec.table.noun} %s now', p.line, {quoted(label(spec))})
       AS text
  FROM {PLAN} p
 WHERE p.creates AND p.leads
   AND EXISTS (SELECT FROM {spec.table.name} s WHERE {_is_so_called(spec)})
"""


def used_since(spec: Spec, found: Sequence[Link]) -> str:
    """Rows that were to go, and that something refers to by now; line and text."""
    return f"""
SELECT u.line, format('line %s: %s', u.line, u.reason) AS text
  FROM ({in_use(spec, found)}) u (line, column_name, reason)
"""
