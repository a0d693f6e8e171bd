"""The kinds of jobs: their parameters, their steps, and what each step reads and writes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Kind(StrEnum):
    """A kind of job."""

    TREE = "tree"
    """Builds the tree of a run."""
    QC = "qc"
    """Assesses the quality of genomes, and calls mutations, with Nextclade."""
    LINEAGES = "lineages"
    """Assigns lineages to SARS-CoV-2 genomes, with pangolin."""
    IMPORT_REPOSITORY = "import-repository"
    """Imports the genomes and metadata of a public repository."""
    IMPORT_LINEAGES = "import-lineages"
    """Replaces the list of a pathogen's lineages."""
    IMPORT_LOCATIONS = "import-locations"
    """Adds locations, and their latitudes and longitudes."""


class RunType(StrEnum):
    """The choice of samples of a QC or lineage job; the words are the live service's."""

    GIVEN = "specified-ids-only"
    STALE = "refresh-stale"
    ALL = "force-all"


class Parameters(BaseModel):
    """The input of a job; it is stored as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TreeParameters(Parameters):
    """A tree run, by its workflow ID."""

    run_id: Annotated[int, Field(ge=1)]


class SampleParameters(Parameters):
    """The samples of a pathogen to process."""

    pathogen: str  # its slug
    run_type: RunType = RunType.GIVEN
    sample_ids: tuple[int, ...] = ()


class RepositoryParameters(Parameters):
    """A public repository's dump: two files or URLs, plain or compressed."""

    pathogen: str
    repository: str
    metadata: str
    sequences: str
    coordinates: str | None = None  # as for import-locations


class FileParameters(Parameters):
    """A file to import for a pathogen."""

    pathogen: str
    file: str


@dataclass(frozen=True)
class Step:
    """One step of a job: a module of `aspen.workflows.steps`, run as a process of its own.

    Attributes:
        name: The name that people see, with hyphens; the module's has underscores.
        reads: What it needs: files of earlier steps (``step/file``), tables, or objects.
        writes: What it leaves behind, in the same notation.
        seconds: The time limit.
        megabytes: The memory limit.
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    seconds: int = 3600
    megabytes: int = 2048

    @property
    def module(self) -> str:
        """Return the full name of the module."""
        return f"aspen.workflows.steps.{self.name.replace('-', '_')}"


@dataclass(frozen=True)
class Plan:
    """A kind's parameters and steps."""

    parameters: type[Parameters]
    steps: tuple[Step, ...]


_LONG = 54_000
"""The live service's limit for one job, for steps whose time grows with their input."""

PLANS = {
    Kind.TREE: Plan(
        TreeParameters,
        (
            Step(
                "tree-export",
                ("phylo_runs", "samples"),
                (
                    "tree-export/sequences.fasta",
                    "tree-export/metadata.tsv",
                    "tree-export/include.txt",
                    "tree-export/builds.yaml",
                    "tree-export/run.json",
                    "tree-export/lat_longs.tsv",
                ),
            ),
            Step("tree-align", ("tree-export/sequences.fasta",), ("tree-align/aligned.fasta",)),
            Step(
                "tree-subsample",
                ("tree-export/*", "tree-align/aligned.fasta", "aligned_repository_data"),
                (
                    "tree-subsample/aligned.fasta",
                    "tree-subsample/metadata.tsv",
                    "tree-subsample/counts.json",
                ),
            ),
            Step("tree-build", ("tree-subsample/aligned.fasta",), ("tree-build/tree.nwk",)),
            Step(
                "tree-refine",
                ("tree-build/tree.nwk", "tree-subsample/*"),
                ("tree-refine/tree.nwk", "tree-refine/*.json"),
            ),
            Step("tree-assemble", ("tree-refine/*",), ("tree-assemble/tree.json",)),
            Step(
                "tree-save",
                ("tree-assemble/tree.json", "tree-export/run.json"),
                ("phylo_trees", "phylo_tree_samples", "phylo_run/…"),
            ),
        ),
    ),
    Kind.QC: Plan(
        SampleParameters,
        (
            Step("qc-prepare", ("samples",), ("qc-prepare/sequences.fasta",)),
            Step(
                "qc-nextclade",
                ("qc-prepare/sequences.fasta",),
                ("qc-nextclade/*",),
                seconds=_LONG,
                megabytes=4096,
            ),
            Step(
                "qc-save",
                ("qc-nextclade/*",),
                (
                    "sample_qc_metrics",
                    "sample_mutations",
                    "sample_lineages",
                    "aligned_pathogen_genomes",
                ),
            ),
        ),
    ),
    Kind.LINEAGES: Plan(
        SampleParameters,
        (
            Step("lineages-prepare", ("samples",), ("lineages-prepare/sequences.fasta",)),
            Step(
                "lineages-pangolin",
                ("lineages-prepare/sequences.fasta",),
                ("lineages-pangolin/lineage_report.csv",),
                seconds=_LONG,
                megabytes=8192,
            ),
            Step("lineages-save", ("lineages-pangolin/*",), ("sample_lineages",)),
        ),
    ),
    Kind.IMPORT_REPOSITORY: Plan(
        RepositoryParameters,
        (
            Step("repository-fetch", (), ("repository-fetch/*",), seconds=_LONG),
            Step(
                "repository-align",
                ("repository-fetch/*",),
                ("repository-align/*",),
                seconds=_LONG,
            ),
            Step(
                "repository-save",
                ("repository-fetch/*", "repository-align/*"),
                (
                    "raw_repository_data",
                    "processed_repository_data",
                    "aligned_repository_data",
                    "public_repository_metadata",
                    "locations",
                    "accessions",
                ),
                seconds=_LONG,
            ),
        ),
    ),
    Kind.IMPORT_LINEAGES: Plan(
        FileParameters, (Step("import-lineages", (), ("pathogen_lineages",)),)
    ),
    Kind.IMPORT_LOCATIONS: Plan(FileParameters, (Step("import-locations", (), ("locations",)),)),
}
"""The plan of each kind."""

STEPS_VARIABLE = "ASPEN_JOB_STEPS"
"""The variable that names another package with `PLANS` and steps, for tests of the engine."""


def steps_package() -> str:
    """Return the package with the modules of the steps."""
    return os.environ.get(STEPS_VARIABLE) or "aspen.workflows.steps"


def plans() -> Mapping[Kind, Plan]:
    """Return the plan of each kind."""
    if other := os.environ.get(STEPS_VARIABLE):
        found: Mapping[Kind, Plan] = import_module(other).PLANS
        return found
    return PLANS
