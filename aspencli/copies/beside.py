"""A new database that is built beside the one it replaces, and takes its name at the end.

Both renames are one transaction, so at every moment the name belongs to one complete database. What
a killed run left behind has a name that the next run recognizes and drops.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from aspen.database.cancel import driver_of
from aspen.database.engine import Database
from aspen.database.errors import sqlstate
from aspen.database.settings import sql_literal
from aspencli.admin import databases
from aspencli.errors import ConflictError, RefusedError

_IN_USE = "55006"
_LEAVING_S = 5.0  # for sessions of a killed run, which the server ends within seconds
_TRIES = 10
_NEW, _OLD = "new", "old"

_TERMINATE = sa.text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = :name AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)
_LIST = sa.text("SELECT datname FROM pg_database WHERE starts_with(datname, :prefix) ORDER BY 1")

# Each query returns statements that give the new database, called %(new)s, what the old one has.
_OWNER = """
SELECT format('ALTER DATABASE %%I OWNER TO %%I', {new}, r.rolname)
  FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba
 WHERE d.datname = current_database() AND r.rolname <> current_user
"""
_SETTINGS = """
SELECT CASE WHEN s.setrole = 0 THEN format('ALTER DATABASE %%I', {new})
            ELSE format('ALTER ROLE %%I IN DATABASE %%I', r.rolname, {new}) END
       || format(' SET %%I TO ', split_part(e, '=', 1))
       || CASE WHEN split_part(e, '=', 1) = 'search_path' THEN substr(e, strpos(e, '=') + 1)
               ELSE quote_literal(substr(e, strpos(e, '=') + 1)) END
  FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) e
  LEFT JOIN pg_roles r ON r.oid = s.setrole
 WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_DATABASE_PRIVILEGES = """
SELECT format('REVOKE ALL ON DATABASE %%I FROM PUBLIC', {new}) FROM pg_database
 WHERE datname = current_database() AND datacl IS NOT NULL
UNION ALL
SELECT format('GRANT %%s ON DATABASE %%I TO %%s', a.privilege_type, {new},
              coalesce(quote_ident(r.rolname), 'PUBLIC'))
  FROM pg_database d CROSS JOIN aclexplode(d.datacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
 WHERE d.datname = current_database() AND a.grantee <> d.datdba
"""
_OBJECTS = """
WITH objects AS (
    SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
           format('%%I.%%I', n.nspname, c.relname) AS name, c.relowner AS owner, c.relacl AS acl,
           c.relkind = 'S' AND EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid
                                        AND d.deptype IN ('a', 'i')) AS follows
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'S', 'v', 'm')
       AND (n.nspname = 'aspen' OR n.nspname = 'public' AND c.relname = 'alembic_version')
    UNION ALL
    SELECT 'SCHEMA', quote_ident(nspname), nspowner, nspacl, false FROM pg_namespace
     WHERE nspname = 'aspen'
)
SELECT format('ALTER %%s %%s OWNER TO %%I', o.kind, o.name, r.rolname)
  FROM objects o JOIN pg_roles r ON r.oid = o.owner WHERE r.rolname <> current_user AND NOT follows
UNION ALL
SELECT format('GRANT %%s ON %%s %%s TO %%s%%s', a.privilege_type, o.kind, o.name,
              coalesce(quote_ident(r.rolname), 'PUBLIC'),
              CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
  FROM objects o CROSS JOIN aclexplode(o.acl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
 WHERE a.grantee <> o.owner
UNION ALL
SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %%I%%s GRANT %%s ON %%s TO %%s', w.rolname,
              coalesce(' IN SCHEMA ' || quote_ident(n.nspname), ''), a.privilege_type,
              CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES'
                   WHEN 'f' THEN 'FUNCTIONS' WHEN 'T' THEN 'TYPES' ELSE 'SCHEMAS' END,
              coalesce(quote_ident(r.rolname), 'PUBLIC'))
  FROM pg_default_acl d CROSS JOIN aclexplode(d.defaclacl) a
  JOIN pg_roles w ON w.oid = d.defaclrole LEFT JOIN pg_roles r ON r.oid = a.grantee
  LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
 WHERE a.grantee <> d.defaclrole
"""


@dataclass(frozen=True)
class Swapped:
    """The result of a replacement.

    Attributes:
        replaced: True if there was a database with the name before.
        left: The privileges that could not be carried over, as SQL.
    """

    replaced: bool
    left: tuple[str, ...]


def prefix_of_new(database: Database) -> str:
    """Return the beginning of the names of databases that are built to replace one."""
    return _prefix(databases.name_of(database))


def is_new(name: str) -> bool:
    """Return True if a database was being built, and never took the name of another one."""
    return name.endswith(f"_{_NEW}")


def require_direct(database: Database) -> None:
    """Check that no pooler is between us and the server.

    Raises:
        RefusedError: There is one, which may keep sessions that a rename has to wait for.
    """
    with databases.beside(database) as connection:
        if getattr(driver_of(connection), "pooled", False):
            raise RefusedError(
                "Databases cannot be created and renamed through a connection pooler; "
                "nothing was written.",
                hint="Set the target's database_url to connect directly to the server.",
            )


def leftovers(database: Database) -> list[str]:
    """Return the databases that killed runs left beside a database."""
    with databases.beside(database) as connection:
        found = connection.scalars(_LIST, {"prefix": _prefix(databases.name_of(database))}).all()
    pattern = re.compile(rf"[0-9a-f]{{8}}_(?:{_NEW}|{_OLD})")
    prefix = _prefix(databases.name_of(database))
    return [name for name in found if pattern.fullmatch(name.removeprefix(prefix))]


def drop_leftovers(
    database: Database, before: Callable[[str], None] = lambda _name: None
) -> list[str]:
    """Drop what killed runs left beside a database, and return the names.

    Args:
        database: The database.
        before: Called with the name of each one before it is dropped.

    Raises:
        ConflictError: Another run is building a database right now.
    """
    found = leftovers(database)
    for name in found:
        with databases.beside(database) as connection:
            _require_unused(connection, name, databases.name_of(database))
            before(name)
            connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {_quoted(connection, name)}")
    return found


def _require_unused(connection: sa.Connection, leftover: str, name: str) -> None:
    """Wait a moment for the sessions of a run that was killed, and check that there are no others.

    Raises:
        ConflictError: Another run is building it.
    """
    deadline = time.monotonic() + _LEAVING_S
    while visitors := databases.lasting_visitors(connection, leftover):
        if time.monotonic() > deadline:
            raise ConflictError(
                f"Another run is building {leftover} to replace {name}; nothing was written.",
                hint="Wait until it has ended. To see it: aspencli db activity",
                details=[str(visitor) for visitor in visitors],
            )


@contextmanager
def building(database: Database) -> Iterator[Database]:
    """Create an empty database beside another one, and drop it at the end if it is still there.

    Its sessions may write, without time limits.
    """
    name = f"{_prefix(databases.name_of(database))}{secrets.token_hex(4)}_{_NEW}"
    limited = database.with_limits(statement_ms=0, lock_ms=0)
    new = limited.neighbor(name)
    try:
        databases.create(new)
        with new.engine.connect() as keeper:  # shows other runs that it is in use
            keeper.exec_driver_sql("SELECT 1")
            keeper.rollback()
            yield new
    finally:
        new.dispose()
        with suppress(DBAPIError), databases.beside(database) as connection:
            connection.execute(_TERMINATE, {"name": name})
            connection.exec_driver_sql(
                f"DROP DATABASE IF EXISTS {_quoted(connection, name)} WITH (FORCE)"
            )


def swap(
    database: Database,
    new: Database,
    *,
    force: bool,
    retire: Callable[[], None] = lambda: None,
) -> Swapped:
    """Give a new database the name of another one, which is dropped.

    Args:
        database: The database to replace; it may not exist.
        new: The new one.
        force: True to terminate other sessions.
        retire: Called once the new one has the name, before the old one is dropped. It can be
            repeated.

    Raises:
        ConflictError: Other sessions use the old one, and ``force`` is not set.
    """
    name, new_name = databases.name_of(database), databases.name_of(new)
    replaced = databases.exists(database)
    left = _carry_over(database, new) if replaced else ()
    database.dispose()
    new.dispose()
    old_name = f"{new_name.removesuffix(_NEW)}{_OLD}"
    with databases.beside(database) as connection:
        names = {
            key: _quoted(connection, value)
            for key, value in {"name": name, "new": new_name, "old": old_name}.items()
        }
        # Sent as one query, so it is one transaction.
        rename = "ALTER DATABASE {new} RENAME TO {name}"
        if replaced:
            rename = f"ALTER DATABASE {{name}} RENAME TO {{old}}; {rename}"
        statement = rename.format(**names)
        _insist(connection, statement, name, new_name, force=force)
        if replaced:
            try:
                retire()
            except BaseException:  # an interrupt, which is obeyed a little later
                retire()
                raise
            finally:
                connection.exec_driver_sql(f"DROP DATABASE {names['old']} WITH (FORCE)")
    return Swapped(replaced, left)


def _insist(
    connection: sa.Connection, statement: str, name: str, new_name: str, *, force: bool
) -> None:
    for left in reversed(range(_TRIES)):
        connection.execute(_TERMINATE, {"name": new_name})  # only our own
        if force:
            connection.execute(_TERMINATE, {"name": name})
        else:
            databases.require_alone(name, databases.lasting_visitors(connection, name))
        try:
            connection.exec_driver_sql(statement)
        except DBAPIError as error:
            if sqlstate(error) != _IN_USE:
                raise
            if not (force and left):
                databases.require_alone(
                    name, databases.lasting_visitors(connection, name), always=True
                )
        else:
            return


def _carry_over(database: Database, new: Database) -> tuple[str, ...]:
    """Give a new database the owner, settings, and privileges of another one."""
    literal = sql_literal(databases.name_of(new))
    queries = (_SETTINGS, _OBJECTS, _DATABASE_PRIVILEGES, _OWNER)
    with database.engine.connect() as connection:
        statements = [
            str(statement)
            for query in queries
            for (statement,) in connection.exec_driver_sql(query.format(new=literal))
        ]
    left = []
    with new.engine.connect() as connection:
        plain = connection.execution_options(isolation_level="AUTOCOMMIT")
        for statement in statements:
            try:
                plain.exec_driver_sql(statement.replace("%", "%%"))
            except DBAPIError:
                left.append(statement)
    return tuple(left)


def _prefix(name: str) -> str:
    """Return the beginning of the names of databases that are built to replace one."""
    return f"aspencli_{hashlib.sha256(name.encode()).hexdigest()[:12]}_"


def _quoted(connection: sa.Connection, name: str) -> str:
    return connection.dialect.identifier_preparer.quote_identifier(name)
