"""Undo files: what a bulk rename wrote, and what was there before."""

from __future__ import annotations

import datetime as dt
import json
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from aspencli.errors import AspenError, BadInputError
from aspencli.services.decoding import Fault
from aspencli.services.guards import unguard
from aspencli.services.headers import locate
from aspencli.services.opening import Observer
from aspencli.services.tables import Table, open_table
from aspencli.services.writing import why_not
from db.bulk.rename_types import Request

COLUMNS = ("private_identifier", "new_public_identifier", "old_public_identifier")
_MARK = "# aspencli undo "
_FIELDS = {"target": str, "group_id": int, "made": str, "rows": int}
_LONGEST_MARK = 10_000  # bytes


@dataclass(frozen=True)
class Origin:
    """Where and when the rows of an undo file were written.

    Attributes:
        target: The target's label.
        group_id: The submitting group.
        made: When, ISO 8601, UTC.
        rows: How many rows the file has, which tells whether it is complete.
    """

    target: str
    group_id: int
    made: str
    rows: int


def write_undo(
    folder: Path,
    origin: Origin,
    write_rows: Callable[[IO[bytes]], None],
    path: Path | None = None,
    before_naming: Callable[[], None] = lambda: None,
) -> Path:
    """Write an undo file, and return only when it is safe on disk.

    It has its name only when it is complete.

    Args:
        folder: Where it goes, under a name of its own, unless ``path`` is given.
        origin: What its first line tells.
        write_rows: Writes the header and the rows as CSV.
        path: A file that must not exist yet.
        before_naming: Is called when all is written, and the file is about to get its name.

    Raises:
        AspenError: It cannot be written; nothing of it is left behind.
    """
    target = path or _free_name(folder, origin)
    part = target.with_name(f".{target.name[:200]}.{secrets.token_hex(6)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(f"{_MARK}{json.dumps(asdict(origin))}\n".encode())
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
    # Fails where the name is taken; a link would do that alone, but not every file system has them.
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        part.replace(target)
        _sync_folder(target.parent)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def read_origin(path: str) -> Origin:
    """What the first line of an undo file tells.

    Raises:
        BadInputError: It is no undo file.
    """
    try:
        with Path(path).expanduser().open("rb") as file:
            first = file.readline(_LONGEST_MARK).decode()
        fields = json.loads(first.removeprefix(_MARK)) if first.startswith(_MARK) else {}
        origin = Origin(**fields)
    except OSError as error:
        raise BadInputError(
            f"{path} cannot be read: {error.strerror}", hint="Check its name."
        ) from error
    except (ValueError, TypeError):
        raise _foreign(path) from None
    if any(type(fields[name]) is not kind for name, kind in _FIELDS.items()):
        raise _foreign(path)
    return origin


def read_undo(
    path: str,
    origin: Origin,
    fault: Callable[[Fault], None],
    observe: Observer | None = None,
) -> Iterator[Request]:
    """The rows of an undo file, each as a request to put the old identifier back."""
    with open_table(path, observe, encoding="utf-8", delimiter=",", preamble=_MARK) as source:
        private, new, old = locate(source, COLUMNS, "an undo file")
        rows, line = 0, source.header_line
        for line, record in source.records(fault):
            rows += 1
            if _is_whole(source, line, record, fault):
                lab, written, before = (unguard(record[i]) for i in (private, new, old))
                yield Request(line, lab, before, expected=written)
        if rows != origin.rows:
            fault(Fault(line, "", f"the file ends with {rows:,} rows, and had {origin.rows:,}"))


def _is_whole(source: Table, line: int, record: list[str], fault: Callable[[Fault], None]) -> bool:
    if len(record) != len(COLUMNS):
        fault(Fault(line, "", "is cut short"))
    elif any("\x00" in cell for cell in record):
        fault(Fault(line, "", "holds a NUL"))
    else:
        return not any(map(source.is_told, record))
    return False


def _free_name(folder: Path, origin: Origin) -> Path:
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S%fZ")
    target = origin.target.replace("/", "-")
    return folder / f"{stamp}-{target}-group{origin.group_id}.csv"


def _sync_folder(folder: Path) -> None:
    # Without it a crash of the machine may lose the new file's name, though not its content.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _foreign(path: str) -> BadInputError:
    return BadInputError(
        f"{path} is no undo file of aspencli",
        hint="Give the file that the summary of the bulk update named.",
    )


def _unwritable(path: Path, error: OSError) -> AspenError:
    return AspenError(
        f"the undo file {path} cannot be written: {why_not(path, error)}; nothing was changed",
        hint="Make room or mend permissions, or name another place with --undo-file.",
    )
