"""The statements that stage the rows of a file and plan them.

The stages, each one statement over all rows: the rows are copied in (`ROWS`), joined to the table
(`create_plan`), and checked (`check_sql`; details are looked for only where a count says that there
are some). Column number 0 of a specification is ``v0`` among the rows; in the plan it is ``n0``
(what it shall be) and ``o0`` (what it is). ``g0`` tells whether a row names it at all, and ``e0``
what it is expected to be.
"""

from __future__ import annotations

from collections.abc import Iterable

from db.bulk.spec import Column, Spec

ROWS = "pg_temp.aspencli_rows"
PLAN = "pg_temp.aspencli_plan"
HELD = "pg_temp.aspencli_held"
PROBLEM = "pg_temp.aspencli_problem"

# A reading database defaults to read-only transactions, which may not even make temporary tables.
READ_WRITE = "SET TRANSACTION READ WRITE"
# A server that waits for a lock would not notice that its client is gone (from PostgreSQL 14 on).
NOTICE_LOSS = """
SELECT set_config(name, '1s', false) FROM pg_settings
 WHERE name = 'client_connection_check_interval'
"""
# For the hash tables of these statements only; a million identifiers take about this much.
WORK_MEM = "SET LOCAL work_mem = '64MB'"

GROUP_NAME = "SELECT name FROM aspen.groups WHERE id = :scope"


def in_scope(spec: Spec, alias: str) -> str:
    """The condition that a row of the table is one that the run may touch."""
    scope = spec.table.scope
    return f"{alias}.{scope} = :scope" if scope else "true"


def given(spec: Spec, number: int, alias: str = "p") -> str:
    """The condition that a row of the file names a column."""
    return f"{alias}.g{number}" if spec.partial else "true"


def label(spec: Spec) -> str:
    """What messages call a row of the plan."""
    return "p.key" if spec.key.stored == spec.table.label else "p.label"


def create_rows(spec: Spec) -> str:
    """The table that the rows of a file are copied to."""
    columns = ["line bigint NOT NULL", f"key {spec.key.type} NOT NULL"]
    for number, column in spec.numbered():
        columns.append(f"v{number} {column.type}")
        columns += [f"g{number} boolean NOT NULL"] if spec.partial else []
        columns += [f"e{number} {column.type}"] if spec.expects else []
    return f"CREATE TEMPORARY TABLE aspencli_rows ({', '.join(columns)})"


def create_plan(spec: Spec) -> str:
    """The rows, each with what is there now."""
    table = spec.table
    columns = ["m.line", "m.key", f"s.{table.id} AS id"]
    columns += [] if spec.key.stored == table.label else [f"s.{table.label} AS label"]
    for number, column in spec.numbered():
        wanted = f"m.v{number}"
        if spec.partial:
            columns.append(f"m.g{number}")
            wanted = f"CASE WHEN m.g{number} THEN m.v{number} ELSE s.{column.stored} END"
        columns += [f"{wanted} AS n{number}", f"s.{column.stored} AS o{number}"]
        columns += [f"m.e{number}"] if spec.expects else []
    return f"""
CREATE TEMPORARY TABLE aspencli_plan AS
SELECT {", ".join(columns)}
  FROM {ROWS} m
  LEFT JOIN {table.name} s ON {in_scope(spec, "s")} AND s.{spec.key.stored} = m.key
"""


CREATE_PROBLEM = """
CREATE TEMPORARY TABLE aspencli_problem (
    line bigint NOT NULL, column_name varchar NOT NULL, reason varchar NOT NULL,
    left_out boolean NOT NULL DEFAULT false
)
"""


def changes(spec: Spec) -> str:
    """The condition that a row of the plan will be written."""
    return _any_of(f"p.n{n} {column.differs} p.o{n}" for n, column in spec.numbered())


def moved(spec: Spec, number: int, column: Column) -> str:
    """The condition that a column does not hold what was expected of it.

    Undoing twice finds the old value in place: that is no move.
    """
    differs = f"p.o{number} {column.differs} p.e{number}"
    return (
        f"({given(spec, number)} AND {differs} AND p.o{number} {column.differs} p.n{number} "
        "AND p.id IS NOT NULL)"
    )


def has_moved(spec: Spec) -> str:
    """The condition that any column of a row does not."""
    if not spec.expects:
        return "false"
    return _any_of(moved(spec, number, column) for number, column in spec.numbered())


def _any_of(conditions: Iterable[str]) -> str:
    # Of a row that is not there nothing is known: NULL must not count as a difference.
    return f"(p.id IS NOT NULL AND ({' OR '.join(conditions)}))"


def count(spec: Spec) -> str:
    """What the plan comes to."""
    return f"""
SELECT count(*) AS total,
       count(*) FILTER (WHERE p.id IS NULL) AS unknown,
       count(*) FILTER (WHERE {has_moved(spec)}) AS moved,
       count(*) FILTER (WHERE {changes(spec)}) AS to_change,
       count(*) FILTER (WHERE p.id IS NOT NULL AND NOT {changes(spec)}) AS already
  FROM {PLAN} p
"""


DETOURS = f"SELECT number, count(DISTINCT holder_id) AS rows FROM {HELD} GROUP BY number"
TOTAL_PROBLEMS = f"""
SELECT count(DISTINCT line) FILTER (WHERE left_out) AS left_out,
       count(*) FILTER (WHERE NOT left_out) AS problems
  FROM {PROBLEM}
"""
