"""The statements that stage and plan a bulk rename; those that write it are in `write_sql`.

The stages, each one statement over all rows: the mapping is copied in (`MAPPING`), joined to the
samples (`CREATE_PLAN`), and checked (details are looked for only where a count says that there are
some). What a message quotes is written as JSON, so that no identifier can break out of its quotes
or its line.
"""

from __future__ import annotations

MAPPING = "pg_temp.aspencli_mapping"

# A reading database defaults to read-only transactions, which may not even make temporary tables.
READ_WRITE = "SET TRANSACTION READ WRITE"
# A server that waits for a lock would not notice that its client is gone (from PostgreSQL 14 on).
NOTICE_LOSS = """
SELECT set_config(name, '1s', false) FROM pg_settings
 WHERE name = 'client_connection_check_interval'
"""
# For the hash tables of these statements only; a million identifiers take about this much.
WORK_MEM = "SET LOCAL work_mem = '64MB'"

CREATE_MAPPING = """
CREATE TEMPORARY TABLE aspencli_mapping (
    line bigint NOT NULL,
    private_identifier varchar NOT NULL,
    public_identifier varchar NOT NULL,
    expected varchar
)
"""

GROUP_EXISTS = "SELECT name FROM aspen.groups WHERE id = :group"

CREATE_PLAN = """
CREATE TEMPORARY TABLE aspencli_plan AS
SELECT m.line, m.private_identifier, m.public_identifier AS new_value, m.expected,
       s.id, s.public_identifier AS old_value
  FROM pg_temp.aspencli_mapping m
  LEFT JOIN aspen.samples s
    ON s.submitting_group_id = :group AND s.private_identifier = m.private_identifier
"""

CREATE_PROBLEM = """
CREATE TEMPORARY TABLE aspencli_problem (
    line bigint NOT NULL, column_name varchar NOT NULL, reason varchar NOT NULL,
    left_out boolean NOT NULL DEFAULT false
)
"""
_PROBLEM = "INSERT INTO pg_temp.aspencli_problem (line, column_name, reason)"
_LEFT_OUT = "INSERT INTO pg_temp.aspencli_problem (line, column_name, reason, left_out)"

# Undoing twice finds the old value in place: that is no move.
_HAS_MOVED = "expected IS NOT NULL AND old_value <> expected AND old_value <> new_value"

COUNT = f"""
SELECT count(*) AS total,
       count(*) FILTER (WHERE id IS NULL) AS unknown,
       count(*) FILTER (WHERE {_HAS_MOVED}) AS moved
  FROM pg_temp.aspencli_plan
"""

UNKNOWN = f"""
{_PROBLEM}
SELECT p.line, 'private_identifier',
       format('the group has no sample %s', to_json(p.private_identifier))
  FROM pg_temp.aspencli_plan p WHERE p.id IS NULL
"""
LEAVE_UNKNOWN = f"""
WITH gone AS (
    DELETE FROM pg_temp.aspencli_plan p WHERE p.id IS NULL RETURNING p.line, p.private_identifier
)
{_LEFT_OUT}
SELECT line, 'private_identifier',
       format('the group has no sample %s any more', to_json(private_identifier)), true
  FROM gone
"""
_MOVED_REASON = (
    "format('%s is named %s now, not %s', to_json(private_identifier), "
    "to_json(old_value), to_json(expected))"
)
MOVED = f"""
{_PROBLEM}
SELECT line, 'public_identifier', {_MOVED_REASON}
  FROM pg_temp.aspencli_plan WHERE {_HAS_MOVED}
"""
MOVED_OUT = f"""
WITH moved AS (
    DELETE FROM pg_temp.aspencli_plan WHERE {_HAS_MOVED}
    RETURNING line, private_identifier, old_value, expected
)
{_LEFT_OUT}
SELECT line, 'public_identifier', {_MOVED_REASON}, true FROM moved
"""


def _has_repeated(column: str) -> str:
    return (
        f"SELECT EXISTS (SELECT FROM pg_temp.aspencli_plan GROUP BY {column} HAVING count(*) > 1)"
    )


def _repeated(column: str, name: str) -> str:
    return f"""
{_PROBLEM}
SELECT line, '{name}',
       format('%s stands on line %s already', to_json(value), first_line)
  FROM (SELECT line, {column} AS value,
               first_value(line) OVER (PARTITION BY {column} ORDER BY line) AS first_line
          FROM pg_temp.aspencli_plan) repeated
 WHERE line <> first_line
"""


HAS_REPEATED_ID = _has_repeated("id")
HAS_REPEATED_TEXT = _has_repeated("private_identifier")
HAS_REPEATED_PUBLIC = _has_repeated("new_value")
REPEATED_PRIVATE = _repeated("private_identifier", "private_identifier")
REPEATED_PUBLIC = _repeated("new_value", "public_identifier")

CREATE_HELD = """
CREATE TEMPORARY TABLE aspencli_held AS
SELECT p.line, p.id, h.id AS holder_id
  FROM pg_temp.aspencli_plan p
  JOIN aspen.samples h
    ON h.submitting_group_id = :group AND h.public_identifier = p.new_value
 WHERE h.id IS DISTINCT FROM p.id
"""
HAS_HELD = "SELECT EXISTS (SELECT FROM pg_temp.aspencli_held)"
_NOT_FREED = """
NOT EXISTS (SELECT FROM pg_temp.aspencli_plan q
             WHERE q.id = k.holder_id AND q.new_value <> q.old_value)
"""
_TAKEN_REASON = (
    "format('%s is held by sample %s, which keeps it', "
    "to_json({new}), to_json(h.private_identifier))"
)
TAKEN = f"""
{_PROBLEM}
SELECT p.line, 'public_identifier', {_TAKEN_REASON.format(new="p.new_value")}
  FROM pg_temp.aspencli_held k
  JOIN pg_temp.aspencli_plan p ON p.line = k.line
  JOIN aspen.samples h ON h.id = k.holder_id
 WHERE {_NOT_FREED}
"""
# A row that is left out keeps its identifier, which may be what another row wants, and so on: a
# chain can be as long as the file. Without the index and the statistics each step reads everything.
PREPARE_TAKEN_OUT = """
CREATE INDEX ON pg_temp.aspencli_held (holder_id);
ANALYZE pg_temp.aspencli_plan, pg_temp.aspencli_held
"""
TAKEN_OUT = f"""
WITH RECURSIVE blocked AS (
    SELECT k.line, k.id, k.holder_id FROM pg_temp.aspencli_held k WHERE {_NOT_FREED}
    UNION
    SELECT k.line, k.id, k.holder_id
      FROM blocked b JOIN pg_temp.aspencli_held k ON k.holder_id = b.id
), taken AS (
    DELETE FROM pg_temp.aspencli_plan p USING blocked b WHERE p.line = b.line
    RETURNING p.line, p.new_value, b.holder_id
), unheld AS (
    DELETE FROM pg_temp.aspencli_held k USING blocked b WHERE k.line = b.line
)
{_LEFT_OUT}
SELECT taken.line, 'public_identifier', {_TAKEN_REASON.format(new="taken.new_value")}, true
  FROM taken JOIN aspen.samples h ON h.id = taken.holder_id
"""

TOTALS = f"""
SELECT (SELECT count(*) FROM pg_temp.aspencli_plan WHERE old_value <> new_value) AS to_change,
       (SELECT count(*) FROM pg_temp.aspencli_plan WHERE old_value = new_value) AS already,
       (SELECT count(*) FROM pg_temp.aspencli_plan WHERE {_HAS_MOVED}) AS moved,
       (SELECT count(DISTINCT holder_id) FROM pg_temp.aspencli_held) AS detours,
       (SELECT count(*) FROM pg_temp.aspencli_problem WHERE left_out) AS left_out,
       (SELECT count(*) FROM pg_temp.aspencli_problem WHERE NOT left_out) AS problems
"""

PROBLEMS = """
SELECT line, column_name, reason FROM pg_temp.aspencli_problem
 WHERE NOT left_out ORDER BY line, column_name
"""
LEFT_OUT = """
SELECT line, column_name, reason FROM pg_temp.aspencli_problem
 WHERE left_out ORDER BY line, column_name
"""
OUTCOMES = """
SELECT m.line, m.private_identifier, p.old_value, m.public_identifier AS new_value, f.reason,
       f.left_out
  FROM pg_temp.aspencli_mapping m
  LEFT JOIN pg_temp.aspencli_plan p ON p.line = m.line
  LEFT JOIN (SELECT line, bool_or(left_out) AS left_out,
                    string_agg(column_name || ': ' || reason, '; ' ORDER BY column_name) AS reason
               FROM pg_temp.aspencli_problem GROUP BY line) f ON f.line = m.line
 ORDER BY m.line
"""
ROWS = """
SELECT line, private_identifier, old_value, new_value
  FROM pg_temp.aspencli_plan WHERE id IS NOT NULL ORDER BY line LIMIT :limit
"""
MOVED_ROWS = f"""
SELECT line, private_identifier, expected, old_value
  FROM pg_temp.aspencli_plan WHERE {_HAS_MOVED} ORDER BY line
"""
CHANGED_ROWS = """
SELECT line, private_identifier, old_value, new_value
  FROM pg_temp.aspencli_plan WHERE old_value <> new_value ORDER BY line LIMIT :limit
"""
