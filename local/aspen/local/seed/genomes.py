"""Genomes of generated samples: descendants of the reference, as an epidemic leaves them behind.

A trunk gains a substitution each 15 days, which is the rate of SARS-CoV-2. A lineage leaves it on
the first day on which it was common, and gains its own; so does each sample some weeks before its
collection. Trees of these genomes show the lineages as clades, with dates that fit.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import date, timedelta
from functools import cache
from typing import NamedTuple

from aspen.workflows.data import GENOMES

_BASES = b"ACGT"
_ROOT = date(2019, 12, 26)
_DAYS = 15  # from one substitution to the next
_ENDS = 300  # sites that stay as they are, for aligners
_MOST = 120  # substitutions of a trunk, of some five years
_UNKNOWN, _LONGEST_GAP = 0.3, 30  # the fraction of genomes with unknown sites, and their number
_ALONE = (20, 75)  # days since a sample's branch has left the others


class Descendant(NamedTuple):
    """A generated genome.

    Attributes:
        missing: The number of unknown sites.
        substitutions: Its differences from the reference, as Nextclade writes them.
    """

    sequence: str
    missing: int
    substitutions: tuple[str, ...]


def descendant(name: str, day: date, branch: tuple[str, date] | None = None) -> Descendant:
    """Return the genome of a sample, always the same for the same arguments.

    Args:
        name: A name that is unique among the samples.
        day: The collection date.
        branch: Its lineage, and the day on which that left the trunk; None for the trunk itself.
    """
    chance = random.Random(f"genome:{name}")  # noqa: S311 - must be repeatable
    left = day - timedelta(days=chance.randrange(*_ALONE))
    changes = _changes("trunk", _ROOT, min(left, branch[1]) if branch else left)
    if branch:
        changes |= _changes(branch[0], branch[1], left)
    own = round((day - left).days / _DAYS + chance.uniform(-1, 1))  # none if negative
    changes |= dict(_substitution(chance) for _ in range(own))
    before, sites = reference(), bytearray(reference())
    for site, base in changes.items():
        sites[site] = base
    missing = chance.randrange(_LONGEST_GAP) if chance.random() < _UNKNOWN else 0
    start = chance.randrange(_ENDS, len(sites) - _ENDS - missing)
    sites[start : start + missing] = b"N" * missing
    return Descendant(sites.decode(), missing, _differences(before, sites, changes))


def _differences(before: bytes, after: bytearray, sites: Iterable[int]) -> tuple[str, ...]:
    return tuple(
        f"{before[site]:c}{site + 1}{after[site]:c}"
        for site in sorted(sites)
        if after[site] not in (before[site], ord("N"))
    )


@cache
def reference() -> bytes:
    """Return the reference genome."""
    known = GENOMES["SC2"].reference
    assert known  # noqa: S101 - it has one
    return known.sequence.encode()


def _changes(branch: str, first: date, last: date) -> dict[int, int]:
    """Return the bases, by site, that a branch has gained in a period."""
    return dict(_branch(branch)[: max((last - first).days, 0) // _DAYS])


@cache
def _branch(name: str) -> tuple[tuple[int, int], ...]:
    chance = random.Random(f"branch:{name}")  # noqa: S311 - must be repeatable
    return tuple(_substitution(chance) for _ in range(_MOST))


def _substitution(chance: random.Random) -> tuple[int, int]:
    """Return a site, and a base that the reference does not have there."""
    site = chance.randrange(_ENDS, len(reference()) - _ENDS)
    return site, chance.choice(_BASES.replace(reference()[site : site + 1], b""))
