"""Data that jobs need: the reference genome, its genes, and sites to mask.

`MN908947.3.fasta` is the record of that accession in GenBank (Wuhan-Hu-1); `MN908947.3.gff` has its
genes, with ORF1ab in two parts, as Nextclade names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
CONFIGURATION = FOLDER / "auspice.json"
"""The colorings, places, and defaults of all trees; those without data are left out of a tree."""


@dataclass(frozen=True)
class Reference:
    """The genome that others are aligned to.

    Attributes:
        accession: Its accession in GenBank, with the version.
        strain: Its name in trees, of which it is the root.
        date: Its collection date.
    """

    accession: str
    strain: str
    date: str

    @property
    def sequence_file(self) -> Path:
        """Return the file with the sequence, as FASTA."""
        return FOLDER / f"{self.accession}.fasta"

    @property
    def genes_file(self) -> Path:
        """Return the file with the genes, as GFF."""
        return FOLDER / f"{self.accession}.gff"

    @property
    def sequence(self) -> str:
        """Return the sequence."""
        lines = self.sequence_file.read_text().splitlines()
        return "".join(lines[1:])


@dataclass(frozen=True)
class Genome:
    """Facts about a pathogen's genome.

    Attributes:
        reference: The reference; without one, sequences arrive aligned, trees are rooted at their
            midpoint, and their nodes have no dates.
        minimum: The number of known bases that a sequence needs to be in a tree.
        masked: The number of sites ignored in trees at the beginning and at the end.
        masked_sites: Further sites ignored in trees, from 1.
    """

    minimum: int
    reference: Reference | None = None
    masked: tuple[int, int] = (0, 0)
    masked_sites: Sequence[int] = ()

    def mask(self, sequence: str) -> str:
        """Return an aligned sequence with N at the sites to ignore."""
        start, end = self.masked
        if start + end >= len(sequence):
            return "N" * len(sequence)
        middle = sequence[start : len(sequence) - end]
        sites = list("N" * start + middle + "N" * end)
        for site in self.masked_sites:
            if site <= len(sites):
                sites[site - 1] = "N"
        return "".join(sites)


GENOMES = {
    # The ends, and the two sites, as in Nextstrain's builds for SARS-CoV-2: sequencing and assembly
    # err there again and again. A sequence of which less than a tenth is known fits anywhere.
    "SC2": Genome(
        reference=Reference("MN908947.3", "Wuhan/Hu-1/2019", "2019-12-26"),
        minimum=3_000,
        masked=(100, 200),
        masked_sites=(21846, 21987),
    ),
    # As in Nextstrain's builds for mpox.
    "MPX": Genome(minimum=100_000, masked=(1350, 6422)),
}
"""The genome of each pathogen that trees are built for, by its slug."""
