"""Generated samples, in any number: the same seed gives the same samples.

Imported records share the code that adds locations and writes complete samples with COPY.
"""

from __future__ import annotations

import csv
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import date, timedelta
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import Any, NamedTuple

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
from aspen.local.seed.genomes import descendant
from aspencli.errors import BadInputError, NotFoundError

PATHOGEN_SLUG = "SC2"
PUBLIC_PREFIX = "hCoV-19"
"""The prefix of GISAID's names for SARS-CoV-2 genomes."""
REFERENCE = "MN908947"
"""The accession of the reference genome for SARS-CoV-2."""
_ORGANISM = "Severe acute respiratory syndrome coronavirus 2"

_TABLES = {
    "samples": (
        "id:sample_id submitting_group_id:group_id private_identifier public_identifier"
        " original_submission sample_collected_by authors collection_date organism host"
        " purpose_of_sampling private uploaded_by_id location_id pathogen_id"
    ),
    "entities": "id:entity_id entity_type group_id",
    "pathogen_genomes": (
        "entity_id sequence num_unambiguous_sites num_missing_alleles num_mixed sequencing_date"
    ),
    "uploaded_pathogen_genomes": (
        "pathogen_genome_id:entity_id sample_id sequencing_depth upload_date"
    ),
    "sample_lineages": (
        "sample_id lineage_type lineage lineage_software_version lineage_probability"
        " last_updated:upload_date raw_lineage_output"
    ),
    "sample_qc_metrics": "sample_id qc_caller qc_score qc_software_version qc_status raw_qc_output",
    "sample_mutations": (
        "sample_id mutations_caller substitutions insertions deletions aa_substitutions"
        " aa_insertions aa_deletions reference_sequence_accession"
    ),
    "accessions": "sample_id accession_type accession",
}
"""The columns of each table, referenced tables first; a row's key follows if it is another."""
_NEEDS = {
    "sample_lineages": "lineage",
    "sample_qc_metrics": "lineage",
    "sample_mutations": "lineage",
    "accessions": "accession",
}
"""The value without which a sample has no row in a table."""
_LEVELS = ("region", "country", "division", "location")

_PANGOLIN, _NEXTCLADE = "4.3.1", "2.14.0"
_GOOD_QC, _MEDIOCRE_QC = 30, 100  # Nextclade's thresholds for its overall score

_BATCH = 10_000
_FIRST_DAY, _DAYS = date(2020, 3, 1), 1_035  # until the end of 2022
_WHOLE = 1_000
"""The number of samples of each group with a whole genome, from which trees can be built.

Further samples, with `_SITES`, fill large databases, which would else consist of genomes.
"""
_SITES = 1_000  # the shortest sequence that the service's API accepts
_SUBSTITUTIONS = 8
_PRIVATE_EACH = 5  # so that any 5, 20, or 1,000 in a row contain 1, 4, or 200
_LINEAGE, _ACCESSION = 0.9, 0.4  # fractions of the samples
_GAPS = 0.3  # the fraction of sequences with missing sites
_BASES = b"ACGT"
_HOSTS, _HOST_WEIGHTS = ("Human", "Neovison vison", "Odocoileus virginianus"), (97, 2, 1)
_PURPOSES = ("Baseline surveillance", "Cluster investigation", "Travel screening", None)
_SURNAMES = ("Abe", "Birch", "Cruz", "Diaz", "Eze", "Fox", "Gupta", "Hahn", "Ito", "Jansen")

Row = dict[str, Any]
"""The values of a sample by column, for all of its tables; see `_TABLES`."""


@dataclass(frozen=True)
class Seeded:
    """The number of objects added, and the seconds it took.

    Attributes:
        runs: The number of phylogenetic runs.
        trees: The number of runs with a tree.
        genomes: The number of samples in a file that got their sequence.
        already: The number of lines in a file whose sample already existed.
    """

    groups: int = 0
    users: int = 0
    locations: int = 0
    samples: int = 0
    runs: int = 0
    trees: int = 0
    genomes: int = 0
    already: int = 0
    seconds: float = 0.0

    def __add__(self, more: Seeded) -> Seeded:
        return Seeded(*map(sum, zip(astuple(self), astuple(more), strict=True)))


def resource(name: str) -> str:
    """Return the text of one of this package's data files."""
    return (files("aspen.local.seed") / name).read_text(encoding="utf-8")


def resource_rows(name: str) -> Iterator[dict[str, str]]:
    """Return the rows of one of this package's CSV files."""
    return csv.DictReader(resource(name).splitlines())


@cache
def seeded_lineages() -> dict[str, dict[str, str]]:
    """Return lineages that were common in California, by name, roughly in order of appearance.

    Each has the first and last day of the period in which it was common, and its weight relative to
    others of its time.
    """
    return {row["lineage"]: row for row in resource_rows("lineages.csv")}


@cache
def _common_lineages(day: date) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the lineages that were common on a day, and their weights."""
    every = seeded_lineages().values()
    found = [row for row in every if row["first"] <= day.isoformat() <= row["last"]]
    return tuple(row["lineage"] for row in found), tuple(int(row["weight"]) for row in found)


class PlaceNames(NamedTuple):
    """A location by its names, from the largest level down; None where it is less specific."""

    region: str | None
    country: str | None = None
    division: str | None = None
    location: str | None = None

    @property
    def deepest(self) -> tuple[str, str]:
        """Return its most specific level and the name there; both empty if it has none."""
        for level, name in zip(reversed(_LEVELS), reversed(self), strict=True):
            if name:
                return level, name
        return "", ""

    @property
    def summary(self) -> tuple[PlaceNames, ...]:
        """Return every larger place that contains it; location search starts from those rows."""
        return tuple(PlaceNames(*self[:depth]) for depth in (1, 2, 3) if any(self[depth:]))


Coordinates = tuple[float, float]
"""Latitude (north positive) and longitude (east positive), in degrees."""


def seeded_places() -> dict[PlaceNames, Coordinates]:
    """Return the places of the generated samples: North America, down to counties of California."""
    return {
        PlaceNames(*(row[level] or None for level in _LEVELS)): (
            float(row["latitude"]),
            float(row["longitude"]),
        )
        for row in resource_rows("locations.csv")
    }


def known_places(session: Session) -> dict[PlaceNames, int]:
    """Return the ID of each existing location."""
    columns = [getattr(Location, level) for level in _LEVELS]
    rows = session.execute(sa.select(*columns, Location.id).order_by(Location.id.desc()))
    return {PlaceNames(*row[:4]): row[4] for row in rows}


def add_places(session: Session, places: Iterable[tuple[PlaceNames, Coordinates | None]]) -> int:
    """Add the locations that are missing; return their number.

    The unique constraint does not prevent duplicates, as it treats NULLs as distinct.
    """
    known = known_places(session)
    missing = {place: at or (None, None) for place, at in places if place not in known}
    if missing:
        names = (*_LEVELS, "latitude", "longitude")
        rows = [dict(zip(names, (*place, *at), strict=True)) for place, at in missing.items()]
        session.execute(sa.insert(Location), rows)
    return len(missing)


@dataclass(frozen=True)
class Owner:
    """The group that samples are seeded into.

    Attributes:
        row: The values that all of its samples have in common, with the laboratory and the user
            recorded as the collector and the uploader.
    """

    group: int
    prefix: str
    row: Row


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
    row = {
        "group_id": group,
        "original_submission": "{}",
        "sample_collected_by": found[1],
        "organism": _ORGANISM,
        "uploaded_by_id": _uploader(session, group),
        "pathogen_id": pathogen_id(session),
        "entity_type": EntityType.UPLOADED_PATHOGEN_GENOME.value,
    }
    return Owner(group, found[0], row)


def _uploader(session: Session, group: int) -> int:
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
    return uploader


def pathogen_id(session: Session) -> int:
    """Return the ID of SARS-CoV-2."""
    return session.scalars(sa.select(Pathogen.id).where(Pathogen.slug == PATHOGEN_SLUG)).one()


def number_rows(session: Session, rows: Sequence[Row]) -> None:
    """Give new samples their IDs and those of their genomes, in ascending order."""
    statement = sa.text("SELECT nextval(CAST(:name AS regclass)) FROM generate_series(1, :count)")
    for key, sequence in (("sample_id", "samples_id_seq"), ("entity_id", "entities_id_seq")):
        wanted = {"name": f"aspen.{sequence}", "count": len(rows)}
        for row, number in zip(rows, session.scalars(statement, wanted), strict=True):
            row[key] = number


def copy_rows(session: Session, table: str, rows: Iterable[Row]) -> None:
    """Append rows to a table with COPY, in the session's transaction; missing values are NULL."""
    named = [word.partition(":") for word in _TABLES[table].split()]
    keys = [key or column for column, _, key in named]
    # Build the lines first: if anything fails while the driver reads them, even through Ctrl-C, the
    # driver raises an error that hides the cause.
    lines = [copy_line(*map(row.get, keys)) for row in rows]
    columns = ", ".join(column for column, _, _ in named)
    copy_in(session.connection(), f"aspen.{table} ({columns})", lines)


def analyse(session: Session) -> None:
    """Update the planner's statistics for the new rows at once."""
    touched = ", ".join(f"aspen.{table}" for table in (*_TABLES, "locations"))
    session.execute(sa.text(f"ANALYZE {touched}"))


@dataclass(frozen=True)
class SeedResult:
    """The number of samples added, and the private identifiers of the first and the last one."""

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

    ``progress`` is called with the number of samples written since the last call.

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
        known = known_places(session)
        places = [known[place] for place in seeded_places() if place.location]
        start = _next_number(session, owner)
        samples = (_make(n, seed, owner, places) for n in range(start, start + count))
        while batch := list(islice(samples, _BATCH)):
            _write(session, batch)
            first, last = first or batch[0]["private_identifier"], batch[-1]["private_identifier"]
            if progress:
                progress(len(batch))
        if count:
            analyse(session)
    return SeedResult(count, first, last, time.monotonic() - began)


def _next_number(session: Session, owner: Owner) -> int:
    """Return one more than the highest number among the group's generated samples."""
    digits = sa.func.substring(Sample.private_identifier, f"^{owner.prefix}-([0-9]{{7,9}})$")
    highest = session.scalar(
        sa.select(sa.func.max(sa.cast(digits, sa.Integer))).where(
            Sample.submitting_group_id == owner.group
        )
    )
    return (highest or 0) + 1


def _write(session: Session, batch: list[Row]) -> None:
    """Write samples with all of their related rows."""
    number_rows(session, batch)
    for row in batch:
        if row["lineage"]:
            row.update(_analysis(row))
    for table in _TABLES:
        needed = _NEEDS.get(table, "sample_id")
        copy_rows(session, table, (row for row in batch if row[needed]))


def _make(number: int, seed: int, owner: Owner, places: list[int]) -> Row:
    """Return a sample before it has an ID; the order of its random values must never change."""
    chance = random.Random(f"{seed}:{owner.prefix}:{number}")  # noqa: S311 - must be repeatable
    day = _FIRST_DAY + timedelta(days=chance.randrange(_DAYS))
    lineages, weights = _common_lineages(day)
    sequence, missing, substitutions = _sequence(chance, seed)
    place = places[chance.randrange(len(places))]
    chance.random()  # once chose who is private; still drawn so that the n-th sample stays the same
    row = {
        **owner.row,
        "private_identifier": f"{owner.prefix}-{number:07d}",
        "public_identifier": f"{PUBLIC_PREFIX}/USA/CA-{owner.prefix}-{number}/{day.year}",
        "collection_date": day,
        "location_id": place,
        "private": number % _PRIVATE_EACH == 0,
        "host": chance.choices(_HOSTS, _HOST_WEIGHTS)[0],
        "purpose_of_sampling": _PURPOSES[chance.randrange(len(_PURPOSES))],
        "authors": json.dumps([f"{_SURNAMES[chance.randrange(len(_SURNAMES))]} et al"]),
        "sequence": sequence,
        "num_unambiguous_sites": len(sequence) - missing,
        "num_missing_alleles": missing,
        "num_mixed": 0,
        "substitutions": substitutions,
        "sequencing_date": day + timedelta(days=chance.randrange(2, 15)),
        "upload_date": day + timedelta(days=chance.randrange(15, 45)),
        "sequencing_depth": round(chance.uniform(40, 1200), 1),
        "lineage": chance.choices(lineages, weights)[0] if chance.random() < _LINEAGE else None,
        "accession_type": AccessionType.GISAID_ISL.value,
        "accession": f"EPI_ISL_{900_000_000 + chance.randrange(99_999_999)}"
        if chance.random() < _ACCESSION
        else None,
        "qc_score": round(chance.expovariate(1 / 12), 1),
    }
    return (
        row if number > _WHOLE else {**row, **_whole_genome(row, f"{seed}:{owner.prefix}:{number}")}
    )


def _whole_genome(row: Row, name: str) -> Row:
    """Return what changes in a sample that gets a whole genome."""
    found = descendant(name, row["collection_date"], branch_of(row["lineage"]))
    return {
        "sequence": found.sequence,
        "num_unambiguous_sites": len(found.sequence) - found.missing,
        "num_missing_alleles": found.missing,
        "substitutions": ",".join(found.substitutions),
    }


def drawn_differences(identifier: str) -> int:
    """Return the differences of the short sequence that was drawn for a private identifier.

    0 if it is not that of a generated sample.
    """
    prefix, _, number = identifier.rpartition("-")
    if not prefix or not number.isdecimal():
        return 0
    chance = random.Random(f"0:{prefix}:{int(number)}")  # noqa: S311 - as in _make
    chance.randrange(_DAYS)
    _, _, substitutions = _sequence(chance, 0)
    return len(substitutions.split(",")) if substitutions else 0


def branch_of(lineage: str | None) -> tuple[str, date] | None:
    """Return a seeded lineage with the first day on which it was common; None for any other."""
    row = seeded_lineages().get(lineage or "")
    return (row["lineage"], date.fromisoformat(row["first"])) if row else None


def _analysis(row: Row) -> Row:
    """Return the results of Pangolin and Nextclade for a sample with a lineage."""
    score = row["qc_score"]
    mediocre = "mediocre" if score < _MEDIOCRE_QC else "bad"
    quality = "good" if score < _GOOD_QC else mediocre
    lineage = seeded_lineages()[row["lineage"]]
    pangolin = _of_pangolin(row, lineage)
    return {
        "lineage_type": LineageType.PANGOLIN.value,
        "lineage_software_version": _PANGOLIN,
        "lineage_probability": 1.0,
        # Pangolin's report omits empty columns.
        "raw_lineage_output": json.dumps({name: text for name, text in pangolin.items() if text}),
        "qc_caller": QCMetricCaller.NEXTCLADE.value,
        "qc_software_version": _NEXTCLADE,
        "qc_status": quality,
        "raw_qc_output": json.dumps(_of_nextclade(row, lineage, quality)),
        "mutations_caller": MutationsCaller.NEXTCLADE.value,
        **dict.fromkeys(("insertions", "deletions"), ""),
        **dict.fromkeys(("aa_substitutions", "aa_insertions", "aa_deletions"), ""),
        "reference_sequence_accession": REFERENCE,
    }


def _of_pangolin(row: Row, lineage: Mapping[str, str]) -> dict[str, str]:
    scorpio = {"scorpio_support": "0.92", "scorpio_conflict": "0.0"}
    return {
        "taxon": str(row["entity_id"]),
        "lineage": lineage["lineage"],
        "conflict": "0.0",
        "ambiguity_score": "1.0",
        "scorpio_call": lineage["scorpio_call"],
        "version": f"PUSHER-v{_PANGOLIN}",
        "pangolin_version": _PANGOLIN,
        "is_designated": "False",
        "qc_status": "pass",
        "qc_notes": f"Ambiguous_content:{row['num_missing_alleles'] / len(row['sequence']):.2f}",
        **(scorpio if lineage["scorpio_call"] else {}),
    }


def _of_nextclade(row: Row, lineage: Mapping[str, str], quality: str) -> dict[str, str]:
    found = row["substitutions"]
    return {
        "seqName": str(row["sample_id"]),
        "clade": lineage["clade"],
        "Nextclade_pango": lineage["lineage"],
        "qc.overallScore": str(row["qc_score"]),
        "qc.overallStatus": quality,
        "totalSubstitutions": str(len(found.split(",")) if found else 0),
        "totalMissing": str(row["num_missing_alleles"]),
        "substitutions": found,
        "deletions": "",
        "insertions": "",
    }


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
    """Return the sequence that a seed's short sequences descend from."""
    return bytes(random.Random(f"ancestor:{seed}").choices(_BASES, k=_SITES))  # noqa: S311 - same
