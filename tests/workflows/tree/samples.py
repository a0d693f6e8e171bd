"""Generated samples: an outbreak that evolves from the reference, and jobs to try the steps on."""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from aspen.workflows.data import GENOMES
from tests import zygote

SC2 = GENOMES["SC2"]
assert SC2.reference is not None
REFERENCE = SC2.reference
WUHAN = REFERENCE.strain
SEQUENCE = REFERENCE.sequence
STEPS = ("tree-align", "tree-build", "tree-refine", "tree-assemble")
SURROUNDINGS = {"DB_DSN": "postgresql://none", "S3_DB_BUCKET": "none"}
"""Addresses that these steps do not use."""
REAL = next(
    (
        folder
        for above in Path(__file__).resolve().parents
        if (folder := above / "shared" / "data").is_dir()
    ),
    None,
)
needs_real_genomes = pytest.mark.skipif(REAL is None, reason="the real genomes are not here")


@dataclass
class Sample:
    """A genome, and what is known about it."""

    name: str
    sequence: str
    date: str = "2020-03-01"
    place: tuple[str, str, str] = ("Europe", "Switzerland", "Zurich")
    more: dict[str, str] = field(default_factory=dict)

    @property
    def row(self) -> dict[str, str]:
        region, country, division = self.place
        return {
            "strain": self.name,
            "date": self.date,
            "region": region,
            "country": country,
            "division": division,
            **self.more,
        }


def mutated(sequence: str, sites: Iterable[int]) -> str:
    """Return a sequence with another base at sites from 1."""
    bases = list(sequence)
    for site in sites:
        bases[site - 1] = {"A": "G", "G": "A", "C": "T", "T": "C"}[bases[site - 1]]
    return "".join(bases)


def outbreak(number: int, seed: int = 1) -> list[Sample]:
    """Return samples of an outbreak: each descends from an earlier one, two mutations a month."""
    chance = random.Random(seed)
    sites = chance.sample(range(300, 29_500), 20 * number)
    places = [
        ("Europe", "Switzerland", "Zurich"),
        ("Europe", "Germany", "Bavaria"),
        ("North America", "USA", "California"),
    ]
    start = date.fromisoformat(REFERENCE.date)
    lines = [(start, SEQUENCE, places[0])]
    found = []
    for index in range(number):
        day, sequence, place = chance.choice(lines[-8:])
        days = chance.randint(10, 20)
        day += timedelta(days=days)
        # A third of a mutation more or less than the clock says, as chance would have it.
        mutations = max(1, round(days * 2 / 30))
        sequence = mutated(sequence, [sites.pop() for _ in range(mutations)])
        if chance.random() < 0.1:
            place = chance.choice(places)
        lines.append((day, sequence, place))
        found.append(Sample(f"Made/{index + 1:03}/{day.year}", sequence, day.isoformat(), place))
    return found


def reference_sample() -> Sample:
    """Return the reference as a tip of a tree."""
    return Sample(WUHAN, SEQUENCE, REFERENCE.date, ("Asia", "China", "Hubei"))


def write_fasta(path: Path, samples: Iterable[Sample]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f">{sample.name}\n{sample.sequence}\n" for sample in samples))


def write_table(path: Path, samples: Sequence[Sample]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(key for sample in samples for key in sample.row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(
            file, columns, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None
        )
        writer.writeheader()
        writer.writerows(sample.row for sample in samples)


@dataclass
class Job:
    """The folder of a tree job, with the files of the steps that are not tried."""

    folder: Path
    pathogen: str = "SC2"
    title: str = "A generated outbreak"

    def export(self, samples: Sequence[Sample], include: Sequence[str] | None = None) -> None:
        """Write what ``tree-export`` writes."""
        out = self.folder / "tree-export"
        write_fasta(out / "sequences.fasta", samples)
        write_table(out / "metadata.tsv", samples)
        chosen = [sample.name for sample in samples] if include is None else include
        (out / "include.txt").write_text("".join(f"{name}\n" for name in chosen))
        run = {"run_id": 9, "pathogen": self.pathogen, "title": self.title}
        (out / "run.json").write_text(json.dumps(run))

    def subsample(self, samples: Sequence[Sample]) -> None:
        """Write what ``tree-subsample`` writes: all aligned sequences, and the reference."""
        aligned = self.read("tree-align", "aligned.fasta")
        if self.pathogen == "SC2" and WUHAN not in [sample.name for sample in samples]:
            samples = [reference_sample(), *samples]
            aligned = f">{WUHAN}\n{SEQUENCE}\n{aligned}"
        out = self.folder / "tree-subsample"
        out.mkdir(exist_ok=True)
        (out / "aligned.fasta").write_text(aligned)
        names = {line[1:] for line in aligned.splitlines() if line.startswith(">")}
        write_table(out / "metadata.tsv", [each for each in samples if each.name in names])

    def step(self, name: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a step as the engine does."""
        return zygote.run_text(
            [name, str(self.folder)],
            env={**os.environ, **SURROUNDINGS, **environment},
            module="aspen.workflows.steps",
            timeout=600,
        )

    def done(self, name: str, **environment: str) -> None:
        """Run a step that succeeds."""
        done = self.step(name, **environment)
        assert done.returncode == 0, done.stdout + done.stderr

    def refused(self, name: str, **environment: str) -> str:
        """Run a step that fails for a reason that it explains, and return the reason."""
        done = self.step(name, **environment)
        assert done.returncode == 3, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return self.read(name, "reason.txt")

    def run(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Run all steps, and return the Auspice JSON."""
        self.export(samples)
        for step in STEPS:
            self.done(step)
            if step == "tree-align":
                self.subsample(samples)
        return self.tree()

    def tree(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.read("tree-assemble", "tree.json"))
        return found

    def read(self, step: str, name: str) -> str:
        return (self.folder / step / name).read_text()


def tips(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the tips of an Auspice JSON by name."""
    return {node["name"]: node for node in nodes(document) if "children" not in node}


def nodes(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all nodes of an Auspice JSON, the root first."""
    found = []
    waiting = [document["tree"]]
    while waiting:
        node = waiting.pop()
        found.append(node)
        waiting.extend(node.get("children", ()))
    return found


def real_samples(number: int | None = None) -> list[Sample]:
    """Return the real genomes, or a number of them evenly spread over the file."""
    assert REAL is not None
    with (REAL / "ncov_genbank_metadata.tsv").open(newline="") as file:
        rows = {row["strain"]: row for row in csv.DictReader(file, delimiter="\t")}
    samples = []
    name = ""
    with gzip.open(REAL / "ncov_genbank_sequences.fasta.gz", "rt") as file:
        for line in file:
            if line.startswith(">"):
                name = line[1:].strip()
                continue
            row = rows[name]
            place = (row["region"], row["country"], row["division"])
            more = {key: row[key] for key in ("genbank_accession", "authors", "location")}
            samples.append(Sample(name, line.strip(), row["date"], place, more))
    if number is None:
        return samples
    return [samples[index * len(samples) // number] for index in range(number)]
