"""Nextstrain's file formats: a tab-separated table of genomes, and one of coordinates."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from aspencli.errors import BadInputError
from aspencli.fasta import open_text
from local.seed.places import Coordinates, Place
from local.seed.records import PUBLIC_PREFIX, RejectedRow

REQUIRED = ("strain", "genbank_accession", "date", "region", "country")
_MISSING = frozenset({"", "?"})
_LONGEST = 128  # the longest identifier that the service accepts, in characters
_LONGEST_STRAIN = _LONGEST - len(f"{PUBLIC_PREFIX}/")
_WHOLE_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_PART_OF_A_DATE = re.compile(r"\d{4}(-(\d{2}|XX))?(-XX)?")
_COORDINATE_COLUMNS = 4


@dataclass(frozen=True)
class Record:
    """A genome in a metadata file.

    Attributes:
        line: The line number in the file.
        private_identifier: The GenBank accession.
        public_identifier: The strain, with the repository's prefix.
        strain: The name of the sequence in a FASTA file.
        day: The collection date.
        place: The place of collection.
        host: The host; None if unknown.
        authors: The authors; empty if unknown.
        laboratory: The laboratory; None if unknown.
        gisaid: The GISAID accession; None if there is none.
        submitted: The submission date; None if the exact day is unknown.
    """

    line: int
    private_identifier: str
    public_identifier: str
    strain: str
    day: date
    place: Place
    host: str | None
    authors: tuple[str, ...]
    laboratory: str | None
    gisaid: str | None
    submitted: date | None


class _RejectedError(Exception):
    def __init__(self, column: str, reason: str):
        super().__init__(reason)
        self.column, self.reason = column, reason


def read_metadata(path: Path) -> Iterator[Record | RejectedRow]:
    """Yield each line of a metadata file as a record, or with the reason why it is rejected.

    Raises:
        BadInputError: The file cannot be read, or lacks a required column.
    """
    with open_text(path) as file:
        table = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        header = _header(path, next(table, []))
        try:
            for cells in table:
                if cells:
                    yield _read_row(table.line_num, header, cells)
        except csv.Error as error:
            raise BadInputError(
                f"{path} line {table.line_num}: {error}", hint="Is it a tab-separated table?"
            ) from error


def read_coordinates(
    path: Path, wanted: set[tuple[str, str]]
) -> dict[tuple[str, str], Coordinates]:
    """Return the coordinates of the wanted (level, place) pairs; the first line for a name counts.

    Raises:
        BadInputError: The file cannot be read, or a line is not level, place, and two numbers.
    """
    found: dict[tuple[str, str], Coordinates] = {}
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            cells = text.split("\t")
            try:
                level, place, latitude, longitude = cells
                at = float(latitude), float(longitude)
            except ValueError as error:
                raise BadInputError(
                    f"{path} line {number}: expected level, place, latitude and longitude",
                    hint="The columns are separated by tabs.",
                ) from error
            if (level, place) in wanted:
                found.setdefault((level, place), at)
    return found


def _header(path: Path, header: list[str]) -> list[str]:
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise BadInputError(
            f"{path} lacks the columns {', '.join(missing)}",
            hint="A Nextstrain metadata file is a tab-separated table with a header.",
        )
    return header


def _read_row(line: int, header: list[str], cells: list[str]) -> Record | RejectedRow:
    if len(cells) != len(header):
        return RejectedRow(line, "", f"has {len(cells)} columns instead of {len(header)}")
    row = {
        name: None if (value := cell.strip()) in _MISSING else value
        for name, cell in zip(header, cells, strict=True)
    }
    try:
        return _record(line, row)
    except _RejectedError as error:
        return RejectedRow(line, error.column, error.reason)


def _record(line: int, row: Mapping[str, str | None]) -> Record:
    for column, value in row.items():
        if value and "\0" in value:
            raise _RejectedError(column, "holds a NUL character")
    strain = _identifier(row, "strain", _LONGEST_STRAIN).removeprefix(f"{PUBLIC_PREFIX}/")
    authors = row.get("authors")
    return Record(
        line=line,
        private_identifier=_identifier(row, "genbank_accession", _LONGEST),
        public_identifier=f"{PUBLIC_PREFIX}/{strain}",
        strain=strain,
        day=_day(row["date"]),
        place=_place(row),
        host=row.get("host"),
        authors=(authors,) if authors else (),
        laboratory=row.get("originating_lab") or row.get("submitting_lab"),
        gisaid=row.get("gisaid_epi_isl"),
        submitted=_day_or_none(row.get("date_submitted")),
    )


def _identifier(row: Mapping[str, str | None], column: str, longest: int) -> str:
    value = row[column]
    if value is None:
        raise _RejectedError(column, "is missing")
    if len(value) > longest:
        raise _RejectedError(column, f"is longer than {longest} characters")
    return value


def _day(value: str | None) -> date:
    """Return a collection date; reject incomplete ones, since guessing would shift curves."""
    if value is None:
        raise _RejectedError("date", "is missing")
    if _PART_OF_A_DATE.fullmatch(value.upper()):
        raise _RejectedError("date", f"{value!r} is incomplete; the day is needed")
    try:
        if not _WHOLE_DATE.fullmatch(value):
            raise ValueError
        return date.fromisoformat(value)
    except ValueError:
        raise _RejectedError("date", f"{value!r} is no date (YYYY-MM-DD)") from None


def _day_or_none(value: str | None) -> date | None:
    try:
        return _day(value)
    except _RejectedError:
        return None


def _place(row: Mapping[str, str | None]) -> Place:
    country, division = row["country"], row.get("division")
    if country is None:
        raise _RejectedError("country", "is missing")
    # If the division is unknown, the country's name is repeated in its place.
    division = None if division == country else division
    return Place(row["region"], country, division, row.get("location"))
