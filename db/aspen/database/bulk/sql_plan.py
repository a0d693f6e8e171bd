"""The statements that stage the rows of a file and plan them.

Each stage is one statement over all rows: the rows are copied in (`ROWS`), their references are
looked up (`sql_references`), they are joined to the table (`create_plan`), and checked
(`sql_checks`, which queries details only if a count is not zero). Column number 0 of a
specification is ``v0`` among the rows; in the plan it is ``n0`` (the new value) and ``o0`` (the old
value). ``g0`` is whether a row gives the column at all, ``e0`` is its expected value, and ``x0``
identifies the row of another table that stores it. ``place`` is where the row was stored in the
table; it may have moved since, so it only suggests a good order for visiting rows. `sql_collect`
describes further columns of the plan, for rows that may be created or have several lines.
"""

from __future__ import annotations

from aspen.database.bulk.spec import Column, Spec
from aspen.database.bulk.sql_conditions import (
    changes,
    changes_aside,
    changes_own,
    drops_aside,
    given,
    has_moved,
    in_scope,
    is_unknown,
    lacks_side,
    puts_aside,
    same_aside,
    stays,
)
from aspen.database.bulk.sql_references import found
from aspen.database.bulk.temporary import KEPT

ROWS = "pg_temp.aspencli_rows"
PLAN = "pg_temp.aspencli_plan"
HELD = "pg_temp.aspencli_held"
PROBLEM = "pg_temp.aspencli_problem"
LEFT = "pg_temp.aspencli_left"

# A read-only session defaults to read-only transactions, which cannot create temporary tables.
READ_WRITE = "SET TRANSACTION READ WRITE"
# Otherwise, what another run commits between two statements would be visible to only one of them.
ONE_MOMENT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ WRITE"
# work_mem is for the hash tables of these statements only; a million identifiers need about this
# much. Staged tables are analyzed with a tenth of the usual sample, enough to show that they are
# large and have few duplicates. A server that waits for a lock would not notice that its client is
# gone (client_connection_check_interval, since PostgreSQL 14).
RESOURCES = """
SET LOCAL work_mem = '64MB'; SET LOCAL default_statistics_target = 10;
SELECT set_config(name, '1s', true) FROM pg_settings
 WHERE name = 'client_connection_check_interval'
"""
# Temporary tables need neither the disk nor a standby. If the standby were down, the commits of a
# plan would wait for it, and so would the server when it drops the tables of an ended session.
FLEETING = "SET synchronous_commit = off"
FLEETING_NOW = "SET LOCAL synchronous_commit = off"
DURABLE = "SET LOCAL synchronous_commit TO DEFAULT"

# Autovacuum does not analyze temporary tables. Without statistics, the planner would assume that
# they are small, and build its hash tables from the large table instead.
ANALYSE_ROWS = f"ANALYZE {ROWS} (key)"

GROUP_NAME = "SELECT name FROM aspen.groups WHERE id = :scope"


def current(number: int, column: Column) -> str:
    """Return SQL for the current value of a column in a row ``s`` of the table."""
    return f"t{number}.{column.stored}" if column.side else f"s.{column.stored}"


def stored_label(spec: Spec) -> str:
    """Return SQL for the label of a row ``s``, which may be gone."""
    label = f"s.{spec.table.label}"
    return f"coalesce({label}, m.label)" if spec.tells_label else label


def sides(spec: Spec, within: str = "p.within") -> str:
    """Return the joins of the other tables that store columns of a row ``s``.

    Args:
        spec: The specification.
        within: SQL for the ID of what the row of the file is within, if the specification has it.
    """
    return "".join(
        f"\n  {side.joins.format(t=f't{number}', s='s', within=within)}"
        for number, side, _ in spec.aside()
    )


def create_rows(spec: Spec) -> str:
    """Return a statement that creates the table that the rows of a file are copied to."""
    columns = ["line bigint NOT NULL", f"key {spec.key.type} NOT NULL"]
    columns += ["label varchar"] if spec.tells_label else []
    columns += ["vw varchar"] if spec.within else []
    for number, column in spec.numbered():
        columns.append(f"v{number} {'varchar' if column.reference else column.type}")
        columns += [f"g{number} boolean NOT NULL"] if spec.partial else []
        columns += [f"e{number} {column.type}"] if spec.expects else []
    return f"CREATE TEMPORARY TABLE aspencli_rows ({', '.join(columns)}) {KEPT}"


def create_plan(spec: Spec) -> str:
    """Return a statement that creates the plan: the rows, each with its current values."""
    table = spec.table
    columns = ["m.line", "m.key", f"s.{table.id} AS id", "s.ctid AS place"]
    columns += [] if spec.key.stored == table.label else [f"{stored_label(spec)} AS label"]
    for number, column in spec.numbered():
        now = current(number, column)
        wanted = f"f{number}.id" if column.reference else f"m.v{number}"
        if spec.partial:
            columns.append(f"m.g{number}")
            wanted = f"CASE WHEN m.g{number} THEN {wanted} ELSE {now} END"
        columns += [f"{wanted} AS n{number}", f"{now} AS o{number}"]
        columns += [f"m.e{number}"] if spec.expects else []
        columns += [f"t{number}.{column.side.id} AS x{number}"] if column.side else []
    joins = "".join(
        f"\n  LEFT JOIN {found(number)} f{number} ON f{number}.given = m.v{number}"
        for number, _reference, _column in spec.references()
    )
    return f"""
CREATE TEMPORARY TABLE aspencli_plan {KEPT} AS
SELECT {", ".join(columns)}
  FROM {ROWS} m
  LEFT JOIN {table.name} s ON {in_scope(spec, "s")} AND s.{spec.key.stored} = m.key\
{sides(spec)}{joins}
"""


def find_renamed(spec: Spec, number: int) -> str:
    """Return a statement that finds rows that already are exactly as the file renames them.

    Their old key no longer exists, and no other row of the file means them. Rows found this way
    are never written to.

    Args:
        spec: The specification.
        number: The number of the column by which rows are found, which changes.
    """
    table = spec.table
    key = spec.columns[number].stored
    sets, same = [f"id = s.{table.id}"], []
    for other, column in spec.numbered():
        now = current(other, column)
        sets += [f"o{other} = {now}", f"n{other} = {now}"]
        sets += [f"x{other} = t{other}.{column.side.id}"] if column.side else []
        same.append(f"({now} {column.equals} p.n{other} OR NOT {given(spec, other)})")
    return f"""
UPDATE {PLAN} p SET {", ".join(sets)}
  FROM {table.name} s{sides(spec)}
 WHERE p.id IS NULL AND {given(spec, number)} AND {in_scope(spec, "s")}
   AND s.{key} = p.n{number} AND {" AND ".join(same)}
   AND NOT EXISTS (SELECT FROM {PLAN} q WHERE q.key = p.n{number})
"""


def analyse_plan(spec: Spec) -> str:
    """Return a statement that analyzes the plan; see `ANALYSE_ROWS`."""
    columns = ["id", *(f"n{number}" for number, _column in spec.unique())]
    return f"ANALYZE {PLAN} ({', '.join(columns)})"


CREATE_PROBLEM = f"""
CREATE TEMPORARY TABLE aspencli_problem (
    line bigint NOT NULL, column_name varchar NOT NULL, reason varchar NOT NULL,
    left_out boolean NOT NULL DEFAULT false
) {KEPT}
"""
CREATE_LEFT = f"CREATE TEMPORARY TABLE aspencli_left (LIKE {PLAN}) {KEPT}"
"""The rows left out of the plan, as they were planned, so that reports can show them."""


def count(spec: Spec) -> str:
    """Return a query for the totals of the plan.

    ``own`` rows change in the table itself, and ``kept`` rows of it do not. For a column in another
    table: ``aside0`` rows update it, ``same0`` already have the value, ``put0`` insert it,
    ``dropped0`` delete it, and ``lacking0`` have no row there. If rows may be created or deleted:
    ``created``, ``deleted`` and ``touched`` rows of the table, however many lines they have.
    """
    return f"SELECT {_counts(spec)} FROM {PLAN} p"


def count_all(spec: Spec) -> str:
    """Return a query for the same totals and the number of duplicates.

    ``repeated_ids`` is how often a row of the table is named again. ``repeated_0`` is how often a
    value of column 0 is wanted again, among the rows that change it. It compares hashes, at half
    the cost of texts, so it may (very rarely) be too high.
    """
    repeated = ["count(p.id) - count(DISTINCT p.id) AS repeated_ids"]
    for number, _column in spec.unique():
        value, changed = f"p.n{number}", f"p.n{number} IS DISTINCT FROM p.o{number}"
        changing = f"FILTER (WHERE {changed} AND {given(spec, number)})"
        values = f"count({value}) {changing}"
        distinct = f"count(DISTINCT hashtextextended({value}, 0)) {changing}"
        repeated.append(f"{values} - {distinct} AS repeated_{number}")
    return f"SELECT {_counts(spec)}, {', '.join(repeated)} FROM {PLAN} p"


def _counts(spec: Spec) -> str:
    aside = "".join(
        f""",
       count(*) FILTER (WHERE {changes_aside(spec, number, side, column)}) AS aside{number},
       count(*) FILTER (WHERE {same_aside(spec, number, column)}) AS same{number},
       count(*) FILTER (WHERE {puts_aside(spec, number, side)}) AS put{number},
       count(*) FILTER (WHERE {drops_aside(number, side)}) AS dropped{number},
       count(*) FILTER (WHERE {lacks_side(spec, number, side)}) AS lacking{number}"""
        for number, side, column in spec.aside()
    )
    created = f""",
       count(*) FILTER (WHERE p.creates AND p.leads) AS created,
       count(*) FILTER (WHERE p.deletes AND p.leads) AS deleted,
       count(DISTINCT p.id) FILTER (WHERE {stays(spec)} AND {changes(spec)}) AS touched"""
    return f"""
       count(*) AS total,
       count(*) FILTER (WHERE {is_unknown(spec)}) AS unknown,
       count(*) FILTER (WHERE {has_moved(spec)}) AS moved,
       count(*) FILTER (WHERE {changes(spec)}) AS to_change,
       count(*) FILTER (WHERE NOT {is_unknown(spec)} AND NOT {changes(spec)}) AS already,
       count(*) FILTER (WHERE {changes_own(spec)}) AS own,
       count(*) FILTER (WHERE {stays(spec)} AND NOT {changes_own(spec)}) AS kept\
{aside}{created if spec.creates else ""}
"""


DETOURS = f"SELECT number, count(DISTINCT holder_id) AS rows FROM {HELD} GROUP BY number"
TOTAL_PROBLEMS = f"""
SELECT count(DISTINCT line) FILTER (WHERE left_out) AS left_out,
       count(*) FILTER (WHERE NOT left_out) AS problems
  FROM {PROBLEM}
"""
