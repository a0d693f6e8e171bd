"""A database as it was at one moment, read by several connections at once.

The first connection exports its snapshot, and the others import it. All of them are read-only.
Behind a pooler, where it is not known which server session a connection gets, there is only one.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from aspen.database.cancel import driver_of
from aspen.database.engine import Database
from aspen.database.settings import first_text
from aspencli.copies.choices import Choice, Trees
from aspencli.copies.hashing import Hashes
from aspencli.copies.masking import DAYS, KEY, MAKE_KEY, SET_DAYS, TableColumn, select
from aspencli.copies.names import Namer, SourceTree
from aspencli.copies.rules import Rules
from aspencli.errors import AspenError, NotFoundError, RefusedError
from aspencli.text import not_found

WORKERS = 2
_HAS_RANGES = 140_000  # PostgreSQL 14 reads a range of pages without reading the others
_PAGES = 16_384  # of a part: 128 MB of the table
_COLUMNS = """
SELECT c.relname, a.attname, t.typname, NOT a.attnotnull, greatest(c.relpages,
       pg_catalog.pg_relation_size(c.oid) / current_setting('block_size')::int)::bigint
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
 WHERE c.relnamespace = 'aspen'::regnamespace AND c.relkind IN ('r', 'p')
   AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
 ORDER BY c.relname, a.attnum
"""
_SEQUENCES = """
SELECT sequencename, last_value FROM pg_catalog.pg_sequences
 WHERE schemaname = 'aspen' AND last_value IS NOT NULL ORDER BY 1
"""
_TREES = """
SELECT t.entity_id, t.s3_bucket, t.s3_key, t.pathogen_id, coalesce(e.group_id, r.group_id)
  FROM aspen.phylo_trees t
  JOIN aspen.entities e ON e.id = t.entity_id
  LEFT JOIN aspen.phylo_runs r ON r.workflow_id = e.producing_workflow_id
 WHERE {rows} ORDER BY t.entity_id
"""
_PLACES = """
SELECT region FROM aspen.locations UNION SELECT country FROM aspen.locations
UNION SELECT division FROM aspen.locations UNION SELECT location FROM aspen.locations
"""
_KEY = f"SELECT current_setting('{KEY}'), current_setting('{DAYS}')::int"
_GROUPS = "SELECT id, prefix, name FROM aspen.groups ORDER BY id"
_REFUSES_OPTIONS = re.compile(r"unsupported startup parameter|options", re.I)


@dataclass(frozen=True)
class SourceTable:
    """A table of the snapshot.

    Attributes:
        pieces: Queries that have all of its rows between them.
        pages: Its size, in pages of the server.
    """

    name: str
    columns: tuple[TableColumn, ...]
    pieces: tuple[str, ...]
    pages: int

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of its columns."""
        return tuple(column.name for column in self.columns)


class Snapshot:
    """An open snapshot.

    Attributes:
        tables: The tables, largest first.
        trees: The trees whose files belong to the copy.
        choice: The choices of the copy.
        revision: The revision of the schema.
        server_version: The version of the server.
        workers: The number of connections.
    """

    def __init__(self, connections: Sequence[sa.Connection], rules: Rules, choice: Choice):
        self._connections = connections
        self._rules = rules
        self.choice = choice
        first = connections[0]
        self.workers = len(connections)
        self.revision = _revision(first)
        driver = driver_of(first)
        self.server_version = str(driver.get_parameter_status("server_version"))
        ranges = driver.info.server_version >= _HAS_RANGES
        found, pages = _read_tables(first)
        if choice.scrub:
            rules.require((table, one.name) for table, columns in found.items() for one in columns)
        self.tables = tuple(
            SourceTable(
                name,
                tuple(found[name]),
                _pieces(select(rules, name, found[name], choice), pages[name], ranges=ranges),
                pages[name],
            )
            for name in sorted(found, key=lambda name: -pages[name])
        )

    @cached_property
    def trees(self) -> tuple[SourceTree, ...]:
        """Return the trees whose files belong to the copy."""
        own = self._rules.tables.get("phylo_trees")
        has_table = any(table.name == "phylo_trees" for table in self.tables)
        if self.choice.trees is Trees.DROP or own is None or not has_table:
            return ()
        rows = "true"
        if self.choice.groups and own.rows:
            rows = self._rules.expand(own.rows, self.choice.groups)
        found = self._connections[0].exec_driver_sql(_escaped(_TREES.format(rows=rows)))
        return tuple(SourceTree(*row) for row in found)

    @cached_property
    def places(self) -> frozenset[str]:
        """Return the names of all places."""
        found = self._connections[0].exec_driver_sql(_PLACES)
        return frozenset(name for (name,) in found if name)

    @cached_property
    def hashes(self) -> Hashes:
        """Return the masks of this copy for values that are not in the database."""
        key, days = self._connections[0].exec_driver_sql(_KEY).one()
        return Hashes(self._rules, key, days)

    def namer(self, worker: int) -> Namer:
        """Return look-ups of names through the connection of a worker."""

        def ask(query: str, values: dict[str, Any]) -> list[Any]:
            with self.driver(worker).cursor() as cursor:
                cursor.execute(query, values)
                return list(cursor.fetchall())

        return Namer(self._rules, ask)

    @property
    def rules(self) -> Rules:
        """Return the masking rules."""
        return self._rules

    def sequences(self) -> dict[str, int]:
        """Return the last values of sequences, as far as the user may read them."""
        found = self._connections[0].exec_driver_sql(_SEQUENCES)
        return {str(name): int(value) for name, value in found}

    def close(self) -> None:
        """End the transactions, which keep the server from removing dead rows."""
        for connection in self._connections:
            connection.close()

    def driver(self, worker: int) -> Any:
        """Return the driver connection of a worker."""
        return driver_of(self._connections[worker])

    def copy(self, worker: int, query: str, file: IO[bytes] | Any) -> int:
        """Write the rows of a query in the text format of COPY; return their number."""
        with self.driver(worker).cursor() as cursor:
            cursor.copy_expert(f"COPY ({query}) TO STDOUT", file)
            return int(cursor.rowcount)


def _revision(connection: sa.Connection) -> str | None:
    """Return the recorded revision, without a statement that could fail and end the snapshot."""
    if connection.exec_driver_sql("SELECT to_regclass('public.alembic_version')").scalar() is None:
        return None
    found = connection.exec_driver_sql("SELECT version_num FROM public.alembic_version")
    return found.scalar()


def _read_tables(connection: sa.Connection) -> tuple[dict[str, list[TableColumn]], dict[str, int]]:
    """Return the columns and the number of pages of each table.

    Raises:
        NotFoundError: There are no tables.
    """
    found: dict[str, list[TableColumn]] = {}
    pages: dict[str, int] = {}
    for table, name, kind, nullable, size in connection.exec_driver_sql(_COLUMNS):
        found.setdefault(table, []).append(TableColumn(name, kind, nullable))
        pages[table] = size
    if not found:
        raise NotFoundError(
            "The database has no tables in the schema aspen; there is nothing to copy.",
            hint="Check the target: aspencli db status",
        )
    return found, pages


def _pieces(query: str, pages: int, *, ranges: bool) -> tuple[str, ...]:
    if not ranges or pages <= _PAGES:
        return (query,)
    starts = list(range(0, pages, _PAGES))
    pieces = []
    for start, end in zip(starts, [*starts[1:], None], strict=True):
        until = f" AND t.ctid < '({end},0)'" if end is not None else ""
        pieces.append(f"{query} AND t.ctid >= '({start},0)'{until}")
    return tuple(pieces)


def find_groups(database: Database, names: Sequence[str]) -> tuple[int, ...]:
    """Return the IDs of groups named by prefix, name, or ID.

    Raises:
        NotFoundError: There is no such group.
    """
    with database.connected() as connection:
        groups = list(connection.exec_driver_sql(_GROUPS))
    known = {key: one.id for one in groups for key in (str(one.id), one.name, one.prefix)}
    for name in names:
        if name not in known:
            raise not_found("group", name, (one.prefix for one in groups))
    return tuple(sorted({known[name] for name in names}))


def require_user(database: Database, email: str, groups: Sequence[int]) -> None:
    """Check that a user who is to be kept will be in the copy.

    Raises:
        NotFoundError: There is no such user, or not in the chosen groups.
    """
    query = sa.text("SELECT id FROM aspen.users WHERE lower(email) = :email")
    roles = sa.text("SELECT group_id FROM aspen.user_roles WHERE user_id = :user")
    with database.connected(transaction=True) as connection:
        user = connection.scalar(query, {"email": email.lower()})
        if user is None:
            raise NotFoundError(
                f"No user has the e-mail address {email}; nothing was written.",
                hint="List users: aspencli users list",
            )
        found = set(connection.scalars(roles, {"user": user}))
    if groups and not found.intersection(groups):
        raise NotFoundError(
            f"{email} has no role in the chosen groups, and would not be in the copy; "
            "nothing was written.",
            hint="Add a group of that user to --groups.",
        )


@contextmanager
def open_snapshot(
    database: Database, rules: Rules, choice: Choice, *, workers: int = WORKERS
) -> Iterator[Snapshot]:
    """Open a read-only snapshot of a database, with a new key for its hashes.

    Raises:
        RefusedError: A column has no masking rule.
        AspenError: The snapshot cannot be read.
    """
    database = database.with_limits(statement_ms=0)
    with ExitStack() as exits:
        first = _connect(exits, database)
        pooled = bool(getattr(driver_of(first), "pooled", False))
        if choice.scrub and not pooled:
            first, database = _keyed(exits, first, database)
        connections = [first]
        snapshot = None
        if not pooled and (not choice.scrub or _has_key(first)):
            snapshot = first.exec_driver_sql("SELECT pg_export_snapshot()").scalar()
        if snapshot is not None:
            for _ in range(workers - 1):
                other = _connect(exits, database, start=f"SET TRANSACTION SNAPSHOT '{snapshot}'")
                connections.append(other)
        elif choice.scrub:
            first.exec_driver_sql(_escaped(MAKE_KEY))
        if choice.scrub:
            for each in connections:
                _set_days(each)
        yield Snapshot(connections, rules, choice)


def _keyed(
    exits: ExitStack, first: sa.Connection, database: Database
) -> tuple[sa.Connection, Database]:
    """Return a connection with a key and its database; the same ones if the server refuses."""
    keyed = _with_key(database, secrets.token_hex(32))
    try:
        first_keyed = _connect(exits, keyed)
    except OperationalError as error:
        if not _REFUSES_OPTIONS.search(str(error)):
            raise
        return first, database
    first.close()
    database.dispose()
    return first_keyed, keyed


def _set_days(connection: sa.Connection) -> None:
    """Derive from the session's key by how many days dates are shifted.

    Raises:
        RefusedError: The session has no key.
    """
    connection.exec_driver_sql(_escaped(SET_DAYS))
    if not _has_key(connection):
        raise RefusedError(
            "The server session did not keep the key of the copy; nothing was written.",
            hint="Connect to the server directly instead of through the pooler.",
        )


def _connect(exits: ExitStack, database: Database, *, start: str | None = None) -> sa.Connection:
    """Return a connection with an open transaction; it sees one state of the database."""
    exits.callback(database.dispose)
    engine = database.engine.execution_options(isolation_level="REPEATABLE READ")
    connection = exits.enter_context(engine.connect())
    connection.exec_driver_sql(start or "SELECT 1")
    if connection.exec_driver_sql("SHOW transaction_read_only").scalar() != "on":
        raise AspenError("The session that reads the database is not read-only; nothing was read.")
    return connection


def _with_key(database: Database, key: str) -> Database:
    """Return the same database with sessions that have the key from their start.

    Startup options are in no log, unlike the text and the parameters of statements.
    """
    options = first_text(database.url.query.get("options"))
    url = database.url.update_query_dict({"options": f"{options} -c {KEY}={key}".strip()})
    return Database(url, policy=database.policy, route=database.route)


def _has_key(connection: sa.Connection) -> bool:
    key = connection.exec_driver_sql(f"SELECT length(current_setting('{KEY}', true))").scalar()
    return key == 64  # noqa: PLR2004 - SHA-256 in hexadecimal


def _escaped(statement: str) -> str:
    """Return a statement as the driver expects one with parameters, of which there are none."""
    return statement.replace("%", "%%")
