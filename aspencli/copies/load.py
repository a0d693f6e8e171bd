"""Filling a new database: rows first, then keys and indexes, then the checks.

Our own migrations create the schema. Its keys and indexes are dropped while the rows are loaded,
and created again from their own definitions, which is several times as fast as updating them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from aspen.database import migrate
from aspen.database.cancel import driver_of
from aspen.database.errors import MigrationError
from aspen.database.settings import sql_literal
from aspencli.admin.databases import name_of
from aspencli.copies.crew import Crew
from aspencli.copies.manifest import LeftOut
from aspencli.copies.tree_json import UnusableTreeError
from aspencli.errors import AspenError, BadInputError, ConflictError
from aspencli.text import counted

if TYPE_CHECKING:
    from aspen.database.engine import Database
    from aspencli.copies.tree_files import TreeStore

_READ = 1 << 18
_MEMORY = "SET maintenance_work_mem = '256MB'"
_CONSTRAINTS = """
SELECT conrelid::regclass::text AS owner, conname AS name, contype::text AS kind,
       pg_get_constraintdef(oid) AS definition
  FROM pg_catalog.pg_constraint
 WHERE connamespace = 'aspen'::regnamespace AND contype IN ('p', 'u', 'x', 'f') AND conparentid = 0
 ORDER BY conrelid, contype, conname
"""
_INDEXES = """
SELECT i.indexrelid::regclass::text AS name, i.indrelid::regclass::text AS owner,
       pg_get_indexdef(i.indexrelid) AS definition
  FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
 WHERE c.relnamespace = 'aspen'::regnamespace
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = i.indexrelid)
 ORDER BY 1
"""
_OWNED = """
SELECT s.relname AS sequence, c.relname AS owner, a.attname AS name
  FROM pg_catalog.pg_class s
  JOIN pg_catalog.pg_depend d ON d.objid = s.oid AND d.deptype IN ('a', 'i')
       AND d.classid = 'pg_class'::regclass
  JOIN pg_catalog.pg_class c ON c.oid = d.refobjid
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
 WHERE s.relkind = 'S' AND s.relnamespace = 'aspen'::regnamespace
"""

_TREES = "(SELECT entity_id FROM aspen.phylo_trees)"
_WITHOUT_TREES = (
    "DELETE FROM aspen.phylo_tree_samples",
    f"DELETE FROM aspen.workflow_inputs WHERE entity_id IN {_TREES}",
    f"DELETE FROM aspen.entities WHERE id IN {_TREES}",
    "DELETE FROM aspen.phylo_trees",
)
"""The statements that leave trees out, before there are any keys."""


@dataclass(frozen=True)
class IncomingTable:
    """A table to load.

    Attributes:
        columns: Its columns, in the order of the rows.
        rows: The number of rows to expect; None if it is not known.
        weight: Its size, to load large tables first.
        pieces: Opens each piece of its rows, as something with ``read``; the number is a worker's.
    """

    name: str
    columns: tuple[str, ...]
    rows: int | None
    weight: int
    pieces: Sequence[Callable[[int, Crew], AbstractContextManager[Any]]]


@dataclass(frozen=True)
class IncomingTree:
    """The file of a tree.

    Attributes:
        id: The ID of the tree.
        open: Opens it, as something with ``read``; the number is a worker's.
    """

    id: int
    open: Callable[[int, Crew], AbstractContextManager[Any]]


class Feed(Protocol):
    """The rows to load, from a dump or straight from another database."""

    @property
    def revision(self) -> str | None:
        """Return the revision of the schema that they are for."""

    @property
    def tables(self) -> Sequence[IncomingTable]:
        """Return the tables."""

    @property
    def trees(self) -> Sequence[IncomingTree]:
        """Return the files of trees."""

    @property
    def left_out(self) -> Sequence[LeftOut]:
        """Return the trees whose files are known to be missing."""

    @property
    def workers(self) -> int:
        """Return the number of tables that can be read at a time."""

    def finish(self) -> Mapping[str, int]:
        """Return the last values of sequences, once all rows are read; nothing is read later."""


@dataclass(frozen=True)
class Loaded:
    """The result of loading.

    Attributes:
        tree_files: The number of files of trees.
        left_out: The trees whose files are not there.
    """

    tables: int
    rows: int
    revision: str
    tree_files: int = 0
    left_out: tuple[LeftOut, ...] = ()


def require_revision(revision: str | None, what: str) -> str:
    """Return the revision of the rows, if our migrations can create its schema.

    Raises:
        ConflictError: They cannot.
    """
    if revision is None or not migrate.has(revision):
        raise ConflictError(
            f"{what} has the schema of revision {revision or '(none)'}, which this version of "
            "aspencli does not know; nothing was written.",
            hint="A newer version made it, so update aspencli. A database with an older revision "
            "has to be upgraded first.",
        )
    return revision


def load(
    new: Database,
    feed: Feed,
    *,
    store: TreeStore | None = None,
    drop_trees: bool = False,
    tick: Callable[[int], None] = lambda _done: None,
) -> Loaded:
    """Create the schema in an empty database, and load the rows and the files of trees.

    Args:
        new: The database.
        feed: What to load.
        store: The place for the files of trees; None if there are none.
        drop_trees: True to leave trees out.
        tick: Called with the number of rows that are loaded.

    Raises:
        AspenError: The rows do not fit the schema, or are fewer or more than they should be.
    """
    revision = require_revision(feed.revision, "The data")
    try:
        migrate.upgrade(new.engine, revision)
    except MigrationError as error:
        raise AspenError(error.message, hint=error.hint) from error
    taken = _take_off(new)
    tables, workers = len(feed.tables), feed.workers
    if store is not None:
        store.begin(name_of(new))
    rows, left_out = _load_rows(new, feed, store, tick)
    sequences = feed.finish()
    if drop_trees:
        rows -= _execute(new, *_WITHOUT_TREES)
    elif store is not None:
        _execute(new, _place_of_trees(store))
    _put_back(new, taken, workers)
    _set_sequences(new, sequences)
    require_clean(new, revision)
    files = len(feed.trees) - len(left_out) if store is not None else 0
    return Loaded(tables, rows, revision, files, (*feed.left_out, *left_out))


def require_clean(new: Database, revision: str) -> None:
    """Check that a database is as `db check` wants it, if it is at the newest revision.

    Raises:
        AspenError: It is not.
    """
    if revision != migrate.head():
        return
    if found := migrate.check(new.engine):
        raise AspenError(
            f"The new database differs from the models in {counted(len(found), 'place')}; "
            "nothing was changed.",
            hint="This is a bug in aspencli, or the dump was made by another program.",
            details=found,
        )


@dataclass(frozen=True)
class _TakenOff:
    keys: Mapping[str, Sequence[str]]  # the statements that create keys and indexes, by table
    references: Sequence[str]  # those that create foreign keys


def _take_off(new: Database) -> _TakenOff:
    """Drop keys and indexes, and return the statements that create them again."""
    keys: dict[str, list[str]] = {}
    references: dict[str, list[str]] = {}
    drops = []
    with new.engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL search_path = ''")
        for one in connection.exec_driver_sql(_CONSTRAINTS).all():
            name = _quoted(one.name)
            into = references if one.kind == "f" else keys
            into.setdefault(one.owner, []).append(f"ADD CONSTRAINT {name} {one.definition}")
            drops.append((one.kind != "f", f"ALTER TABLE {one.owner} DROP CONSTRAINT {name}"))
        statements = {
            owner: [f"ALTER TABLE {owner} {', '.join(parts)}"] for owner, parts in keys.items()
        }
        for one in connection.exec_driver_sql(_INDEXES).all():
            statements.setdefault(one.owner, []).append(one.definition)
            drops.append((True, f"DROP INDEX {one.name}"))
        for _, statement in sorted(drops):
            connection.exec_driver_sql(statement)
    added = [f"ALTER TABLE {owner} {', '.join(parts)}" for owner, parts in references.items()]
    return _TakenOff(statements, added)


def _execute(new: Database, *statements: str) -> int:
    """Run statements in one transaction, and return the number of rows that they changed."""
    with new.engine.begin() as connection:
        return sum(connection.exec_driver_sql(each).rowcount for each in statements)


def _place_of_trees(store: TreeStore) -> str:
    """Return the statement that makes the rows of trees refer to the files of the copy."""
    bucket, prefix = sql_literal(store.bucket), sql_literal(store.prefix)
    statement = (
        f"UPDATE aspen.phylo_trees SET s3_bucket = {bucket},"
        f" s3_key = {prefix} || entity_id || '.json'"
    )
    return statement.replace("%", "%%")


def _load_rows(
    new: Database, feed: Feed, store: TreeStore | None, tick: Callable[[int], None]
) -> tuple[int, list[LeftOut]]:
    crew = Crew()
    left_out: list[LeftOut] = []

    def upload(tree: IncomingTree, store: TreeStore, worker: int) -> None:
        try:
            with tree.open(worker, crew) as source, store.file(tree.id) as sink:
                while data := source.read(_READ):
                    crew.check()
                    sink.write(data)
        except UnusableTreeError as error:
            left_out.append(LeftOut(tree.id, str(error)))

    tables = sorted(feed.tables, key=lambda table: -table.weight)
    tasks = [partial(_fill, new, crew, table) for table in tables]
    if store is not None:
        tasks += [partial(upload, tree, store) for tree in feed.trees]
    crew.run(tasks, feed.workers, tick)
    return crew.done, sorted(left_out, key=lambda one: one.tree)


def _fill(new: Database, crew: Crew, table: IncomingTable, worker: int) -> None:
    with new.engine.connect() as connection:
        connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
        driver = driver_of(connection)
        crew.using(driver)
        columns = ", ".join(map(_quoted, table.columns))
        target = f"aspen.{_quoted(table.name)}"
        # Rows of a table that was emptied in the same transaction can be written as frozen,
        # which spares the server from writing all pages once more later.
        connection.exec_driver_sql(f"TRUNCATE {target}")
        rows = 0
        for piece in table.pieces:
            with piece(worker, crew) as source, driver.cursor() as cursor:
                rows += _copy_in(cursor, f"COPY {target} ({columns}) FROM STDIN (FREEZE)", source)
            crew.add(rows)
        if table.rows is not None and rows != table.rows:
            raise BadInputError(
                f"The table {table.name} has {rows:,} rows in the dump, but its manifest says "
                f"{table.rows:,}; nothing was written.",
                hint="Copy the dump again from where it was made, or make a new one.",
            )
        connection.commit()


def _copy_in(cursor: Any, statement: str, source: Any) -> int:
    """Load rows, and return their number; an error of the source matters more than the server's."""
    reader = _Reader(source)
    try:
        cursor.copy_expert(statement, reader, _READ)
    except Exception as error:
        if reader.failure is not None:
            raise reader.failure from error
        raise
    return int(cursor.rowcount)


class _Reader:
    def __init__(self, source: Any):
        self._source = source
        self.failure: Exception | None = None

    def read(self, size: int = _READ, /) -> bytes:
        try:
            data: bytes = self._source.read(size)
        except Exception as error:
            self.failure = error
            raise
        return data


def _put_back(new: Database, taken: _TakenOff, workers: int) -> None:
    crew = Crew()

    def create(statements: Sequence[str], _worker: int) -> None:
        with new.engine.connect() as connection:
            crew.using(driver_of(connection))
            connection.exec_driver_sql(_MEMORY)
            for statement in statements:
                _create(connection, statement)
            connection.commit()

    crew.run([partial(create, each) for each in taken.keys.values()], max(workers, 2))
    with new.engine.connect() as connection:
        plain = connection.execution_options(isolation_level="AUTOCOMMIT")
        plain.exec_driver_sql("ANALYZE")
    # Two at a time could wait for each other: each one locks both of its tables.
    crew.run([partial(create, list(taken.references))], 1)


def _create(connection: sa.Connection, statement: str) -> None:
    try:
        connection.exec_driver_sql(statement.replace("%", "%%"))
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()
        raise BadInputError(
            f"The rows break a rule of the schema: {reason[0]}; nothing was written.",
            hint="The database that they come from breaks it too, or the dump is incomplete.",
        ) from error


def _set_sequences(new: Database, known: Mapping[str, int]) -> None:
    """Set each sequence behind the last value that is in use, or was."""
    with new.engine.begin() as connection:
        for one in connection.exec_driver_sql(_OWNED).all():
            sequence, table = f"aspen.{_quoted(one.sequence)}", f"aspen.{_quoted(one.owner)}"
            connection.exec_driver_sql(
                f"SELECT setval('{sequence}', greatest(max({_quoted(one.name)}),"
                f" {int(known.get(one.sequence, 0))}, 1),"
                f" greatest(max({_quoted(one.name)}), {int(known.get(one.sequence, 0))}) > 0)"
                f" FROM {table}"
            )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
