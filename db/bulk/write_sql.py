"""The statements that write a bulk rename, once `rename_sql` has planned it.

Each row is locked and compared with the plan by the statement that writes it. The unique constraint
on (submitting_group_id, public_identifier) is checked row by row and cannot be deferred, so samples
whose identifier another row of the plan takes give it up first (`PARK`); the others do not pay for
that.
"""

from __future__ import annotations

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
# A row that is so already has to stay so until the commit.
LOCK_SAME = f"""
SELECT count(*) FROM (
    SELECT FROM aspen.samples s JOIN pg_temp.aspencli_plan p ON s.id = p.id
     WHERE {_UNMOVED} AND s.public_identifier = p.new_value AND p.old_value = p.new_value
       FOR SHARE OF s
) same
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

# More than anybody reads; the total is told too.
MOVED_SINCE = """
SELECT format('line %s: sample %s %s', p.line, to_json(p.private_identifier),
              CASE WHEN s.id IS NULL THEN 'is gone'
                   WHEN s.submitting_group_id <> :group THEN 'is in another group now'
                   WHEN s.private_identifier <> p.private_identifier
                   THEN format('is %s now', to_json(s.private_identifier))
                   ELSE format('is named %s now, not %s', to_json(s.public_identifier),
                               to_json(p.old_value))
              END) AS text, count(*) OVER () AS total
  FROM pg_temp.aspencli_plan p
  LEFT JOIN aspen.samples s ON s.id = p.id
 WHERE (s.public_identifier, s.private_identifier, s.submitting_group_id)
       IS DISTINCT FROM (p.old_value, p.private_identifier, :group)
 ORDER BY p.line LIMIT 200
"""
TAKEN_SINCE = """
SELECT format('line %s: %s is held by sample %s now', p.line, to_json(p.new_value),
              to_json(h.private_identifier)) AS text, count(*) OVER () AS total
  FROM pg_temp.aspencli_plan p
  JOIN aspen.samples h ON h.submitting_group_id = :group AND h.public_identifier = p.new_value
 WHERE h.id <> p.id AND p.old_value <> p.new_value
   AND NOT EXISTS (SELECT FROM pg_temp.aspencli_plan q
                    WHERE q.id = h.id AND q.new_value <> q.old_value)
 ORDER BY p.line LIMIT 200
"""


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
