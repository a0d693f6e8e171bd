"""The lineages of the made-up samples: which were about when."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Lineage:
    """A Pango lineage with the time in which it was common.

    Attributes:
        name: Such as ``BA.2.12.1``.
        first: The first day.
        last: The last day.
        weight: How common it was among the others of its time.
        clade: What Nextclade calls it.
        scorpio_call: The variant that Scorpio finds; empty for none.
    """

    name: str
    first: date
    last: date
    weight: int
    clade: str
    scorpio_call: str


@cache
def seeded_lineages() -> tuple[Lineage, ...]:
    """Lineages that were common in California, roughly as they followed each other."""
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
    """Return the lineage of a name."""
    return next(lineage for lineage in seeded_lineages() if lineage.name == name)


@cache
def about(day: date) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The lineages of a day, and how common each was."""
    found = [lineage for lineage in seeded_lineages() if lineage.first <= day <= lineage.last]
    return tuple(lineage.name for lineage in found), tuple(lineage.weight for lineage in found)
