"""Privileges of database roles, looked up without using them.

A read-only session switches to a role that cannot write, so that not even raw SQL can write. "Can
write" includes privileges on any table, column, sequence, or schema that is not the server's own,
on the database itself, or to create roles and databases.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aspen.database.settings import SCHEMA

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from aspen.database.driver import DriverConnection

# A role that owns an object, or is a member of a role that does, can do anything with it.
_WRITES = """
    r.rolsuper OR r.rolcreaterole OR r.rolcreatedb
    OR has_database_privilege(r.oid, current_database(), 'CREATE')
    OR EXISTS (SELECT FROM spaces n WHERE has_schema_privilege(r.oid, n.oid, 'CREATE'))
    OR EXISTS (
        SELECT FROM pg_class c JOIN spaces n ON n.oid = c.relnamespace
         WHERE CASE c.relkind
               WHEN 'S' THEN has_sequence_privilege(r.oid, c.oid, 'USAGE, UPDATE')
               WHEN 'i' THEN false WHEN 'I' THEN false WHEN 'c' THEN false WHEN 't' THEN false
               ELSE has_table_privilege(r.oid, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
                    OR has_any_column_privilege(r.oid, c.oid, 'INSERT, UPDATE')
                    OR pg_has_role(r.oid, c.relowner, 'USAGE')
               END)
    OR EXISTS (
        SELECT FROM pg_roles p
         WHERE p.rolname IN ('pg_write_server_files', 'pg_execute_server_program')
           AND pg_has_role(r.oid, p.oid, 'USAGE'))
"""
_FIND = f"""
WITH spaces AS MATERIALIZED (
    SELECT oid, nspname FROM pg_namespace
     WHERE nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%%'
), mine AS MATERIALIZED (
    SELECT r.oid, r.rolname, r.rolname = session_user AS is_self, ({_WRITES}) AS writes,
           has_schema_privilege(r.oid, s.oid, 'USAGE') AND NOT EXISTS (
               SELECT FROM pg_class c WHERE c.relnamespace = s.oid AND c.relkind IN ('r', 'p')
                  AND NOT has_table_privilege(r.oid, c.oid, 'SELECT')) AS reads
      FROM pg_roles r LEFT JOIN spaces s ON s.nspname = %(schema)s
     WHERE pg_has_role(session_user, r.oid, 'MEMBER')
)
SELECT session_user::text,
       bool_or(writes),
       (SELECT rolname FROM mine
         WHERE NOT writes AND reads AND NOT is_self
           AND (rolname NOT LIKE 'pg\\_%%' OR rolname = 'pg_read_all_data')
         ORDER BY rolname = 'user_ro' DESC, rolname = 'pg_read_all_data', rolname
         LIMIT 1)
  FROM mine
"""  # noqa: S608 - a constant
_COLUMN = "SELECT has_column_privilege(:table, :column, :right)"
_TABLE = "SELECT has_table_privilege(:table, :right)"


@dataclass(frozen=True)
class Rights:
    """The privileges of a session's role."""

    user: str  # the role
    can_write: bool  # it, or a role that it can switch to, can write anything
    reader: str | None  # a role that it can switch to that reads every table and cannot write


@dataclass(frozen=True)
class Right:
    """A privilege that a write needs, on some columns of a table or on the whole table."""

    name: str
    table: str
    columns: tuple[str, ...] = ()

    def __str__(self) -> str:
        columns = f" ({', '.join(self.columns)})" if self.columns else ""
        return f"{self.name}{columns} ON {self.table}"


def rights(connection: DriverConnection) -> Rights:
    """Look up the privileges of a connection's role, in one round trip."""
    return Rights(*connection.ask(_FIND, {"schema": SCHEMA}))


def missing_rights(connection: Connection, wanted: Iterable[Right]) -> list[Right]:
    """Return the privileges that the user does not have."""
    import sqlalchemy as sa  # psql starts without it

    def has(right: Right, column: str | None) -> bool:
        facts = {"table": right.table, "right": right.name}
        facts |= {"column": column} if column else {}
        return bool(connection.scalar(sa.text(_COLUMN if column else _TABLE), facts))

    return [
        right for right in wanted if not all(has(right, one) for one in right.columns or (None,))
    ]
