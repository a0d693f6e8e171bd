"""Generated samples, in any number: the same seed gives the same samples.

Imported records share the code that adds locations and writes complete samples with COPY.
"""

from __future__ import annotations

import csv
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.orm import Session

from aspen.database.bulk.staging import copy_in, copy_line
from aspen.database.engine import Database
from aspen.database.models import (
    AccessionType,
    EntityType,
    Group,
    LineageType,
    Location,
    MutationsCaller,
    Pathogen,
    QCMetricCaller,
    Role,
    Sample,
    User,
    UserRole,
)
from aspencli.errors import BadInputError, NotFoundError

PATHOGEN_SLUG = "SC2"
PUBLIC_PREFIX = "hCoV-19"
"""The prefix of GISAID's names for SARS-CoV-2 genomes."""
ORGANISM = "Severe acute respiratory syndrome coronavirus 2"
REFERENCE = "MN908947"
"""The accession of the reference genome for SARS-CoV-2."""

DB_BUCKET = "genepi-db-data"
"""The bucket for trees and for dumps of repositories."""
TOUCHED = (
    "samples",
    "entities",
    "pathogen_genomes",
    "uploaded_pathogen_genomes",
    "sample_lineages",
    "sample_qc_metrics",
    "sample_mutations",
    "accessions",
    "locations",
)

_LEVELS = ("region", "country", "division", "location")

_PANGOLIN, _NEXTCLADE = "4.3.1", "2.14.0"
_GOOD_QC, _MEDIOCRE_QC = 30, 100  # Nextclade's thresholds for its overall score
_SAMPLE_COLUMNS = (
    "id submitting_group_id private_identifier public_identifier original_submission"
    " sample_collected_by authors collection_date organism host purpose_of_sampling"
    " private uploaded_by_id location_id pathogen_id"
)
_LINEAGE_COLUMNS = (
    "sample_id lineage_type lineage lineage_software_version lineage_probability last_updated"
    " raw_lineage_output"
)
_MUTATION_COLUMNS = (
    "sample_id mutations_caller substitutions insertions deletions"
    " aa_substitutions aa_insertions aa_deletions reference_sequence_accession"
)

_BATCH = 10_000
_FIRST_DAY, _DAYS = date(2020, 3, 1), 1_035  # until the end of 2022
_SITES = 1_000  # the shortest sequence that the service's API accepts
_SUBSTITUTIONS = 8
_PRIVATE_EACH = 5  # so that any 5, 20, or 1,000 in a row contain 1, 4, or 200
_LINEAGE, _ACCESSION = 0.9, 0.4  # fractions of the samples
_GAPS = 0.3  # the fraction of sequences with missing sites
_BASES = b"ACGT"
_HOSTS, _HOST_WEIGHTS = ("Human", "Neovison vison", "Odocoileus virginianus"), (97, 2, 1)
_PURPOSES = ("Baseline surveillance", "Cluster investigation", "Travel screening", None)
_SURNAMES = ("Abe", "Birch", "Cruz", "Diaz", "Eze", "Fox", "Gupta", "Hahn", "Ito", "Jansen")


@dataclass(frozen=True)
class Lineage:
    """A Pango lineage, and the period in which it was common.

    Attributes:
        name: The name, such as ``BA.2.12.1``.
        first: The first day.
        last: The last day.
        weight: How common it was relative to others of its time.
        clade: The Nextclade clade.
        scorpio_call: The variant that Scorpio reports; empty for none.
    """

    name: str
    first: date
    last: date
    weight: int
    clade: str
    scorpio_call: str


@cache
def seeded_lineages() -> tuple[Lineage, ...]:
    """Return lineages that were common in California, roughly in order of appearance."""
    text = (files("aspen.local.seed") / "lineages.csv").read_text(encoding="utf-8")
    return tuple(
        Lineage(
            row["lineage"],
            date.fromisoformat(row["first"]),
            date.fromisoformat(row["last"]),
            int(row["weight"]),
            row["clade"],
            row["scorpio_call"],
        )
        for row in csv.DictReader(text.splitlines())
    )


@cache
def lineage_named(name: str) -> Lineage:
    """Return the lineage with a name."""
    return next(lineage for lineage in seeded_lineages() if lineage.name == name)


@cache
def about(day: date) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the lineages that were common on a day, and their weights."""
    found = [lineage for lineage in seeded_lineages() if lineage.first <= day <= lineage.last]
    return tuple(lineage.name for lineage in found), tuple(lineage.weight for lineage in found)


class Objects(Protocol):
    """Files by bucket and key."""

    def has(self, bucket: str, key: str) -> bool:
        """Return True if the file exists."""
        ...

    def put(self, bucket: str, key: str, body: bytes) -> None:
        """Write a file, replacing any existing one."""
        ...


@dataclass(frozen=True)
class Place:
    """A location by its names, from the largest level down; None where it is less specific."""

    region: str | None
    country: str | None = None
    division: str | None = None
    location: str | None = None

    @property
    def names(self) -> tuple[str | None, str | None, str | None, str | None]:
        """Return the four names, from the largest level down."""
        return (self.region, self.country, self.division, self.location)

    @property
    def deepest(self) -> tuple[str, str]:
        """Return its most specific level and the name there; both empty if it has none."""
        for level, name in zip(reversed(_LEVELS), reversed(self.names), strict=True):
            if name:
                return level, name
        return "", ""

    @property
    def summary(self) -> tuple[Place, ...]:
        """Return every larger place that contains it; location search starts from those rows."""
        names = self.names
        return tuple(Place(*names[:depth]) for depth in (1, 2, 3) if any(names[depth:]))


Coordinates = tuple[float, float]
"""Latitude (north positive) and longitude (east positive), in degrees."""


def seeded_places() -> dict[Place, Coordinates]:
    """Return the places of the generated samples: North America, down to counties of California."""
    text = (files("aspen.local.seed") / "locations.csv").read_text(encoding="utf-8")
    return {
        Place(*(row[level] or None for level in _LEVELS)): (
            float(row["latitude"]),
            float(row["longitude"]),
        )
        for row in csv.DictReader(text.splitlines())
    }


def known_places(session: Session) -> dict[Place, int]:
    """Return the ID of each existing location."""
    columns = [getattr(Location, level) for level in _LEVELS]
    rows = session.execute(sa.select(*columns, Location.id).order_by(Location.id.desc()))
    return {Place(*row[:4]): row[4] for row in rows}


def add_places(session: Session, places: Iterable[tuple[Place, Coordinates | None]]) -> int:
    """Add the locations that are missing; return their number.

    The unique constraint does not prevent duplicates, as it treats NULLs as distinct.
    """
    known = known_places(session)
    missing = {place: at for place, at in places if place not in known}
    if missing:
        session.execute(sa.insert(Location), [_row(place, at) for place, at in missing.items()])
    return len(missing)


def _row(place: Place, at: Coordinates | None) -> dict[str, object]:
    names = dict(zip(_LEVELS, place.names, strict=True))
    latitude, longitude = at or (None, None)
    return {**names, "latitude": latitude, "longitude": longitude}


@dataclass(frozen=True)
class RejectedRow:
    """A line of a file that was rejected.

    Attributes:
        line: The line number; the header is line 1.
        column: The invalid column; empty if the line as a whole is invalid.
        reason: The reason, in words.
    """

    line: int
    column: str
    reason: str


@dataclass(frozen=True)
class Owner:
    """The group that samples are seeded into, with the values that their rows need.

    Attributes:
        group: The group's ID.
        prefix: The group's prefix.
        laboratory: The laboratory recorded as the collector of the samples.
        uploader: The ID of the user recorded as the uploader.
        pathogen: The ID of SARS-CoV-2.
    """

    group: int
    prefix: str
    laboratory: str
    uploader: int
    pathogen: int


def owner_of(session: Session, group: int) -> Owner:
    """Return a group as an owner, locked against other seeding until the transaction ends.

    Raises:
        NotFoundError: The group does not exist, or none of its users may upload.
    """
    found = session.execute(
        sa.select(Group.prefix, sa.func.coalesce(Group.submitting_lab, Group.name))
        .where(Group.id == group)
        .with_for_update(key_share=True)
    ).one_or_none()
    if found is None:
        raise NotFoundError(
            f"Group {group} does not exist.", hint="Create it first, or seed the test groups."
        )
    uploader = session.scalar(
        sa.select(sa.func.min(User.id))
        .join(UserRole)
        .join(Role)
        .where(UserRole.group_id == group, Role.name.in_(("admin", "member")))
    )
    if uploader is None:
        raise NotFoundError(
            f"Group {group} has no admin or member to upload samples as.",
            hint="Add a user to it first.",
        )
    pathogen = session.scalars(sa.select(Pathogen.id).where(Pathogen.slug == PATHOGEN_SLUG)).one()
    return Owner(group, found[0], found[1], uploader, pathogen)


def copy_rows(
    session: Session, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Append rows to a table with COPY, in the session's transaction."""
    # Build the lines first: the driver turns any exception raised while it reads, even Ctrl-C,
    # into one of its own errors.
    lines = [copy_line(*row) for row in rows]
    copy_in(session.connection(), f"{table} ({', '.join(columns)})", lines)


def next_ids(session: Session, sequence: str, count: int) -> list[int]:
    """Return new values of a sequence in the schema ``aspen``, in ascending order."""
    statement = sa.text("SELECT nextval(CAST(:name AS regclass)) FROM generate_series(1, :count)")
    return list(session.scalars(statement, {"name": f"aspen.{sequence}", "count": count}))


def analyse(session: Session) -> None:
    """Update the planner's statistics for the new rows at once."""
    session.execute(sa.text("ANALYZE " + ", ".join(f"aspen.{table}" for table in TOUCHED)))


@dataclass(frozen=True)
class Made:
    """A generated sample, before it has an ID."""

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
    substitutions: str
    sequenced: date
    uploaded: date
    depth: float
    lineage: str | None
    accession: str | None
    score: float

    @property
    def quality(self) -> str:
        """Return Nextclade's word for the score."""
        if self.score < _GOOD_QC:
            return "good"
        return "mediocre" if self.score < _MEDIOCRE_QC else "bad"

    def pangolin_output(self, entity: int) -> dict[str, str]:
        """Return the columns of Pangolin's report that are not empty."""
        report = {
            "taxon": str(entity),
            "lineage": self.lineage or "",
            "conflict": "0.0",
            "ambiguity_score": "1.0",
            "scorpio_call": lineage_named(self.lineage).scorpio_call if self.lineage else "",
            "version": f"PUSHER-v{_PANGOLIN}",
            "pangolin_version": _PANGOLIN,
            "is_designated": "False",
            "qc_status": "pass",
            "qc_notes": f"Ambiguous_content:{self.missing / len(self.sequence):.2f}",
        }
        if report["scorpio_call"]:
            report |= {"scorpio_support": "0.92", "scorpio_conflict": "0.0"}
        return {column: value for column, value in report.items() if value}

    def nextclade_output(self, sample: int) -> dict[str, str]:
        """Return some of the columns of Nextclade's output."""
        count = len(self.substitutions.split(",")) if self.substitutions else 0
        return {
            "seqName": str(sample),
            "clade": lineage_named(self.lineage).clade if self.lineage else "",
            "Nextclade_pango": self.lineage or "",
            "qc.overallScore": str(self.score),
            "qc.overallStatus": self.quality,
            "totalSubstitutions": str(count),
            "totalMissing": str(self.missing),
            "substitutions": self.substitutions,
            "deletions": "",
            "insertions": "",
        }


def write(session: Session, owner: Owner, batch: list[Made]) -> None:
    """Write samples with all of their related rows."""
    samples = next_ids(session, "samples_id_seq", len(batch))
    entities = next_ids(session, "entities_id_seq", len(batch))
    keyed = list(zip(samples, entities, batch, strict=True))
    for table, columns, rows in _tables(owner, keyed):
        copy_rows(session, f"aspen.{table}", columns.split(), rows)


def _tables(
    owner: Owner, keyed: list[tuple[int, int, Made]]
) -> Iterator[tuple[str, str, Iterator[Sequence[object]]]]:
    """Yield each table with its columns and rows, referenced tables first."""
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
            (key, made.sequence, len(made.sequence) - made.missing, made.missing, 0, made.sequenced)
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
        _LINEAGE_COLUMNS,
        (
            (
                key,
                LineageType.PANGOLIN.value,
                made.lineage,
                _PANGOLIN,
                1.0,
                made.uploaded,
                json.dumps(made.pangolin_output(entity)),
            )
            for key, entity, made in keyed
            if made.lineage
        ),
    )
    yield (
        "sample_qc_metrics",
        "sample_id qc_caller qc_score qc_software_version qc_status raw_qc_output",
        (
            (
                key,
                QCMetricCaller.NEXTCLADE.value,
                made.score,
                _NEXTCLADE,
                made.quality,
                json.dumps(made.nextclade_output(key)),
            )
            for key, _, made in keyed
            if made.lineage
        ),
    )
    yield (
        "sample_mutations",
        _MUTATION_COLUMNS,
        (
            (key, MutationsCaller.NEXTCLADE.value, made.substitutions, *[""] * 5, REFERENCE)
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


@dataclass(frozen=True)
class SeedResult:
    """The samples added.

    Attributes:
        samples_added: The number of samples.
        first: The private identifier of the first sample; None if none was added.
        last: The private identifier of the last sample; None if none was added.
        seconds: The time it took.
    """

    samples_added: int
    first: str | None
    last: str | None
    seconds: float


def seed_samples(
    database: Database,
    count: int,
    *,
    group: int = 1,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> SeedResult:
    """Add generated SARS-CoV-2 samples to a group, with all related rows, in one transaction.

    The n-th sample of a group depends only on ``seed`` and n. A further call continues after the
    last one, so two calls of 50 give the same samples as one of 100.

    Args:
        database: The database to write to.
        count: The number of samples to add.
        group: The group's ID.
        seed: Selects one of the possible sets of samples.
        progress: Called with the number of samples written since the last call.

    Raises:
        BadInputError: ``count`` is negative.
        NotFoundError: The group does not exist, or none of its users may upload.
    """
    if count < 0:
        raise BadInputError(
            f"Invalid number of samples: {count}", hint="Enter a number of 0 or more."
        )
    began = time.monotonic()
    first = last = None
    with database.begin() as session:
        owner = owner_of(session, group)
        add_places(session, seeded_places().items())
        places = _counties(session)
        start = _next_number(session, owner)
        samples = (_make(n, seed, owner, places) for n in range(start, start + count))
        while batch := list(islice(samples, _BATCH)):
            write(session, owner, batch)
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
    """Return one more than the highest number among the group's generated samples."""
    digits = sa.func.substring(Sample.private_identifier, f"^{owner.prefix}-([0-9]{{7,9}})$")
    highest = session.scalar(
        sa.select(sa.func.max(sa.cast(digits, sa.Integer))).where(
            Sample.submitting_group_id == owner.group
        )
    )
    return (highest or 0) + 1


def _make(number: int, seed: int, owner: Owner, places: list[int]) -> Made:
    chance = random.Random(f"{seed}:{owner.prefix}:{number}")  # noqa: S311 - must be repeatable
    day = _FIRST_DAY + timedelta(days=chance.randrange(_DAYS))
    lineages, weights = about(day)
    sequence, missing, substitutions = _sequence(chance, seed)
    name = f"{owner.prefix}-{number:07d}"
    place = places[chance.randrange(len(places))]
    chance.random()  # once chose who is private; still drawn so that the n-th sample stays the same
    return Made(
        private_identifier=name,
        public_identifier=f"{PUBLIC_PREFIX}/USA/CA-{owner.prefix}-{number}/{day.year}",
        day=day,
        place=place,
        private=number % _PRIVATE_EACH == 0,
        host=chance.choices(_HOSTS, _HOST_WEIGHTS)[0],
        purpose=_PURPOSES[chance.randrange(len(_PURPOSES))],
        author=f"{_SURNAMES[chance.randrange(len(_SURNAMES))]} et al",
        sequence=sequence,
        missing=missing,
        substitutions=substitutions,
        sequenced=day + timedelta(days=chance.randrange(2, 15)),
        uploaded=day + timedelta(days=chance.randrange(15, 45)),
        depth=round(chance.uniform(40, 1200), 1),
        lineage=chance.choices(lineages, weights)[0] if chance.random() < _LINEAGE else None,
        accession=f"EPI_ISL_{900_000_000 + chance.randrange(99_999_999)}"
        if chance.random() < _ACCESSION
        else None,
        score=round(chance.expovariate(1 / 12), 1),
    )


def _sequence(chance: random.Random, seed: int) -> tuple[str, int, str]:
    """Return a descendant of the seed's ancestor, its number of Ns, and its substitutions."""
    before = ancestor(seed)
    sites, touched = bytearray(before), set[int]()
    for _ in range(chance.randrange(_SUBSTITUTIONS)):
        base, site = _BASES[chance.randrange(4)], chance.randrange(_SITES)
        sites[site] = base
        touched.add(site)
    missing = chance.randrange(30) if chance.random() < _GAPS else 0
    start = chance.randrange(_SITES - missing)
    sites[start : start + missing] = b"N" * missing
    differing = [site for site in sorted(touched) if sites[site] not in (before[site], ord("N"))]
    named = (f"{before[site]:c}{site + 1}{sites[site]:c}" for site in differing)
    return sites.decode(), missing, ",".join(named)


@cache
def ancestor(seed: int = 0) -> bytes:
    """Return the sequence that a seed's generated sequences descend from."""
    return bytes(random.Random(f"ancestor:{seed}").choices(_BASES, k=_SITES))  # noqa: S311 - same
