"""The lineages of the generated samples, and when each was common."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files


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
    text = (files("local.seed") / "lineages.csv").read_text(encoding="utf-8")
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
