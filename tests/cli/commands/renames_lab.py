"""A group of samples that can be renamed through the database or through the API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from aspen.database.engine import Database

H = "private_identifier,public_identifier"
_SEQUENCE = """
UPDATE aspen.pathogen_genomes g SET sequencing_date = date '2021-01-01' + s.id % 700
  FROM aspen.uploaded_pathogen_genomes u
  JOIN aspen.samples s ON s.id = u.sample_id
 WHERE u.pathogen_genome_id = g.entity_id AND s.submitting_group_id = :group AND s.id % 5 <> 0
"""
_STATE = """
SELECT s.id, s.private_identifier, s.public_identifier, s.private, s.collection_date,
       s.location_id, s.pathogen_id, g.sequencing_date
  FROM aspen.samples s
  LEFT JOIN aspen.uploaded_pathogen_genomes u ON u.sample_id = s.id
  LEFT JOIN aspen.pathogen_genomes g ON g.entity_id = u.pathogen_genome_id
 WHERE s.submitting_group_id = :group ORDER BY s.id
"""


@dataclass(frozen=True)
class Renames:
    """The samples of a group to rename.

    Attributes:
        database: Their database, open for writing.
        group: The group's ID.
    """

    database: Database
    group: int = 1

    def state(self) -> list[Mapping[str, Any]]:
        """Return everything that a rename could damage, for each sample."""
        with self.database.engine.connect() as connection:
            rows = connection.execute(sa.text(_STATE), {"group": self.group})
            return [dict(row._mapping) for row in rows]

    def names(self) -> dict[str, str]:
        """Return the public identifier of each sample."""
        return {row["private_identifier"]: row["public_identifier"] for row in self.state()}

    def rest(self) -> list[tuple[Any, ...]]:
        """Return everything that a rename must leave unchanged."""
        return [
            tuple(value for key, value in row.items() if key != "public_identifier")
            for row in self.state()
        ]

    def give_sequencing_dates(self) -> None:
        """Give four of five genomes a sequencing date."""
        with self.database.engine.begin() as connection:
            connection.execute(sa.text(_SEQUENCE), {"group": self.group})

    def set_names(self, names: Mapping[str, str]) -> None:
        """Rename samples, as a concurrent user would."""
        statement = (
            "UPDATE aspen.samples SET public_identifier = :name WHERE private_identifier = :key"
        )
        with self.database.engine.begin() as connection:
            for key, name in names.items():
                connection.execute(sa.text(statement), {"key": key, "name": name})


def tangled(names: Mapping[str, str], count: int) -> dict[str, str]:
    """Return new names: swaps, cycles of five, chains either way, a few unchanged, and new ones."""
    keys, free = list(names)[:count], iter(range(1_000_000))
    taken: dict[str, str] = {}
    rest = iter(keys)

    def block(size: int) -> list[str]:
        return [key for key, _ in zip(rest, range(size), strict=False)]

    def shift(block: Sequence[str], step: int, last: str) -> None:
        taken.update(zip(block, [names[key] for key in block[step:]], strict=False))
        taken[block[-1]] = last

    for _ in range(max(1, count // 50)):
        one, other = block(2)
        taken |= {one: names[other], other: names[one]}
    cycle = block(5)
    shift(cycle, 1, names[cycle[0]])
    for part in (block(count // 10), block(count // 10)[::-1]):
        shift(part, 1, f"new-chain-{next(free)}")
    for key in block(3):
        taken[key] = names[key]
    for key in rest:
        taken[key] = f"new-{next(free):06}"
    return taken


def write_mapping(path: Path, names: Mapping[str, str]) -> Path:
    """Write a mapping to a file."""
    lines = [H, *(f'"{key}","{name}"' for key, name in names.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
