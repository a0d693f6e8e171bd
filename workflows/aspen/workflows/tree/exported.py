"""Facts about a run that its first step wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from aspen.workflows.data import GENOMES, Genome
from aspen.workflows.steps import StepError

VERSIONS = "versions.json"
"""The file, in a step's folder, with the versions of the programs that ran."""


@dataclass(frozen=True)
class Exported:
    """A run as ``tree-export`` describes it.

    Attributes:
        pathogen: The pathogen's slug.
        title: The title of the tree.
        include: The strains that the tree must contain, own and public ones.
    """

    pathogen: str
    title: str
    include: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path) -> Exported:
        """Return what is in the folder of the step."""
        run = json.loads((folder / "run.json").read_text())
        include = folder / "include.txt"
        lines = include.read_text().splitlines() if include.exists() else []
        return cls(
            pathogen=run["pathogen"],
            title=run["title"],
            include=tuple(line.strip() for line in lines if line.strip()),
        )

    @property
    def genome(self) -> Genome:
        """Return facts about the pathogen's genome.

        Raises:
            StepError: Trees are not built for this pathogen.
        """
        genome = GENOMES.get(self.pathogen)
        if genome is None:
            raise StepError(f"Trees of {self.pathogen} cannot be built: only {_slugs()}.")
        return genome


def _slugs() -> str:
    return " and ".join(GENOMES)
