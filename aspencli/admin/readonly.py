"""A database role that can only read, for sessions that are not meant to write."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Connection

from aspen.database.engine import Database
from aspen.database.settings import SCHEMA
from aspencli.errors import RefusedError
from aspencli.text import sql_name

DEFAULT_ROLE = "aspen_readonly"
_READS_ALL = 140_000  # the first version with pg_read_all_data
_EXISTS = "SELECT 1 FROM pg_roles WHERE rolname = :role"
_MEMBER = "SELECT pg_has_role(:user, :role, 'MEMBER')"
_READS = f"""
SELECT has_schema_privilege(:role, n.oid, 'USAGE') AND NOT EXISTS (
           SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm')
              AND NOT has_table_privilege(:role, c.oid, 'SELECT'))
  FROM pg_namespace n WHERE n.nspname = '{SCHEMA}'
"""  # noqa: S608 - a constant
_WRITES = """
SELECT r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR EXISTS (
           SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
              AND c.relkind IN ('r', 'p')
              AND (has_table_privilege(r.oid, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
                   OR pg_has_role(r.oid, c.relowner, 'USAGE')))
  FROM pg_roles r WHERE r.rolname = :role
"""
_OWNERS = f"""
SELECT DISTINCT pg_get_userbyid(c.relowner)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = '{SCHEMA}' AND c.relkind IN ('r', 'p') ORDER BY 1
"""  # noqa: S608 - a constant


@dataclass(frozen=True)
class RoleStep:
    """A statement that a read-only role needs, and what it is for."""

    what: str
    statement: str


def missing_steps(database: Database, role: str, user: str) -> list[RoleStep]:
    """Return the statements after which a user can switch to a role that reads every table.

    Raises:
        RefusedError: The role exists, but can write.
    """
    with database.engine.connect() as connection, connection.begin():
        return list(_missing(connection, role, user))


def _missing(connection: Connection, role: str, user: str) -> list[RoleStep]:
    name, steps = sql_name(role), []
    facts = {"role": role, "user": user}
    exists = connection.scalar(sa.text(_EXISTS), facts) is not None
    if exists and connection.scalar(sa.text(_WRITES), facts):
        raise RefusedError(
            f"Role {role} exists, and can write, so it cannot be the read-only role.",
            hint="Set read_only_role to another name.",
        )
    if not exists:
        steps.append(RoleStep("create the role", f"CREATE ROLE {name} NOLOGIN"))
    if not (exists and connection.scalar(sa.text(_READS), facts)):
        steps += _grants(connection, name)
    if not (exists and connection.scalar(sa.text(_MEMBER), facts)):
        grant = f"GRANT {name} TO {sql_name(user)}"
        steps.append(RoleStep(f"let {user} switch to it", grant))
    return steps


def _grants(connection: Connection, name: str) -> list[RoleStep]:
    version = int(str(connection.scalar(sa.text("SHOW server_version_num"))))
    if version >= _READS_ALL:
        return [RoleStep("let it read every table", f"GRANT pg_read_all_data TO {name}")]
    steps = [
        RoleStep("let it use the schema", f"GRANT USAGE ON SCHEMA {SCHEMA} TO {name}"),
        RoleStep("let it read", f"GRANT SELECT ON ALL TABLES IN SCHEMA {SCHEMA} TO {name}"),
    ]
    for owner in connection.scalars(sa.text(_OWNERS)):
        change = f"ALTER DEFAULT PRIVILEGES FOR ROLE {sql_name(owner)} IN SCHEMA {SCHEMA}"
        grant = f"{change} GRANT SELECT ON TABLES TO {name}"
        steps.append(RoleStep(f"let it read future tables of {owner}", grant))
    return steps


def carry_out(database: Database, steps: list[RoleStep]) -> None:
    """Run the statements in one transaction."""
    with database.begin() as session:
        for step in steps:
            session.execute(sa.text(step.statement))
