"""Undo files: the values that a run wrote, and the values they replaced."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, ClassVar, NamedTuple, Protocol

from aspen.database.bulk.columns import (
    COLUMNS,
    GROUP_COLUMNS,
    GROUPS,
    IN_GROUP,
    RENAME,
    SAMPLES,
    USER_COLUMNS,
    USERS,
)
from aspen.database.bulk.spec import KEEP, BulkColumn, Cell, RowRequest, Spec, Value
from aspen.database.bulk.spec import BulkTable as Stored
from aspencli import files
from aspencli.changes.runs import Place
from aspencli.errors import AspenError, BadInputError
from aspencli.files import write_failure
from aspencli.tabular.reading import open_table
from aspencli.tabular.source import Observer
from aspencli.tabular.table import Fault, Table, locate
from aspencli.text import guard, unguard

_MARK = "# aspencli undo "
STEPS_MARK = '{"format": "aspencli undo file with steps"'
"""The beginning of an undo file of the other format, which has steps on both sides."""
_LONGEST_MARK = 10_000  # bytes
_NUMBER = re.compile(r"\d{1,18}", re.ASCII).fullmatch
# Dates that PostgreSQL can hold and Python cannot.
_FAR_DATE = re.compile(r"-?infinity|\d{5,7}-\d\d-\d\d|\d{4,}-\d\d-\d\d BC", re.ASCII).fullmatch
_FIELDS: dict[str, tuple[type, ...]] = {
    "target": (str,),
    "group_id": (int, type(None)),
    "made": (str,),
    "rows": (int,),
    "of": (str,),
    "columns": (list,),
    "run": (str,),
    "place": (dict,),
}


@dataclass(frozen=True)
class RestorableKind:
    """A kind of rows that undo files with several columns can restore."""

    table: Stored
    columns: Mapping[str, BulkColumn]
    creates: bool = False  # the run may have created or deleted rows
    within: BulkColumn | None = None  # locates values stored in other tables


KINDS = {
    "samples": RestorableKind(SAMPLES, COLUMNS),
    "users": RestorableKind(USERS, USER_COLUMNS, creates=True, within=IN_GROUP),
    "groups": RestorableKind(GROUPS, GROUP_COLUMNS, creates=True),
}
"""The kinds, by the command group that undoes them."""


class UndoHead(Protocol):
    """The first line of an undo file of any format, and what its name is made of."""

    @property
    def target(self) -> str:
        """Return the label of the target."""

    @property
    def of(self) -> str:
        """Return the kind of rows."""

    @property
    def group_id(self) -> int | None:
        """Return the group that the rows belong to, if they belong to one."""

    @property
    def suffix(self) -> str:
        """Return the end of the file's name."""

    def line(self) -> str:
        """Return the first line of the file."""


@dataclass(frozen=True)
class UndoOrigin:
    """The origin of an undo file: where and when its rows were written."""

    target: str
    group_id: int | None  # None if the table has no groups
    made: str  # ISO 8601, UTC
    rows: int  # to detect an incomplete file
    of: str = "samples"  # the kind of rows
    # Empty for a plain rename of samples, whose undo files omit this and ``of``.
    columns: tuple[str, ...] = ()
    run: str | None = None  # that wrote them, if the file names it
    place: Place | None = None  # None in older files
    # For an older plain-rename file without sample IDs.
    by_key: bool = field(default=False, compare=False)

    suffix: ClassVar[str] = ".csv"

    @property
    def spec(self) -> Spec:
        """Return the specification for undoing it."""
        if not self.columns:
            return RENAME.restoring(by_key=self.by_key)
        kind = KINDS[self.of]
        spec = Spec(
            kind.table,
            key=kind.columns[kind.table.label],
            columns=tuple(kind.columns[name] for name in self.columns),
            partial=True,
            creates=kind.creates,
            within=kind.within,
        )
        return spec.restoring()

    def line(self) -> str:
        """Return the first line of the file."""
        fields = asdict(self)
        del fields["by_key"]  # implied by the file's header
        if not self.columns:
            del fields["of"], fields["columns"]
        if not self.columns or self.run is None:
            del fields["run"]
        if self.place is None:
            del fields["place"]
        return f"{_MARK}{json.dumps(fields)}\n"


def origin_of(
    spec: Spec,
    target: str,
    group_id: int | None,
    made: str,
    rows: int,
    run: str | None = None,
    place: Place | None = None,
) -> UndoOrigin:
    """Return the origin to record in the undo file of a run with this specification."""
    if spec.is_plain:
        return UndoOrigin(target, group_id, made, rows, place=place)
    of = next(name for name, kind in KINDS.items() if kind.table == spec.table)
    columns = tuple(column.name for column in spec.columns)
    return UndoOrigin(target, group_id, made, rows, of, columns, run, place)


class UndoRow(NamedTuple):
    """One row of an undo file with several columns."""

    id: int
    label: str  # once the run has written it
    # the new and the old one of each column; None for a column that does not change
    values: Sequence[tuple[Value, Value] | None]
    within: Value = None  # where values in other tables belong, if the specification requires it


def write_undo_rows(spec: Spec, rows: Iterable[UndoRow], file: IO[bytes]) -> None:
    """Write header and rows of an undo file, as `aspen.database.bulk.sql_apply.undo` does."""
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    sides = [f"{side}_{column.name}" for column in spec.columns for side in ("new", "old")]
    within = [spec.within.name] if spec.within else []
    writer.writerow((spec.table.id, spec.table.label, *within, *sides))
    for row in rows:
        cells = [guard(_cell(value)) for pair in row.values for value in pair or (KEEP, KEEP)]
        where = [row.within or ""] if spec.within else []
        writer.writerow((row.id, guard(row.label), *where, *cells))
    text.detach()  # Leave the file open.


def _cell(value: Cell) -> str:
    """Encode a value as `_value` decodes it."""
    if not isinstance(value, str):
        return "" if value is KEEP else "\\N"
    return f"\\{value}" if not value or value.startswith("\\") else value


def write_undo(
    folder: Path,
    origin: UndoHead,
    write_rows: Callable[[IO[bytes]], None],
    path: Path | None = None,
    before_naming: Callable[[], None] = lambda: None,
) -> Path:
    """Write an undo file, and return once it is safely on disk.

    The file gets its name only once it is complete, after a call of ``before_naming``. A path that
    is given must not exist yet; otherwise a name in the folder is generated.

    Raises:
        AspenError: It cannot be written; no partial file is left behind.
    """
    target = path or _free_name(folder, origin)
    part = target.with_name(f".{target.name[:200]}.{secrets.token_hex(6)}")
    try:
        files.make_folder(target.parent)
        try:
            with os.fdopen(files.create(part), "wb") as file:
                file.write(origin.line().encode())
                write_rows(file)
                file.flush()
                os.fsync(file.fileno())
            before_naming()
            _name(part, target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(target, error) from error
    return target


def _name(part: Path, target: Path) -> None:
    # Fails if the name is taken. A hard link would do both, but not every file system has them.
    os.close(files.create(target))
    try:
        part.replace(target)
        files.sync_folder(target.parent)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def has_steps(path: str | Path) -> bool:
    """Return True if a file is an undo file with steps; see `aspencli.identity.undo_file`."""
    try:
        with files.expand(path).open("rb") as file:
            return file.read(len(STEPS_MARK)) == STEPS_MARK.encode()
    except OSError:
        return False


def read_origin(path: str) -> UndoOrigin:
    """Read the origin from the first line of an undo file.

    Raises:
        BadInputError: It is not an undo file.
    """
    try:
        with files.expand(path).open("rb") as file:
            first = file.readline(_LONGEST_MARK).decode()
            header = file.readline(_LONGEST_MARK).strip().split(b",")
        fields = json.loads(first.removeprefix(_MARK)) if first.startswith(_MARK) else {}
        origin = _origin(fields, by_key=SAMPLES.id.encode() not in header)
    except OSError as error:
        raise BadInputError(
            f"Cannot read {path}: {error.strerror}",
            hint="Give an undo file, or a run ID (see: aspencli history).",
        ) from error
    except (ValueError, TypeError, KeyError):
        raise _foreign(path) from None
    return origin


def _origin(fields: dict[str, object], *, by_key: bool) -> UndoOrigin:
    if any(type(value) not in _FIELDS[name] for name, value in fields.items()):
        raise TypeError
    columns = tuple(map(str, fields.pop("columns", ())))  # type: ignore[call-overload]
    place = Place(**fields.pop("place")) if "place" in fields else None  # type: ignore[arg-type]
    origin = UndoOrigin(**fields, columns=columns, place=place, by_key=by_key)  # type: ignore[arg-type]
    # The file may come from a newer version, so check that its kind is known here.
    if (origin.spec.table.scope is None) != (origin.group_id is None):
        raise TypeError
    return origin


def read_undo(
    path: str,
    origin: UndoOrigin,
    fault: Callable[[Fault], None],
    observe: Observer | None = None,
) -> Iterator[RowRequest]:
    """Yield each row of an undo file as a request to restore the previous values."""
    spec = origin.spec
    names = [spec.key.name]
    names += [spec.table.label] if spec.tells_label else []
    names += [spec.within.name] if spec.within else []
    names += [f"{side}_{column.name}" for column in spec.columns for side in ("new", "old")]
    with open_table(path, observe, encoding="utf-8", delimiter=",", preamble=_MARK) as source:
        places = locate(source, names, "an undo file")
        rows, line = 0, source.header_line
        for line, record in source.records(fault):
            rows += 1
            if _is_whole(source, line, record, fault):
                cells = [unguard(record[place]) for place in places]
                request = _request(spec, line, cells)
                if isinstance(request, RowRequest):
                    yield request
                else:
                    fault(request)
        if rows != origin.rows:
            fault(
                Fault(line, "", f"the file has {rows:,} rows, but was written with {origin.rows:,}")
            )
        elif not _ends_with_line(path):  # Its last cell may be truncated.
            fault(Fault(line, "", "is truncated"))


def _ends_with_line(path: str) -> bool:
    with files.expand(path).open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _request(spec: Spec, line: int, cells: Sequence[str]) -> RowRequest | Fault:
    key, *sides = cells
    label = sides.pop(0) if spec.tells_label else None
    within = sides.pop(0) if spec.within else ""
    if spec.by_id and not _NUMBER(key):
        return Fault(line, spec.key.name, f"is not a number: {json.dumps(key)}")
    if spec.is_plain:
        return RowRequest(line, key, (sides[1],), (sides[0],), None, label)
    written = [_value(cell) for cell in sides[::2]]
    before = [_value(cell) for cell in sides[1::2]]
    if spec.within and within and not _is_integer(within):
        return Fault(line, spec.within.name, f"is not a number: {json.dumps(within)}")
    for column, new, old in zip(spec.columns, written, before, strict=True):
        if (new is KEEP) != (old is KEEP) or not (_fits(column, new) and _fits(column, old)):
            return Fault(line, column.name, "is damaged")
    return RowRequest(line, key, tuple(before), tuple(written), within or None, label)


def _value(cell: str) -> Cell:
    """Decode a value written by `aspen.database.bulk.sql_apply.undo`."""
    if not cell:
        return KEEP
    if cell == "\\N":
        return None
    return cell.removeprefix("\\")


def _fits(column: BulkColumn, value: Cell) -> bool:
    """Return True if a column can hold a value."""
    if not isinstance(value, str):
        return value is KEEP or column.nullable
    check = _CHECKS.get(column.type)
    return check is None or bool(check(value))


def _is_date(text: str) -> bool:
    if _FAR_DATE(text):
        return True
    try:
        return dt.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _is_integer(text: str) -> bool:
    return bool(_NUMBER(text)) and int(text) < 1 << 31


def _is_time(text: str) -> bool:
    try:
        return dt.datetime.fromisoformat(text).tzinfo is None
    except ValueError:
        return False


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


_CHECKS: dict[str, Callable[[str], object]] = {
    "date": _is_date,
    "boolean": {"true", "false"}.__contains__,
    "integer": _is_integer,
    "timestamp": _is_time,
    "jsonb": _is_json,
}


def _is_whole(source: Table, line: int, record: list[str], fault: Callable[[Fault], None]) -> bool:
    if len(record) != len(source.header):
        fault(Fault(line, "", "is truncated"))
    elif any("\x00" in cell for cell in record):
        fault(Fault(line, "", "contains a NUL"))
    else:
        return not any(map(source.is_reported, record))
    return False


def _free_name(folder: Path, origin: UndoHead) -> Path:
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S%fZ")
    target = origin.target.replace("/", "-")
    what = origin.of if origin.group_id is None else f"group{origin.group_id}"
    return folder / f"{stamp}-{target}-{what}{origin.suffix}"


def _foreign(path: str) -> BadInputError:
    return BadInputError(
        f"{path} is not an aspencli undo file.",
        hint="Give the undo file that the update printed.",
    )


def _unwritable(path: Path, error: OSError) -> AspenError:
    return AspenError(
        f"Cannot write the undo file {path}: {write_failure(path, error)}; nothing was changed.",
        hint="Free disk space or fix the permissions, or choose another path with --undo-file.",
    )
