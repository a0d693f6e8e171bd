"""The import of records from a metadata file: new ones become complete samples."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import islice
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from aspencli.fasta import Genome, genome
from db.models import AccessionType, EntityType, Sample
from local.seed.nextstrain import Record, read_coordinates
from local.seed.places import add_places, known_places
from local.seed.records import ORGANISM, PUBLIC_PREFIX, Owner, RejectedRow, copy_rows, next_ids

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
            self._reject(record, "genbank_accession", f"stands in line {first} already")
        elif record.private_identifier in private:
            self.already += 1
        elif record.public_identifier in public:
            reason = f"{record.public_identifier} is the public identifier of another sample"
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
