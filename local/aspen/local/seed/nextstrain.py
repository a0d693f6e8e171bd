"""Samples from a Nextstrain metadata file: new records become complete samples.

Optional files add their genomes (FASTA) and the coordinates of their locations.
"""

from __future__ import annotations

import csv
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import islice
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from aspen.database.engine import Database
from aspen.database.models import AccessionType, EntityType, Sample
from aspen.local.seed.samples import (
    ORGANISM,
    PUBLIC_PREFIX,
    Coordinates,
    Owner,
    Place,
    RejectedRow,
    add_places,
    analyse,
    copy_rows,
    known_places,
    next_ids,
    owner_of,
)
from aspencli.errors import BadInputError
from aspencli.tabular.fasta import Genome, genome, open_text, read_fasta

REQUIRED = ("strain", "genbank_accession", "date", "region", "country")
_MISSING = frozenset({"", "?"})
_LONGEST = 128  # the longest identifier that the service accepts, in characters
_LONGEST_STRAIN = _LONGEST - len(f"{PUBLIC_PREFIX}/")
_WHOLE_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_PART_OF_A_DATE = re.compile(r"\d{4}(-(\d{2}|XX))?(-XX)?")
_COORDINATE_COLUMNS = 4

BATCH = 5_000
"""The number of lines of a file to process at a time."""
_GENOMES = 100  # a batch of about 3 MB
_TEXTS = sa.ARRAY(sa.String)
_SAMPLE_COLUMNS = (
    "id",
    "submitting_group_id",
    "private_identifier",
    "public_identifier",
    "original_submission",
    "sample_collected_by",
    "authors",
    "collection_date",
    "organism",
    "host",
    "private",
    "uploaded_by_id",
    "location_id",
    "pathogen_id",
)


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
                f"{path}, line {table.line_num}: {error}", hint="Is it a tab-separated table?"
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
                    f"{path}, line {number}: expected level, place, latitude, and longitude",
                    hint="Separate the columns with tabs.",
                ) from error
            if (level, place) in wanted:
                found.setdefault((level, place), at)
    return found


def _header(path: Path, header: list[str]) -> list[str]:
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise BadInputError(
            f"Missing columns in {path}: {', '.join(missing)}",
            hint="A Nextstrain metadata file is a tab-separated table with a header row.",
        )
    return header


def _read_row(line: int, header: list[str], cells: list[str]) -> Record | RejectedRow:
    if len(cells) != len(header):
        return RejectedRow(line, "", f"{len(cells)} columns instead of {len(header)}")
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
            raise _RejectedError(column, "contains a NUL character")
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


def _place(row: Mapping[str, str | None]) -> Place:
    country, division = row["country"], row.get("division")
    if country is None:
        raise _RejectedError("country", "missing")
    # If the division is unknown, the country's name is repeated in its place.
    division = None if division == country else division
    return Place(row["region"], country, division, row.get("location"))


@dataclass(frozen=True)
class _Keys:
    """A new sample that is waiting for its genome."""

    sample: int
    entity: int
    uploaded: date


class Import:
    """One import of a file.

    Args:
        session: The session to write with.
        owner: The group that receives the samples.
        lat_longs: The file with the coordinates of new locations.
        progress: Called with the number of lines finished.
    """

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
        self._waiting: dict[str, _Keys] = {}  # by strain
        self.added = self.already = self.locations = self.genomes = 0
        self.rejected: list[RejectedRow] = []

    def add(self, batch: Sequence[Record | RejectedRow]) -> None:
        """Add the new records of a batch, without their genomes yet."""
        records = [line for line in batch if isinstance(line, Record)]
        private, public = self._known(records)
        new: list[Record] = []
        for line in batch:
            if isinstance(line, RejectedRow):
                self.rejected.append(line)
            elif self._is_new(line, private, public):
                public.add(line.public_identifier)
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
            self.genomes += len(first)
        while self._waiting:
            self._write_genomes({name: genome(name, "") for name in islice(self._waiting, BATCH)})

    def _known(self, records: list[Record]) -> tuple[set[str], set[str]]:
        """Return the private and the public identifiers of records that the group already has."""
        private = [record.private_identifier for record in records]
        public = [record.public_identifier for record in records]
        rows = self._session.execute(
            sa.select(Sample.private_identifier, Sample.public_identifier).where(
                Sample.submitting_group_id == self._owner.group,
                sa.or_(
                    Sample.private_identifier == sa.any_(sa.literal(private, _TEXTS)),
                    Sample.public_identifier == sa.any_(sa.literal(public, _TEXTS)),
                ),
            )
        ).all()
        return {row[0] for row in rows}, {row[1] for row in rows}

    def _is_new(self, record: Record, private: set[str], public: set[str]) -> bool:
        first = self._lines.setdefault(record.private_identifier, record.line)
        if first != record.line:
            self._reject(record, "genbank_accession", f"duplicate of line {first}")
        elif record.private_identifier in private:
            self.already += 1
        elif record.public_identifier in public:
            reason = (
                f"{record.public_identifier} is already the public identifier of another sample"
            )
            self._reject(record, "strain", reason)
        else:
            return True
        return False

    def _reject(self, record: Record, column: str, reason: str) -> None:
        self.rejected.append(RejectedRow(record.line, column, reason))

    def _write(self, records: list[Record]) -> None:
        self._add_locations(records)
        samples = next_ids(self._session, "samples_id_seq", len(records))
        entities = next_ids(self._session, "entities_id_seq", len(records))
        for record, sample, entity in zip(records, samples, entities, strict=True):
            uploaded = record.submitted or record.day
            self._waiting[record.strain] = _Keys(sample, entity, uploaded)
        numbered = list(zip(samples, records, strict=True))
        self._write_samples(numbered)
        copy_rows(
            self._session,
            "aspen.accessions",
            ("sample_id", "accession_type", "accession"),
            (
                (sample, kind.value, accession)
                for sample, record in numbered
                for kind, accession in _accessions(record)
            ),
        )
        self.added += len(records)

    def _write_samples(self, numbered: list[tuple[int, Record]]) -> None:
        places, owner = known_places(self._session), self._owner
        copy_rows(
            self._session,
            "aspen.samples",
            _SAMPLE_COLUMNS,
            (
                (
                    sample,
                    owner.group,
                    record.private_identifier,
                    record.public_identifier,
                    "{}",
                    record.laboratory or owner.laboratory,
                    json.dumps(record.authors),
                    record.day,
                    ORGANISM,
                    record.host,
                    False,
                    owner.uploader,
                    places[record.place],
                    owner.pathogen,
                )
                for sample, record in numbered
            ),
        )

    def _add_locations(self, records: list[Record]) -> None:
        there = known_places(self._session)
        wanted = {part: None for r in records for part in (*r.place.summary, r.place)}
        missing = [place for place in wanted if place not in there]
        if not missing:
            return
        levels = {place.deepest for place in missing}
        found = read_coordinates(self._lat_longs, levels) if self._lat_longs else {}
        located = [(place, found.get(place.deepest)) for place in missing]
        self.locations += add_places(self._session, located)

    def _write_genomes(self, genomes: Mapping[str, Genome]) -> None:
        keyed = [(self._waiting.pop(strain), one) for strain, one in genomes.items()]
        kind, group = EntityType.UPLOADED_PATHOGEN_GENOME.value, self._owner.group
        for table, columns, rows in (
            (
                "entities",
                ("id", "entity_type", "group_id"),
                [(keys.entity, kind, group) for keys, _ in keyed],
            ),
            (
                "pathogen_genomes",
                (
                    "entity_id",
                    "sequence",
                    "num_unambiguous_sites",
                    "num_missing_alleles",
                    "num_mixed",
                ),
                [
                    (keys.entity, one.sequence, one.unambiguous, one.missing, one.mixed)
                    for keys, one in keyed
                ],
            ),
            (
                "uploaded_pathogen_genomes",
                ("pathogen_genome_id", "sample_id", "upload_date"),
                [(keys.entity, keys.sample, keys.uploaded) for keys, _ in keyed],
            ),
        ):
            copy_rows(self._session, f"aspen.{table}", columns, rows)
        self._progress(len(keyed))

    @staticmethod
    def _strain(one: Genome) -> str:
        return one.name.removeprefix(f"{PUBLIC_PREFIX}/")


def _accessions(record: Record) -> Iterator[tuple[AccessionType, str]]:
    yield AccessionType.GENBANK, record.private_identifier
    if record.gisaid:
        yield AccessionType.GISAID_ISL, record.gisaid


@dataclass(frozen=True)
class MetadataResult:
    """The result of importing a metadata file.

    Attributes:
        added: The number of samples added.
        already: The number of samples that already existed.
        rejected: The rejected lines, in file order.
        locations_added: The number of locations added.
        genomes_added: The number of new samples with a sequence; the others have an empty one.
        seconds: The time it took.
    """

    added: int
    already: int
    rejected: tuple[RejectedRow, ...]
    locations_added: int
    genomes_added: int
    seconds: float


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
        metadata: A tab-separated file with the columns `nextstrain.REQUIRED` and optional others.
        sequences: A FASTA file whose headers are strains.
        lat_longs: A table of level, place, latitude, and longitude for new locations.
        group: The group's ID.
        progress: Called with the number of lines finished since the last call.

    Each file may be compressed with gzip.

    Raises:
        BadInputError: A file cannot be read or is malformed; nothing is changed.
        NotFoundError: The group does not exist, or none of its users may upload.
    """
    began = time.monotonic()
    with database.begin() as session:
        run = Import(session, owner_of(session, group), lat_longs, progress or _silent)
        lines = read_metadata(metadata)
        while batch := list(islice(lines, BATCH)):
            run.add(batch)
        run.add_genomes(read_fasta(sequences) if sequences else ())
        analyse(session)
    return MetadataResult(
        added=run.added,
        already=run.already,
        rejected=tuple(run.rejected),
        locations_added=run.locations,
        genomes_added=run.genomes,
        seconds=time.monotonic() - began,
    )


def _silent(count: int) -> None:
    del count
