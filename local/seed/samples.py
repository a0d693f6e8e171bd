"""Made-up samples, as many as wanted: the same seed gives the same samples."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from itertools import islice

import sqlalchemy as sa
from sqlalchemy.orm import Session

from aspencli.errors import BadInputError
from db.database import Database
from db.models import AccessionType, EntityType, LineageType, QCMetricCaller, Sample
from local.seed.lineages import about
from local.seed.places import add_places, known_places, seeded_places
from local.seed.records import (
    ORGANISM,
    PUBLIC_PREFIX,
    Owner,
    analyse,
    copy_rows,
    next_ids,
    owner_of,
)

_BATCH = 10_000
_FIRST_DAY, _DAYS = date(2020, 3, 1), 1_035  # until the end of 2022
_SITES = 1_000  # the shortest sequence that the service's API takes
_SUBSTITUTIONS = 8
_PRIVATE, _LINEAGE, _ACCESSION = 0.2, 0.9, 0.4  # shares
_GAPS = 0.3  # share of the sequences that miss some sites
_BASES = b"ACGT"
_HOSTS, _HOST_WEIGHTS = ("Human", "Neovison vison", "Odocoileus virginianus"), (97, 2, 1)
_PANGOLIN, _NEXTCLADE = "4.3.1", "2.14.0"
_GOOD_QC, _MEDIOCRE_QC = 30, 100  # Nextclade's thresholds of its overall score
_PURPOSES = ("Baseline surveillance", "Cluster investigation", "Travel screening", None)
_SURNAMES = ("Abe", "Birch", "Cruz", "Diaz", "Eze", "Fox", "Gupta", "Hahn", "Ito", "Jansen")


_SAMPLE_COLUMNS = (
    "id submitting_group_id private_identifier public_identifier original_submission"
    " sample_collected_by authors collection_date organism host purpose_of_sampling"
    " private uploaded_by_id location_id pathogen_id"
)


@dataclass(frozen=True)
class SeedResult:
    """What was added.

    Attributes:
        samples_added: How many samples.
        first: The private identifier of the first; None when none was added.
        last: That of the last; None when none was added.
        seconds: How long it took.
    """

    samples_added: int
    first: str | None
    last: str | None
    seconds: float


@dataclass(frozen=True)
class _Made:
    """One made-up sample, before it has an id."""

    private_identifier: str
    public_identifier: str
    day: date
    place: int
    private: bool
    host: str
    purpose: str | None
    author: str
    sequence: str
    missing: int
    sequenced: date
    uploaded: date
    depth: float
    lineage: str | None
    accession: str | None
    score: float

    @property
    def quality(self) -> str:
        """The score in words, as Nextclade has them."""
        if self.score < _GOOD_QC:
            return "good"
        return "mediocre" if self.score < _MEDIOCRE_QC else "bad"


def seed_samples(
    database: Database,
    count: int,
    *,
    group: int = 1,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> SeedResult:
    """Add made-up samples of SARS-CoV-2 to a group, whole ones, in one transaction.

    The n-th sample of a group depends on ``seed`` and n alone. A further call goes on after the
    last one, so two calls of 50 give the same samples as one of 100.

    Args:
        database: Where to write.
        count: How many to add.
        group: The group's id.
        seed: Chooses among the endless possible sets of samples.
        progress: Told the number of samples written since it was told last.

    Raises:
        BadInputError: ``count`` is negative.
        NotFoundError: No such group, or nobody in it may upload.
    """
    if count < 0:
        raise BadInputError(f"{count} samples cannot be added", hint="Give a number from 0 on.")
    began = time.monotonic()
    first = last = None
    with database.begin() as session:
        owner = owner_of(session, group)
        add_places(session, seeded_places().items())
        places = _counties(session)
        start = _next_number(session, owner)
        samples = (_make(n, seed, owner, places) for n in range(start, start + count))
        while batch := list(islice(samples, _BATCH)):
            _write(session, owner, batch)
            first, last = first or batch[0].private_identifier, batch[-1].private_identifier
            if progress:
                progress(len(batch))
        if count:
            analyse(session)
    return SeedResult(count, first, last, time.monotonic() - began)


def _counties(session: Session) -> list[int]:
    known = known_places(session)
    return [known[place] for place in seeded_places() if place.location]


def _next_number(session: Session, owner: Owner) -> int:
    """One more than the highest number among the group's made-up samples."""
    digits = sa.func.substring(Sample.private_identifier, f"^{owner.prefix}-([0-9]{{7,9}})$")
    highest = session.scalar(
        sa.select(sa.func.max(sa.cast(digits, sa.Integer))).where(
            Sample.submitting_group_id == owner.group
        )
    )
    return (highest or 0) + 1


def _make(number: int, seed: int, owner: Owner, places: list[int]) -> _Made:
    chance = random.Random(f"{seed}:{owner.prefix}:{number}")  # noqa: S311 - wanted: repeatable
    day = _FIRST_DAY + timedelta(days=chance.randrange(_DAYS))
    lineages, weights = about(day)
    sequence, missing = _sequence(chance, seed)
    name = f"{owner.prefix}-{number:07d}"
    return _Made(
        private_identifier=name,
        public_identifier=f"{PUBLIC_PREFIX}/USA/CA-{owner.prefix}-{number}/{day.year}",
        day=day,
        place=places[chance.randrange(len(places))],
        private=chance.random() < _PRIVATE,
        host=chance.choices(_HOSTS, _HOST_WEIGHTS)[0],
        purpose=_PURPOSES[chance.randrange(len(_PURPOSES))],
        author=f"{_SURNAMES[chance.randrange(len(_SURNAMES))]} et al",
        sequence=sequence,
        missing=missing,
        sequenced=day + timedelta(days=chance.randrange(2, 15)),
        uploaded=day + timedelta(days=chance.randrange(15, 45)),
        depth=round(chance.uniform(40, 1200), 1),
        lineage=chance.choices(lineages, weights)[0] if chance.random() < _LINEAGE else None,
        accession=f"EPI_ISL_{900_000_000 + chance.randrange(99_999_999)}"
        if chance.random() < _ACCESSION
        else None,
        score=round(chance.expovariate(1 / 12), 1),
    )


def _sequence(chance: random.Random, seed: int) -> tuple[str, int]:
    """A descendant of the seed's ancestor, and how many of its sites are N."""
    sites = bytearray(_ancestor(seed))
    for _ in range(chance.randrange(_SUBSTITUTIONS)):
        sites[chance.randrange(_SITES)] = _BASES[chance.randrange(4)]
    missing = chance.randrange(30) if chance.random() < _GAPS else 0
    start = chance.randrange(_SITES - missing)
    sites[start : start + missing] = b"N" * missing
    return sites.decode(), missing


@cache
def _ancestor(seed: int) -> bytes:
    return bytes(random.Random(f"ancestor:{seed}").choices(_BASES, k=_SITES))  # noqa: S311 - same


def _write(session: Session, owner: Owner, batch: list[_Made]) -> None:
    samples = next_ids(session, "samples_id_seq", len(batch))
    entities = next_ids(session, "entities_id_seq", len(batch))
    keyed = list(zip(samples, entities, batch, strict=True))
    for table, columns, rows in _tables(owner, keyed):
        copy_rows(session, f"aspen.{table}", columns.split(), rows)


def _tables(
    owner: Owner, keyed: list[tuple[int, int, _Made]]
) -> Iterator[tuple[str, str, Iterator[Sequence[object]]]]:
    """Each table with its columns and rows, what is referred to first."""
    yield (
        "samples",
        _SAMPLE_COLUMNS,
        (
            (
                key,
                owner.group,
                made.private_identifier,
                made.public_identifier,
                "{}",
                owner.laboratory,
                json.dumps([made.author]),
                made.day,
                ORGANISM,
                made.host,
                made.purpose,
                made.private,
                owner.uploader,
                made.place,
                owner.pathogen,
            )
            for key, _, made in keyed
        ),
    )
    yield (
        "entities",
        "id entity_type group_id",
        ((key, EntityType.UPLOADED_PATHOGEN_GENOME.value, owner.group) for _, key, _ in keyed),
    )
    yield (
        "pathogen_genomes",
        "entity_id sequence num_unambiguous_sites num_missing_alleles num_mixed sequencing_date",
        (
            (key, made.sequence, _SITES - made.missing, made.missing, 0, made.sequenced)
            for _, key, made in keyed
        ),
    )
    yield (
        "uploaded_pathogen_genomes",
        "pathogen_genome_id sample_id sequencing_depth upload_date",
        ((entity, key, made.depth, made.uploaded) for key, entity, made in keyed),
    )
    yield (
        "sample_lineages",
        "sample_id lineage_type lineage lineage_software_version lineage_probability last_updated",
        (
            (key, LineageType.PANGOLIN.value, made.lineage, _PANGOLIN, 1.0, made.uploaded)
            for key, _, made in keyed
            if made.lineage
        ),
    )
    yield (
        "sample_qc_metrics",
        "sample_id qc_caller qc_score qc_software_version qc_status",
        (
            (key, QCMetricCaller.NEXTCLADE.value, made.score, _NEXTCLADE, made.quality)
            for key, _, made in keyed
            if made.lineage
        ),
    )
    yield (
        "accessions",
        "sample_id accession_type accession",
        (
            (key, AccessionType.GISAID_ISL.value, made.accession)
            for key, _, made in keyed
            if made.accession
        ),
    )
