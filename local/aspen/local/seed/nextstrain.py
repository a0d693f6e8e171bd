"""Samples from a Nextstrain metadata file: new records become complete samples.

Optional files add their genomes (FASTA) and the coordinates of their locations.
"""

from __future__ import annotations

import csv
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import islice
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from aspen.database.engine import Database
from aspen.database.models import AccessionType, Sample
from aspen.local.seed.samples import (
    PUBLIC_PREFIX,
    Coordinates,
    Owner,
    PlaceNames,
    Row,
    Seeded,
    add_places,
    analyse,
    copy_rows,
    known_places,
    number_rows,
    owner_of,
)
from aspencli.errors import BadInputError
from aspencli.tabular.fasta import Genome, genome, open_text, read_fasta

_REQUIRED = ("strain", "genbank_accession", "date", "region", "country")
_MISSING = frozenset({"", "?"})
_LONGEST = 128  # the longest identifier that the service accepts, in characters
_LONGEST_STRAIN = _LONGEST - len(f"{PUBLIC_PREFIX}/")
_WHOLE_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_PART_OF_A_DATE = re.compile(r"\d{4}(-(\d{2}|XX))?(-XX)?")

_BATCH = 5_000  # lines of a file
_GENOMES = 100  # a batch of about 3 MB
_TEXTS = sa.ARRAY(sa.String)
# The values of a sample that is waiting for its genome.
_KEPT = ("sample_id", "entity_id", "entity_type", "group_id", "upload_date")


@dataclass(frozen=True)
class RejectedRow:
    """A line of a file that was rejected.

    Attributes:
        line: The line number; the header is line 1.
        column: The invalid column; empty if the line as a whole is invalid.
    """

    line: int
    column: str
    reason: str


class _RejectedError(Exception):
    def __init__(self, column: str, reason: str):
        super().__init__(reason)
        self.column, self.reason = column, reason


def _read_metadata(path: Path) -> Iterator[Row | RejectedRow]:
    """Yield each line of a metadata file as a sample, or with the reason why it is rejected.

    A sample also has its ``line``, the ``place`` of collection, its ``strain`` (its name in a FASTA
    file), and its accession of GISAID, ``gisaid``.

    Raises:
        BadInputError: The file cannot be read, or lacks a required column.
    """
    with open_text(path) as file:
        table = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        header = next(table, [])
        if missing := [name for name in _REQUIRED if name not in header]:
            raise BadInputError(
                f"Missing columns in {path}: {', '.join(missing)}",
                hint="A Nextstrain metadata file is a tab-separated table with a header row.",
            )
        try:
            for cells in table:
                if cells:
                    yield _read_row(table.line_num, header, cells)
        except csv.Error as error:
            raise BadInputError(
                f"{path}, line {table.line_num}: {error}", hint="Is it a tab-separated table?"
            ) from error


def _read_coordinates(
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
                    f"{path}, line {number}: expected level, place, latitude, and longitude",
                    hint="Separate the columns with tabs.",
                ) from error
            if (level, place) in wanted:
                found.setdefault((level, place), at)
    return found


def _read_row(line: int, header: list[str], cells: list[str]) -> Row | RejectedRow:
    if len(cells) != len(header):
        return RejectedRow(line, "", f"{len(cells)} columns instead of {len(header)}")
    row = {
        name: None if (value := cell.strip()) in _MISSING else value
        for name, cell in zip(header, cells, strict=True)
    }
    try:
        return {"line": line, **_sample(row)}
    except _RejectedError as error:
        return RejectedRow(line, error.column, error.reason)


def _sample(row: Mapping[str, str | None]) -> Row:
    for column, value in row.items():
        if value and "\0" in value:
            raise _RejectedError(column, "contains a NUL character")
    strain = _identifier(row, "strain", _LONGEST_STRAIN).removeprefix(f"{PUBLIC_PREFIX}/")
    accession = _identifier(row, "genbank_accession", _LONGEST)
    laboratory = row.get("originating_lab") or row.get("submitting_lab")
    authors, day = row.get("authors"), _day(row["date"])
    return {
        "strain": strain,
        "private_identifier": accession,
        "public_identifier": f"{PUBLIC_PREFIX}/{strain}",
        "collection_date": day,
        "place": _place(row),
        "host": row.get("host"),
        "authors": json.dumps([authors] if authors else []),
        **({"sample_collected_by": laboratory} if laboratory else {}),
        "private": False,
        "gisaid": row.get("gisaid_epi_isl"),
        "upload_date": _day_or_none(row.get("date_submitted")) or day,
    }


def _identifier(row: Mapping[str, str | None], column: str, longest: int) -> str:
    value = row[column]
    if value is None:
        raise _RejectedError(column, "missing")
    if len(value) > longest:
        raise _RejectedError(column, f"longer than {longest} characters")
    return value


def _day(value: str | None) -> date:
    """Return a collection date; reject incomplete ones, since guessing would shift curves."""
    if value is None:
        raise _RejectedError("date", "missing")
    if _PART_OF_A_DATE.fullmatch(value.upper()):
        raise _RejectedError("date", f"incomplete date: {value!r} (expected YYYY-MM-DD)")
    try:
        if not _WHOLE_DATE.fullmatch(value):
            raise ValueError
        return date.fromisoformat(value)
    except ValueError:
        raise _RejectedError("date", f"invalid date: {value!r} (expected YYYY-MM-DD)") from None


def _day_or_none(value: str | None) -> date | None:
    try:
        return _day(value)
    except _RejectedError:
        return None


def _place(row: Mapping[str, str | None]) -> PlaceNames:
    country, division = row["country"], row.get("division")
    if country is None:
        raise _RejectedError("country", "missing")
    # If the division is unknown, the country's name is repeated in its place.
    division = None if division == country else division
    return PlaceNames(row["region"], country, division, row.get("location"))


@dataclass
class MetadataResult:
    """The result of importing a metadata file.

    Attributes:
        already: The number of samples that already existed.
        rejected: The rejected lines, in file order.
        genomes_added: The number of new samples with a sequence; the others have an empty one.
    """

    added: int = 0
    already: int = 0
    rejected: tuple[RejectedRow, ...] = ()
    locations_added: int = 0
    genomes_added: int = 0
    seconds: float = 0.0

    @property
    def counts(self) -> Seeded:
        """Return the counts in the form that every kind of test data shares."""
        return Seeded(
            samples=self.added,
            already=self.already,
            locations=self.locations_added,
            genomes=self.genomes_added,
            seconds=self.seconds,
        )


class _Import:
    """One import of a file."""

    def __init__(
        self,
        session: Session,
        owner: Owner,
        lat_longs: Path | None,
        progress: Callable[[int], None],
    ):
        self._session, self._owner, self._lat_longs = session, owner, lat_longs
        self._progress = progress
        self._lines: dict[str, int] = {}  # the line of each private identifier's first use
        self._waiting: dict[str, Row] = {}  # by strain
        self.rejected: list[RejectedRow] = []
        self.result = MetadataResult()

    def add(self, batch: Sequence[Row | RejectedRow]) -> None:
        """Add the new records of a batch, without their genomes yet."""
        private, public = self._known([line for line in batch if not isinstance(line, RejectedRow)])
        new: list[Row] = []
        for line in batch:
            if isinstance(line, RejectedRow):
                self.rejected.append(line)
            elif self._is_new(line, private, public):
                public.add(line["public_identifier"])
                new.append(line)
        self._write(new)
        self._progress(len(batch) - len(new))

    def add_genomes(self, genomes: Iterable[Genome]) -> None:
        """Give the new samples their sequences, or an empty one if there is none."""
        found = (one for one in genomes if self._strain(one) in self._waiting)
        while batch := list(islice(found, _GENOMES)):
            # If a name occurs more than once in a batch, use its first sequence.
            first = {self._strain(one): one for one in reversed(batch)}
            self._write_genomes(first)
            self.result.genomes_added += len(first)
        while self._waiting:
            self._write_genomes({name: genome(name, "") for name in islice(self._waiting, _BATCH)})

    def _known(self, records: list[Row]) -> tuple[set[str], set[str]]:
        """Return the private and the public identifiers of records that the group already has."""
        columns = Sample.private_identifier, Sample.public_identifier
        wanted = [
            column == sa.any_(sa.literal([record[column.key] for record in records], _TEXTS))
            for column in columns
        ]
        rows = self._session.execute(
            sa.select(*columns).where(
                Sample.submitting_group_id == self._owner.group, sa.or_(*wanted)
            )
        ).all()
        return {row[0] for row in rows}, {row[1] for row in rows}

    def _is_new(self, record: Row, private: set[str], public: set[str]) -> bool:
        own, name = record["private_identifier"], record["public_identifier"]
        first = self._lines.setdefault(own, record["line"])
        if first != record["line"]:
            self._reject(record, "genbank_accession", f"duplicate of line {first}")
        elif own in private:
            self.result.already += 1
        elif name in public:
            reason = f"{name} is already the public identifier of another sample"
            self._reject(record, "strain", reason)
        else:
            return True
        return False

    def _reject(self, record: Row, column: str, reason: str) -> None:
        self.rejected.append(RejectedRow(record["line"], column, reason))

    def _write(self, records: list[Row]) -> None:
        self._add_locations([record["place"] for record in records])
        places = known_places(self._session)
        rows = [
            {**self._owner.row, **record, "location_id": places[record["place"]]}
            for record in records
        ]
        number_rows(self._session, rows)
        for row in rows:
            self._waiting[row["strain"]] = {key: row[key] for key in _KEPT}
        copy_rows(self._session, "samples", rows)
        copy_rows(self._session, "accessions", _accessions(rows))
        self.result.added += len(rows)

    def _add_locations(self, places: Sequence[PlaceNames]) -> None:
        there = known_places(self._session)
        wanted = {part: None for place in places for part in (*place.summary, place)}
        missing = [place for place in wanted if place not in there]
        if not missing:
            return
        levels = {place.deepest for place in missing}
        found = _read_coordinates(self._lat_longs, levels) if self._lat_longs else {}
        located = [(place, found.get(place.deepest)) for place in missing]
        self.result.locations_added += add_places(self._session, located)

    def _write_genomes(self, genomes: Mapping[str, Genome]) -> None:
        rows = [
            {
                **self._waiting.pop(strain),
                "sequence": one.sequence,
                "num_unambiguous_sites": one.unambiguous,
                "num_missing_alleles": one.missing,
                "num_mixed": one.mixed,
            }
            for strain, one in genomes.items()
        ]
        for table in ("entities", "pathogen_genomes", "uploaded_pathogen_genomes"):
            copy_rows(self._session, table, rows)
        self._progress(len(rows))

    @staticmethod
    def _strain(one: Genome) -> str:
        return one.name.removeprefix(f"{PUBLIC_PREFIX}/")


def _accessions(rows: Iterable[Row]) -> Iterator[Row]:
    kinds = {"private_identifier": AccessionType.GENBANK, "gisaid": AccessionType.GISAID_ISL}
    for row in rows:
        for key, kind in kinds.items():
            if row[key]:
                yield {
                    "sample_id": row["sample_id"],
                    "accession_type": kind.value,
                    "accession": row[key],
                }


def seed_metadata(
    database: Database,
    metadata: Path,
    *,
    sequences: Path | None = None,
    lat_longs: Path | None = None,
    group: int = 1,
    progress: Callable[[int], None] | None = None,
) -> MetadataResult:
    """Add the genomes of a Nextstrain metadata file to a group, in one transaction.

    A sample's private identifier is its GenBank accession, its public one the strain. Existing
    samples stay unchanged, so running it again adds nothing. The samples are not private.

    Args:
        database: The database to write to.
        metadata: A tab-separated file with the columns `_REQUIRED` and optional others. This and
            the other files may be compressed with gzip.
        sequences: A FASTA file whose headers are strains.
        lat_longs: A table of level, place, latitude, and longitude for new locations.
        group: The group's ID.
        progress: Called with the number of lines finished since the last call.

    Raises:
        BadInputError: A file cannot be read or is malformed; nothing is changed.
        NotFoundError: The group does not exist, or none of its users may upload.
    """
    began = time.monotonic()
    with database.begin() as session:
        run = _Import(
            session, owner_of(session, group), lat_longs, progress or (lambda _count: None)
        )
        lines = _read_metadata(metadata)
        while batch := list(islice(lines, _BATCH)):
            run.add(batch)
        run.add_genomes(read_fasta(sequences) if sequences else ())
        analyse(session)
    seconds = time.monotonic() - began
    return replace(run.result, rejected=tuple(run.rejected), seconds=seconds)
