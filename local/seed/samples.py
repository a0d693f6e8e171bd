"""Generated samples, in any number; the same seed gives the same samples."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from itertools import islice

import sqlalchemy as sa
from sqlalchemy.orm import Session

from aspencli.errors import BadInputError
from db.database import Database
from db.models import Sample
from local.seed.lineages import about
from local.seed.made import Made, write
from local.seed.places import add_places, known_places, seeded_places
from local.seed.records import (
    PUBLIC_PREFIX,
    Owner,
    analyse,
    owner_of,
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
