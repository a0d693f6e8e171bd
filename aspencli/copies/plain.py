"""Plain SQL, as the old service's dumps are: statements, and COPY blocks with the rows.

It runs in a new database like any restore, so an error changes nothing. Errors name lines of the
file. Statements that would leave that database are refused, and those about roles are skipped,
because the roles belong to another server.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import psycopg2
import sqlalchemy as sa

from aspen.database import alembic
from aspen.database.cancel import driver_of
from aspencli import files
from aspencli.copies.dump import zstd
from aspencli.copies.load import Loaded, require_clean, require_revision
from aspencli.copies.places import S3, Place, find_place
from aspencli.errors import AspenError, BadInputError, NotFoundError

if TYPE_CHECKING:
    from aspen.database.engine import Database
    from aspencli.deployments.aws import Aws

_NAMES = re.compile(r"\.sql(\.(gz|zst|xz|bz2))?$", re.I)
_MOST_ERRORS = 20
_MOST_BYTES = 64 << 20  # of a statement
_COPY = re.compile(rb"\s*copy\s+.*\s+from\s+stdin\b", re.I | re.S)
_ARCHIVE = b"PGDMP"
_IGNORED = re.compile(
    r"alter\s[^;]*\sowner\s+to\b|grant\b|revoke\b|alter\s+default\s+privileges\b|set\s+role\b"
    r"|set\s+session\s+authorization\b|set\s+transaction_timeout\b|set\s+idle_session_timeout\b"
    r"|(create|comment\s+on)\s+extension\s+(if\s+not\s+exists\s+)?plpgsql\b|comment\s+on\s+extension\b"
    r"|create\s+schema\s+public\s*;|comment\s+on\s+schema\s+public\b",
    re.I,
)
_REFUSED = re.compile(
    r"(create|alter|drop|comment\s+on)\s+(database|role|user|group|tablespace|server|subscription)\b"
    r"|alter\s+system\b|copy\s[^;]*\s(from|to)\s+(program\b|')|do\b|load\b",
    re.I,
)
_ALLOWED_META = re.compile(rb"\\(un)?restrict\b")
_SPECIAL = re.compile(r"--|/\*|\*/|'|\"|\$[A-Za-z_0-9]*\$|;|\S")
_LINE = re.compile(r"COPY [^,]+, line (\d+)")


def is_plain(name: str) -> bool:
    """Return True if a place is a file with plain SQL, by its name."""
    if name.startswith(S3):
        return _NAMES.search(name) is not None
    return _NAMES.search(name) is not None or files.expand(name).is_file()


@contextmanager
def open_plain(name: str, aws: Callable[[], Aws]) -> Iterator[IO[bytes]]:
    """Open a file with plain SQL, on this machine or in S3, and unpack it.

    Raises:
        NotFoundError: It does not exist.
        BadInputError: It is an archive in a format of pg_dump.
    """
    if name.startswith(S3):
        folder, _, file = name.rpartition("/")
        place = find_place(folder, aws)
        with _checked(place, file) as source:
            yield _unpacked(io.BufferedReader(_Raw(source), 1 << 18), name)
        return
    try:
        with Path(files.expand(name)).open("rb") as opened:
            yield _unpacked(opened, name)
    except FileNotFoundError as error:
        raise NotFoundError(f"No such file: {name}", hint="Check the name.") from error
    except IsADirectoryError as error:
        raise BadInputError(f"{name} is a folder.", hint="Give a file in it.") from error


@contextmanager
def _checked(place: Place, file: str) -> Iterator[Any]:
    with place.open(file) as source:
        yield source


class _Raw(io.RawIOBase):
    def __init__(self, source: Any):
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _unpacked(file: Any, name: str) -> IO[bytes]:
    start = file.peek(6)[:6]
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value] # it is such a file
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        unpacked: IO[bytes] = zstd().ZstdFile(file)
        return unpacked
    if start.startswith(b"\xfd7zXZ"):
        return lzma.LZMAFile(file)
    if start.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if start.startswith(_ARCHIVE):
        raise BadInputError(
            f"{name} is an archive of pg_dump, not plain SQL.",
            hint=f"Convert it: pg_restore --no-owner --no-privileges -f plain.sql {name}",
        )
    opened: IO[bytes] = file
    return opened


@dataclass
class _Splitter:
    """Finds the ends of statements, line by line."""

    quote: str = ""  # the open quote, or the tag of an open dollar quote
    escapes: bool = False
    depth: int = 0  # of block comments
    last: str = field(default="", init=False)

    def ends(self, line: str) -> bool:
        """Return True if a statement ends with the line."""
        position = 0
        while position < len(line):
            if self.quote:
                position = self._close(line, position)
                continue
            found = _SPECIAL.search(line, position)
            if found is None:
                break
            position, mark = found.end(), found[0]
            if self.depth:
                self.depth += {"/*": 1, "*/": -1}.get(mark, 0)
            elif mark == "--":
                break
            elif mark == "/*":
                self.depth = 1
            else:
                if mark in {"'", '"'} or (mark.startswith("$") and len(mark) > 1):
                    self.quote = mark
                    self.escapes = mark == "'" and self.last in {"e", "E"}
                self.last = mark
        return self.last == ";" and not self.quote and not self.depth

    def _close(self, line: str, position: int) -> int:
        while (end := line.find(self.quote, position)) >= 0:
            slashes = len(line[:end]) - len(line[:end].rstrip("\\"))
            position = end + len(self.quote)
            if self.escapes and slashes % 2:
                continue
            # Two quotes in a row are one in the string, which goes on as it began.
            self.quote, self.last = "", "e" if self.escapes else "x"
            return position
        return len(line)


class PlainRun:
    """A run of plain SQL in an empty database.

    Attributes:
        errors: What failed, with lines.
        rows: The number of rows loaded by COPY blocks.
        skipped: The number of statements that were skipped.
    """

    def __init__(self, driver: Any, file: IO[bytes], tick: Callable[[int], None]):
        self._driver = driver
        self._file = file
        self._tick = tick
        self._line = 0
        self.errors: list[str] = []
        self.rows = 0
        self.skipped = 0

    def run(self) -> None:
        """Run all statements; stop after some errors."""
        while len(self.errors) < _MOST_ERRORS and (found := self._statement()) is not None:
            start, statement = found
            if _COPY.match(statement):
                self._copy(start, statement)
            else:
                self._execute(start, statement.decode(errors="replace"))

    def _next(self) -> bytes:
        line = self._file.readline()
        if line:
            self._line += 1
        return line

    def _statement(self) -> tuple[int, bytes] | None:
        """Return the next statement and its first line."""
        lines: list[bytes] = []
        size, start, splitter = 0, 0, _Splitter()
        while line := self._next():
            text = line.strip()
            if not lines:
                if not text or text.startswith(b"--"):
                    continue
                if text.startswith(b"\\"):
                    self._meta(text)
                    continue
                start = self._line
            lines.append(line)
            size += len(line)
            if size > _MOST_BYTES:
                self._fail(start, "the statement is larger than 64 MiB")
                return None
            if splitter.ends(line.decode(errors="replace")):
                break
        return (start, b"".join(lines)) if lines else None

    def _meta(self, text: bytes) -> None:
        if not _ALLOWED_META.match(text):
            command = text.split()[0].decode(errors="replace")
            self._fail(self._line, f"psql's command {command} is not allowed here")

    def _fail(self, line: int, reason: str) -> None:
        self.errors.append(f"line {line}: {reason}")

    def _execute(self, start: int, statement: str) -> None:
        text = statement.strip()
        if _IGNORED.match(text):
            self.skipped += 1
            return
        if _REFUSED.match(text):
            words = " ".join(text.split()[:3])
            self._fail(start, f"{words} is not allowed here, because it is not about this database")
            return
        try:
            with self._driver.cursor() as cursor:
                cursor.execute(text)
        except psycopg2.Error as error:
            if self._driver.closed:
                raise
            self._fail(start, _reason(error))

    def _copy(self, start: int, statement: bytes) -> None:
        block = _Block(self._next)
        try:
            with self._driver.cursor() as cursor:
                cursor.copy_expert(statement.decode(), block, 1 << 18)
                self.rows += cursor.rowcount
        except psycopg2.Error as error:
            if self._driver.closed:
                raise
            found = _LINE.search(error.diag.context or "")
            first = start + statement.rstrip().count(b"\n")
            self._fail(first + int(found[1]) if found else start, _reason(error))
        while block.read(1 << 18):  # to its end, whatever failed
            pass
        if not block.is_complete:
            self._fail(start, "the file ends within these rows")
        self._tick(self.rows)


class _Block:
    """The rows of a COPY block."""

    def __init__(self, following: Callable[[], bytes]):
        self._following = following
        self._rest = b""
        self._is_over = False
        self.is_complete = False

    def read(self, size: int = 1 << 18, /) -> bytes:
        data, length = [self._rest], len(self._rest)
        while length < size and not self._is_over:
            line = self._following()
            if line.rstrip(b"\r\n") == b"\\.":
                self._is_over = self.is_complete = True
            elif not line:
                self._is_over = True
            else:
                data.append(line)
                length += len(line)
        whole = b"".join(data)
        self._rest = whole[size:]
        return whole[:size]


def _reason(error: psycopg2.Error) -> str:
    return (error.diag.message_primary or str(error)).strip().partition("\n")[0]


def load_plain(
    new: Database, file: IO[bytes], name: str, tick: Callable[[int], None] = lambda _done: None
) -> Loaded:
    """Run plain SQL in an empty database, and check what came of it.

    Raises:
        BadInputError: Statements failed; they are listed with their lines.
    """
    with new.engine.connect() as connection:
        plain = connection.execution_options(isolation_level="AUTOCOMMIT")
        plain.exec_driver_sql("SELECT 1")
        run = PlainRun(driver_of(plain), file, tick)
        try:
            run.run()
        except (OSError, EOFError, lzma.LZMAError, zstd().ZstdError) as error:
            raise BadInputError(
                f"Cannot read {name}: {error}; nothing was written.",
                hint="The file is damaged. Copy it again.",
            ) from error
        finally:
            connection.invalidate()  # it may have any settings by now
    if run.errors:
        raise _faulty(name, run.errors)
    return _outcome(new, run, name)


def _faulty(name: str, errors: Sequence[str]) -> BadInputError:
    count = f"at least {_MOST_ERRORS}" if len(errors) >= _MOST_ERRORS else len(errors)
    noun = "error" if len(errors) == 1 else "errors"
    return BadInputError(
        f"{name} has {count} {noun}; nothing was written.",
        hint="Fix the lines listed above, then run the command again.",
        details=errors,
    )


def _outcome(new: Database, run: PlainRun, name: str) -> Loaded:
    with new.engine.connect() as connection:
        query = sa.text("SELECT count(*) FROM pg_tables WHERE schemaname = 'aspen'")
        tables = int(connection.scalar(query) or 0)
        revision = alembic.recorded_revision(connection) if tables else None
    if not tables:
        raise BadInputError(
            f"{name} creates no tables in the schema aspen; nothing was written.",
            hint="Check the file: it is not a dump of this service, or has only a part of it.",
        )
    known = require_revision(revision, name)
    with new.engine.connect() as connection:
        plain = connection.execution_options(isolation_level="AUTOCOMMIT")
        plain.exec_driver_sql("ANALYZE")
    try:
        require_clean(new, known)
    except AspenError as error:
        raise BadInputError(error.message, hint="The schema was changed by hand.") from error
    return Loaded(tables, run.rows, known)
