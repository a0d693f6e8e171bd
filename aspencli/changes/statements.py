"""The statements of a console session that may write, without the data in them.

They are in a file of the state folder as soon as they have run, so that those of a session that was
killed are known, too.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aspencli import files
from aspencli.changes.masking import masked_sql

_MOST, _LARGEST = 1_000, 200_000  # different statements, and characters of all of them
_WRITING = re.compile(
    r"""\b(?:insert|update|delete|merge|truncate|create|alter|drop|grant|revoke|copy|do|call
        |comment|reindex|vacuum|refresh|lock|execute|import|reassign|cluster|security)\b""",
    re.IGNORECASE | re.VERBOSE,
)


@dataclass
class Statement:
    """A statement, perhaps of several executions, and what became of them."""

    sql: str  # without texts
    at: str  # when it ran first
    count: int = 0
    failed: int = 0

    def __str__(self) -> str:
        times = f"{self.count:,} times: " if self.count > 1 else ""
        failed = f" ({self.failed:,} failed)" if self.failed else ""
        return f"{times}{self.sql}{failed}"


class StatementLog:
    """The statements of one run.

    Args:
        run: The ID of the run.
    """

    def __init__(self, run: str):
        self.path = path_of(run)
        self.count = 0
        self._known: dict[str, Statement] = {}
        self._size = 0
        self._lock = threading.Lock()

    def add(self, statement: str, *, failed: bool = False, placeholders: bool = False) -> None:
        """Add an execution; what cannot be written is kept in memory.

        Args:
            statement: The statement.
            failed: True if it failed.
            placeholders: True if it may contain placeholders of the driver.
        """
        sql = masked_sql(statement, placeholders=placeholders)
        with self._lock:
            self.count += 1
            found = self._known.get(sql)
            if found is None:
                if len(self._known) >= _MOST or self._size >= _LARGEST:
                    return
                self._size += len(sql)
                found = Statement(sql, dt.datetime.now(dt.UTC).isoformat())
                self._known[sql] = found
                self._append(found)
            found.count += 1
            found.failed += failed

    @property
    def statements(self) -> list[Statement]:
        """Return the different statements, in the order in which they ran first."""
        with self._lock:
            return list(self._known.values())

    @property
    def has_written(self) -> bool:
        """Return True if a statement could write, whatever became of it."""
        return any(_WRITING.search(each.sql) for each in self.statements)

    def close(self) -> str | None:
        """Complete the file, and return its SHA-256, or None if nothing ran.

        Raises:
            OSError: It cannot be written.
        """
        if not self.statements:
            return None
        body = b"".join(map(_line, self.statements))
        files.write_whole(self.path, body)
        return hashlib.sha256(body).hexdigest()

    def _append(self, statement: Statement) -> None:
        try:
            files.make_folder(self.path.parent)
            descriptor = files.open_own(self.path, flags=os.O_WRONLY | os.O_APPEND)
            try:
                os.write(descriptor, _line(statement))
            finally:
                os.close(descriptor)
        except OSError:  # the end of the session says so
            return


def folder() -> Path:
    """Return the folder of these files."""
    return files.state_dir() / "statements"


def path_of(run: str) -> Path:
    """Return the file of a run."""
    return folder() / f"{run}.jsonl"


def read_statements(run: str) -> list[Statement]:
    """Return the statements of a run of this machine; none if there is no file."""
    return list(_read(path_of(run)))


def digest_of_file(run: str) -> str | None:
    """Return the SHA-256 of a run's file, or None if it does not exist."""
    try:
        return hashlib.sha256(path_of(run).read_bytes()).hexdigest()
    except OSError:
        return None


def statement_of(found: Any) -> Statement | None:
    """Return a statement from its JSON object, or None if it is none."""
    try:
        return Statement(
            str(found["sql"]), str(found["at"]), int(found["count"]), int(found["failed"])
        )
    except (LookupError, TypeError, ValueError):
        return None


def _line(statement: Statement) -> bytes:
    return json.dumps(vars(statement)).encode("ascii") + b"\n"


def _read(path: Path) -> Iterator[Statement]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        try:
            found = statement_of(json.loads(line))
        except ValueError:  # cut short
            continue
        if found is not None:
            yield found
