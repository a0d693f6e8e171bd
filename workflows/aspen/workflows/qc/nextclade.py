"""Nextclade: its versions, their command lines and datasets, and the files that they write.

Two generations are supported. Versions 2 and 3 download a dataset for each pathogen. Version 0.14
is the last one that is a package for Node.js; it knows SARS-CoV-2 only, and its data are part of
it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from aspen.workflows.imports.align import reference_of
from aspen.workflows.programs import Program, Version, run, say
from aspen.workflows.steps import StepError

NEXTCLADE = Program(
    "nextclade",
    "Install Nextclade 3 (https://docs.nextstrain.org/projects/nextclade), or for SARS-CoV-2 "
    "until 2021: npm install --global @nextstrain/nextclade@0.14.4",
)
TABLE, ALIGNED, DETAILS = "nextclade.tsv", "nextclade.aligned.fasta", "nextclade.json"
"""The names of its results, in the folder given to `Adapter.run`."""
NAME = "program.json"
BUNDLED = "sars-cov-2 (bundled)"
"""The name of the dataset that is part of version 0.14."""
_SC2 = "SC2"
_ACCESSION = "MN908947"
_DATASET = "dataset"
_DESCRIPTIONS = ("tag.json", "pathogen.json")
_DOWNLOAD_S = 60


@dataclass(frozen=True)
class Dataset:
    """The data that samples are compared with, as recorded with every result."""

    name: str
    accession: str  # of the reference sequence
    tag: str


class Adapter(Protocol):
    """A generation of Nextclade.

    Attributes:
        batch: The number of genomes for one start of the program.
    """

    batch: int

    def dataset(self, pathogen: str, name: str, folder: Path) -> Dataset:
        """Return the dataset for a pathogen; a folder for it may be used."""
        ...

    def run(self, path: Path, sequences: Path, folder: Path, dataset: Path) -> None:
        """Write the results for sequences to a folder."""
        ...


@dataclass(frozen=True)
class WithDatasets:
    """Versions 2 and 3, which download a dataset and run on it."""

    path: Path
    version: Version
    batch: int = 500

    def dataset(self, pathogen: str, name: str, folder: Path) -> Dataset:
        """Download the newest dataset of that name into a folder.

        Raises:
            StepError: It cannot be downloaded, or describes itself in a way that is not known.
        """
        del pathogen
        words: list[str | Path] = [
            self.path,
            "dataset",
            "get",
            "--name",
            name,
            "--output-dir",
            folder,
        ]
        title = f"nextclade {self.version.text} dataset get --name {name}"
        run(words, folder.with_suffix(".log"), title=title, seconds=_DOWNLOAD_S)
        return read_dataset(folder, name)

    def run(self, path: Path, sequences: Path, folder: Path, dataset: Path) -> None:
        """Write the results for sequences to a folder."""
        words: list[str | Path] = [
            *(path, "run", "--input-dataset", dataset, "--retry-reverse-complement"),
            *("--output-tsv", folder / TABLE, "--output-fasta", folder / ALIGNED, sequences),
        ]
        run(words, folder / "nextclade.log", title=f"nextclade {self.version.text}")


@dataclass(frozen=True)
class Bundled:
    """Version 0.14, whose data of 2021 are part of it."""

    path: Path
    version: Version
    batch: int = 50  # 25 s on one core; it keeps all results in memory until it ends

    def dataset(self, pathogen: str, name: str, folder: Path) -> Dataset:
        """Return the dataset that is part of the program.

        Raises:
            StepError: The pathogen is not SARS-CoV-2.
        """
        del name, folder
        if pathogen != _SC2:
            raise StepError(
                f"nextclade {self.version.text} knows SARS-CoV-2 only, not {pathogen}; no sample "
                f"was changed. {NEXTCLADE.source}"
            )
        say(f"nextclade {self.version.text} knows no clades after 2021.")
        return Dataset(BUNDLED, _ACCESSION, f"{self.version.text}: clades end in 2021")

    def run(self, path: Path, sequences: Path, folder: Path, dataset: Path) -> None:
        """Write the results for sequences to a folder."""
        del dataset
        words: list[str | Path] = [
            *(path, "--jobs", "1", "--input-fasta", sequences),
            *("--output-tsv", folder / TABLE, "--output-json", folder / DETAILS),
        ]
        run(words, folder / "nextclade.log", title=f"nextclade {self.version.text}")
        details = json.loads((folder / DETAILS).read_text())
        reference = reference_of(_SC2)
        with (folder / ALIGNED).open("w") as file:
            for one in details:
                if not one["errors"]:
                    file.write(f">{one['seqName']}\n{rebuild(one, reference)}\n")


def rebuild(details: Mapping[str, Any], reference: str) -> str:
    """Return an aligned sequence that is described by its differences from the reference.

    Args:
        details: The result for one sequence in the JSON that `Bundled` writes.
        reference: The reference sequence.
    """
    letters = list(reference)
    for one in details["substitutions"]:
        letters[one["pos"]] = one["queryNuc"]
    for one in (*details["missing"], *details["nonACGTNs"]):
        letters[one["begin"] : one["end"]] = one["nuc"] * (one["end"] - one["begin"])
    for one in details["deletions"]:
        letters[one["start"] : one["start"] + one["length"]] = "-" * one["length"]
    start, end = int(details["alignmentStart"]), int(details["alignmentEnd"]) + 1
    return "-" * start + "".join(letters[start:end]) + "-" * (len(reference) - end)


def read_dataset(folder: Path, name: str) -> Dataset:
    """Return a downloaded dataset's description of itself.

    Version 2 writes tag.json, with plain values or with ``attributes``; version 3 has
    pathogen.json. The name is the requested one, as version 3 uses several for a dataset.

    Raises:
        StepError: It is missing, or lacks the accession or the tag.
    """
    file = next((file for file in _DESCRIPTIONS if (folder / file).is_file()), None)
    if file is None:
        raise StepError(f"The Nextclade dataset {name} has neither tag.json nor pathogen.json.")
    described = json.loads((folder / file).read_text())
    attributes = described.get("attributes") or {}
    accession = _text(
        attributes.get("reference accession")
        or described.get("reference")
        or attributes.get("reference")
        or described.get("accession")
    )
    tag = _text(
        described.get("tag") or attributes.get("tag") or (described.get("version") or {}).get("tag")
    )
    if not accession or not tag:
        raise StepError(f"The Nextclade dataset {name} states no reference or no tag in {file}.")
    return Dataset(name, accession, tag)


def _text(value: Any) -> str:
    """Return a value that may be wrapped in an object."""
    if isinstance(value, dict):
        value = next((value[key] for key in ("accession", "value", "tag") if value.get(key)), None)
    return value if isinstance(value, str) else ""


def adapter() -> WithDatasets | Bundled:
    """Return the adapter for the Nextclade that is installed.

    Raises:
        StepError: There is none, or its version is not supported.
    """
    path = NEXTCLADE.find()
    printed = NEXTCLADE.ask("--version")
    version = Version.find(printed)
    if version is None:
        raise StepError(f"{path} --version printed {printed[:100]!r}; it is not Nextclade.")
    if version.major in {2, 3}:
        return WithDatasets(path, version)
    if (version.major, version.minor) == (0, 14):
        return Bundled(path, version)
    raise StepError(
        f"nextclade {version.text} is not supported (supported: 0.14, 2, and 3); no sample was "
        f"changed. {NEXTCLADE.source}"
    )


@dataclass(frozen=True)
class Prepared:
    """The program and dataset that a job uses from its first step to its last."""

    version: str
    dataset: Dataset
    pathogen: str

    def write(self, folder: Path) -> None:
        """Write it to a step's folder."""
        (folder / NAME).write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return what `write` wrote."""
        found = json.loads((folder / NAME).read_text())
        return cls(**{**found, "dataset": Dataset(**found["dataset"])})
