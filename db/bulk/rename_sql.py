"""The statements of a bulk rename.

The stages, each one statement over all rows: the mapping is copied in (`MAPPING`), joined to the
samples (`CREATE_PLAN`), checked (details are looked for only where a count says that there are
some), and written by an UPDATE that compares each row with the plan. The unique constraint on
(submitting_group_id, public_identifier) is checked row by row and cannot be deferred, so samples
whose identifier another row of the plan takes give it up first (`PARK`); the others do not pay for
that.
"""

from __future__ import annotations

MAPPING = "pg_temp.aspencli_mapping"

# A reading database defaults to read-only transactions, which may not even make temporary tables.
READ_WRITE = "SET TRANSACTION READ WRITE"
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
       format('the group has no sample %s', quote_literal(p.private_identifier))
  FROM pg_temp.aspencli_plan p WHERE p.id IS NULL
"""
LEAVE_UNKNOWN = f"""
WITH gone AS (
    DELETE FROM pg_temp.aspencli_plan p WHERE p.id IS NULL RETURNING p.line, p.private_identifier
)
{_LEFT_OUT}
SELECT line, 'private_identifier',
       format('the group has no sample %s any more', quote_literal(private_identifier)), true
  FROM gone
"""
_MOVED_REASON = (
    "format('%s is named %s now, not %s', quote_literal(private_identifier), "
    "quote_literal(old_value), quote_literal(expected))"
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
       format('%s stands on line %s already', quote_literal(value), first_line)
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
SELECT p.line, h.id AS holder_id
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
    "format('%s is held by sample %s, which this file does not rename', "
    "quote_literal({new}), quote_literal(h.private_identifier))"
)
TAKEN = f"""
{_PROBLEM}
SELECT p.line, 'public_identifier', {_TAKEN_REASON.format(new="p.new_value")}
  FROM pg_temp.aspencli_held k
  JOIN pg_temp.aspencli_plan p ON p.line = k.line
  JOIN aspen.samples h ON h.id = k.holder_id
 WHERE {_NOT_FREED}
"""
TAKEN_OUT = f"""
WITH taken AS (
    DELETE FROM pg_temp.aspencli_plan p USING pg_temp.aspencli_held k
     WHERE p.line = k.line AND {_NOT_FREED}
    RETURNING p.line, p.new_value, k.holder_id
), unheld AS (
    DELETE FROM pg_temp.aspencli_held k USING taken WHERE k.line = taken.line
)
{_LEFT_OUT}
SELECT taken.line, 'public_identifier', {_TAKEN_REASON.format(new="taken.new_value")}, true
  FROM taken JOIN aspen.samples h ON h.id = taken.holder_id
"""

TOTALS = """
SELECT (SELECT count(*) FROM pg_temp.aspencli_plan WHERE old_value <> new_value) AS to_change,
       (SELECT count(*) FROM pg_temp.aspencli_plan WHERE old_value = new_value) AS already,
       (SELECT count(DISTINCT holder_id) FROM pg_temp.aspencli_held) AS detours,
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
ROWS = """
SELECT line, private_identifier, old_value, new_value
  FROM pg_temp.aspencli_plan WHERE id IS NOT NULL ORDER BY line LIMIT :limit
"""
CHANGED_ROWS = """
SELECT line, private_identifier, old_value, new_value
  FROM pg_temp.aspencli_plan WHERE old_value <> new_value ORDER BY line LIMIT :limit
"""

# One run on a group at a time: the second waits (lock_timeout) and then sees that rows moved. The
# first key is this program's own: the bytes of "aspe".
LOCK_GROUP = "SELECT pg_advisory_xact_lock(1634955365, :group)"

# A name that no operator gives: control characters are refused in mappings.
_PARKED = "chr(1) || 'aspencli ' || :token || ' ' || p.id"
_UNMOVED = "s.submitting_group_id = :group AND s.private_identifier = p.private_identifier"
PARK = f"""
UPDATE aspen.samples s SET public_identifier = {_PARKED}
  FROM pg_temp.aspencli_plan p
 WHERE s.id = p.id AND {_UNMOVED} AND s.public_identifier = p.old_value
   AND p.old_value <> p.new_value
   AND p.id IN (SELECT holder_id FROM pg_temp.aspencli_held)
"""
UPDATE = f"""
UPDATE aspen.samples s SET public_identifier = p.new_value
  FROM pg_temp.aspencli_plan p
 WHERE s.id = p.id AND {_UNMOVED} AND s.public_identifier = p.old_value
   AND p.old_value <> p.new_value
"""
UPDATE_PARKED = f"""
UPDATE aspen.samples s SET public_identifier = p.new_value
  FROM pg_temp.aspencli_plan p
  LEFT JOIN (SELECT DISTINCT holder_id FROM pg_temp.aspencli_held) k ON k.holder_id = p.id
 WHERE s.id = p.id AND {_UNMOVED}
   AND s.public_identifier = CASE WHEN k.holder_id IS NULL THEN p.old_value ELSE {_PARKED} END
   AND p.old_value <> p.new_value
"""

MOVED_SINCE = """
SELECT format('line %s: sample %s %s', p.line, quote_literal(p.private_identifier),
              CASE WHEN s.id IS NULL THEN 'is gone'
                   WHEN s.submitting_group_id <> :group THEN 'is in another group now'
                   WHEN s.private_identifier <> p.private_identifier
                   THEN format('is %s now', quote_literal(s.private_identifier))
                   ELSE format('is named %s now, not %s', quote_literal(s.public_identifier),
                               quote_literal(p.old_value))
              END) AS text
  FROM pg_temp.aspencli_plan p
  LEFT JOIN aspen.samples s ON s.id = p.id
 WHERE p.old_value <> p.new_value
   AND (s.public_identifier, s.private_identifier, s.submitting_group_id)
       IS DISTINCT FROM (p.old_value, p.private_identifier, :group)
 ORDER BY p.line LIMIT 1000
"""
TAKEN_SINCE = """
SELECT format('line %s: %s is held by sample %s now', p.line, quote_literal(p.new_value),
              quote_literal(h.private_identifier)) AS text
  FROM pg_temp.aspencli_plan p
  JOIN aspen.samples h ON h.submitting_group_id = :group AND h.public_identifier = p.new_value
 WHERE h.id <> p.id AND p.old_value <> p.new_value
   AND NOT EXISTS (SELECT FROM pg_temp.aspencli_plan q
                    WHERE q.id = h.id AND q.new_value <> q.old_value)
 ORDER BY p.line LIMIT 1000
"""

TRANSACTION_ID = "SELECT txid_current()"
TRANSACTION_STATUS = "SELECT txid_status(:transaction)"


def _guarded(column: str) -> str:
    # A spreadsheet would compute what starts like this. An apostrophe in front is doubled, so that
    # reading the file back can take exactly one away.
    return f"CASE WHEN {column} ~ '^[=+\\-@'']' THEN '''' || {column} ELSE {column} END"


UNDO = f"""
SELECT {_guarded("private_identifier")} AS private_identifier,
       {_guarded("new_value")} AS new_public_identifier,
       {_guarded("old_value")} AS old_public_identifier
  FROM pg_temp.aspencli_plan WHERE old_value <> new_value ORDER BY line
"""
