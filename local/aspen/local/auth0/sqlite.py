"""The identity provider's state: a SQLite file that only its owner can read."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from aspen.local.auth0.settings import new_secret
from aspencli.errors import BadInputError, RefusedError
from aspencli.files import make_folder, open_own

_FILE = "identity.sqlite3"
_WAIT_SECONDS = 15.0
# Increase this with every change to schema.sql other than a new table.
_VERSION = 1


class Database:
    """The state in a folder, which is created if it does not exist.

    Args:
        folder: The provider's folder.

    Raises:
        BadInputError: The folder cannot be created or used.
        RefusedError: The folder belongs to another user.
    """

    def __init__(self, folder: Path):
        self._path = folder / _FILE
        try:
            make_folder(folder)
            if folder.stat().st_uid != os.geteuid():
                raise RefusedError(
                    f"The identity provider's folder {folder} belongs to another user.",
                    hint="Run the command as that user, or choose another folder.",
                )
            folder.chmod(0o700)
            # SQLite creates its other files with the mode of this one.
            os.close(open_own(self._path))
            with self._connected() as connection:
                _make_tables(connection)
        except (OSError, sqlite3.DatabaseError) as error:
            raise BadInputError(
                f"Cannot open the identity provider's data in {folder}: {error}",
                hint="Fix the permissions, or start over: aspencli local reset",
            ) from error

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Open a read transaction, with one consistent view of the state."""
        with self._connected() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.rollback()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Open a write transaction, exclusive across processes; roll back if the block raises."""
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Keep a connection open, as SQLite cleans up whenever the last one closes."""
        with self._connected() as connection:
            connection.execute("SELECT count(*) FROM secrets").fetchone()
            yield

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._path, timeout=_WAIT_SECONDS, isolation_level=None)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA foreign_keys = ON")
            yield connection
        finally:
            connection.close()


def kept_secret(db: sqlite3.Connection, name: str) -> str:
    """Return one of the provider's own secrets, creating it on first use."""
    db.execute("INSERT INTO secrets VALUES (?, ?) ON CONFLICT DO NOTHING", (name, new_secret()))
    row = db.execute("SELECT value FROM secrets WHERE name = ?", (name,)).fetchone()
    return str(row["value"])


def _make_tables(connection: sqlite3.Connection) -> None:
    made_by = connection.execute("PRAGMA user_version").fetchone()[0]
    if made_by not in {0, _VERSION}:
        raise sqlite3.DatabaseError("created by another version of this program")
    connection.execute("PRAGMA journal_mode = WAL")
    schema = (files("aspen.local.auth0") / "schema.sql").read_text(encoding="utf-8")
    connection.executescript(
        f"BEGIN IMMEDIATE;\n{schema}\nPRAGMA user_version = {_VERSION};\nCOMMIT;"
    )
