"""Replacing a database by one that is built beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from aspencli.admin import databases
from aspencli.copies.beside import building, drop_leftovers, is_new, prefix_of_new, swap
from aspencli.copies.load import Loaded
from aspencli.copies.tree_files import FOLDER, prefix_of
from aspencli.errors import AspenError

if TYPE_CHECKING:
    from aspen.database.engine import Database
    from aspencli.copies.tree_files import TreeStore

_FILES = sa.text("""
SELECT DISTINCT s3_bucket, substring(s3_key FROM '^copies/[^/]+/') FROM aspen.phylo_trees
 WHERE starts_with(s3_key, :own) AND s3_key LIKE 'copies/%/%'
""")


@dataclass(frozen=True)
class Replaced:
    """The result of a replacement.

    Attributes:
        replaced: True if there was a database before.
        leftovers: The databases of killed runs that were dropped first.
        left: Settings and privileges that could not be carried over, as SQL.
        stale: Files of the replaced database's trees that could not be removed.
    """

    loaded: Loaded
    replaced: bool
    leftovers: tuple[str, ...]
    left: tuple[str, ...]
    stale: tuple[str, ...] = ()


def replace(
    database: Database,
    build: Callable[[Database], Loaded],
    *,
    store: TreeStore | None = None,
    force: bool = False,
) -> Replaced:
    """Replace a database by a new one, which ``build`` fills.

    Args:
        database: The database.
        build: Fills the new one, and writes the files of its trees.
        store: The place for the files of trees; None if there are none.
        force: True to terminate other sessions of the database at the end.

    Raises:
        ConflictError: Other sessions use the database, and ``force`` is not set.
        AspenError: The new database could not be filled; the old one is unchanged.
    """
    files = _Files(database, store)
    leftovers = drop_leftovers(database, files.remove_of_leftover)
    with building(database) as new:
        try:
            loaded = build(new)
            earlier = files.of(database)
            swapped = swap(database, new, force=force, retire=lambda: files.remove(earlier))
        except BaseException as error:
            if store is not None:
                _discard(store, new, error)
            raise
    return Replaced(loaded, swapped.replaced, tuple(leftovers), swapped.left, files.left)


class _Files:
    """The files that earlier copies into a database wrote, and that no database refers to."""

    def __init__(self, database: Database, store: TreeStore | None):
        self._database = database
        self._store = store
        self._left: set[str] = set()

    @property
    def left(self) -> tuple[str, ...]:
        """Return the places of those that could not be removed."""
        return tuple(sorted(self._left))

    def of(self, database: Database) -> set[tuple[str, str]]:
        """Return the buckets and prefixes of the files that a database refers to."""
        if not databases.exists(database):
            return set()
        own = FOLDER + prefix_of_new(self._database)
        with database.connected() as reader:
            if not reader.scalar(sa.text("SELECT to_regclass('aspen.phylo_trees') IS NOT NULL")):
                return set()
            return {(bucket, prefix) for bucket, prefix in reader.execute(_FILES, {"own": own})}

    def remove(self, files: set[tuple[str, str]]) -> None:
        """Remove files."""
        for bucket, prefix in sorted(files):
            place = f"s3://{bucket}/{prefix}"
            self._left.discard(place)
            try:
                if self._store is None or self._store.bucket != bucket:
                    self._left.add(place)
                else:
                    self._store.remove(prefix)
            except AspenError:
                self._left.add(place)

    def remove_of_leftover(self, name: str) -> None:
        """Remove those of a database that a killed run left: a new one, or the replaced one."""
        if self._store is not None and is_new(name):
            self.remove({(self._store.bucket, prefix_of(name))})  # it may have no rows yet
            return
        old = self._database.neighbor(name)
        try:
            self.remove(self.of(old) - self.of(self._database))
        finally:
            old.dispose()
            self._database.dispose()


def _discard(store: TreeStore, new: Database, error: BaseException) -> None:
    """Remove the files of a copy that failed; if that fails too, the error names them."""
    if not store.prefix:
        return
    try:
        # An interrupt can arrive when the new database already has the name, and so is in use.
        if databases.exists(new):
            store.discard()
    except (AspenError, DBAPIError):
        left = f"Files of trees may be left in s3://{store.bucket}/{store.prefix}"
        if isinstance(error, AspenError):
            error.details = (*error.details, left)
        else:
            error.add_note(left)
