"""Undo files of settled rows: the values before and after, one row for each line of JSON."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import IO

from aspencli import files
from aspencli.changes.runs import Place
from aspencli.errors import BadInputError
from aspencli.jobs.models import STARTED, Settlement

_MARK = '{"format": "aspencli undo file of jobs"'
_VERSION = 1


@dataclass(frozen=True)
class JobsOrigin:
    """The origin of an undo file: where and when rows were settled."""

    target: str
    made: str  # ISO 8601, UTC
    rows: int  # to detect an incomplete file
    run: str
    place: Place

    of = "jobs"
    group_id = None
    suffix = ".jsonl"

    def line(self) -> str:
        """Return the first line of the file."""
        fields = json.dumps({"version": _VERSION, **asdict(self)})
        return f"{_MARK}, {fields[1:]}\n"


@dataclass(frozen=True)
class Settled:
    """A row that was settled: the status and the end, before and after."""

    id: int
    before: str
    before_ended: dt.datetime | None
    after: str
    after_ended: dt.datetime | None


def settled(wanted: Settlement) -> Settled:
    """Return what an undo file keeps of a row."""
    return Settled(wanted.row.id, STARTED, wanted.row.ended, wanted.status, wanted.ended)


def write_settled(rows: Iterable[Settled], file: IO[bytes]) -> None:
    """Write the lines after the first."""
    for row in rows:
        values = {
            name: value.isoformat() if isinstance(value, dt.datetime) else value
            for name, value in asdict(row).items()
        }
        file.write(json.dumps(values).encode("ascii") + b"\n")


def read_settled(path: str) -> tuple[JobsOrigin, list[Settled]]:
    """Return the origin and the rows of an undo file.

    Raises:
        BadInputError: The file is something else, or damaged.
    """
    lines = _lines_of(path)
    try:
        head = json.loads(lines[0])
        version = head.pop("version")
        del head["format"]
        origin = JobsOrigin(**{**head, "place": Place(**head["place"])})
        rows = [_read(json.loads(line)) for line in lines[1:]]
    except (ValueError, TypeError, KeyError):
        version, origin, rows = _VERSION, None, []
    if version != _VERSION:
        raise BadInputError(
            f"{path} was written by a newer version of aspencli.", hint="Update aspencli."
        )
    if origin is None or len(rows) != origin.rows:
        raise BadInputError(
            f"The undo file {path} is damaged.", hint="Find an intact copy and use that."
        )
    return origin, rows


def _lines_of(path: str) -> list[str]:
    try:
        lines = files.expand(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(
            f"Cannot read {path}: {error}", hint="List the runs: aspencli history list"
        ) from error
    if not lines or not lines[0].startswith(_MARK):
        raise BadInputError(
            f"{path} is not an undo file of jobs.", hint="List the runs: aspencli history list"
        )
    return lines


def _read(values: dict[str, object]) -> Settled:
    times = {
        name: dt.datetime.fromisoformat(str(values[name])) if values[name] else None
        for name in ("before_ended", "after_ended")
    }
    return Settled(
        int(str(values["id"])),
        str(values["before"]),
        times["before_ended"],
        str(values["after"]),
        times["after_ended"],
    )
