"""Nextclade's results: read, checked for completeness, and in the form that the database has."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aspen.workflows.programs import named
from aspen.workflows.reading import sequences
from aspen.workflows.steps import StepError

_NAME = "seqName"
_NEEDED = (
    *(_NAME, "clade", "qc.overallScore", "qc.overallStatus"),
    *("substitutions", "deletions", "insertions", "aaSubstitutions", "aaDeletions", "errors"),
)
FAILED = "FAILED"
"""The lineage of a sample that has none."""
INVALID = "invalid"


@dataclass(frozen=True)
class Result:
    """The result for one sample.

    Attributes:
        mutations: The columns of ``sample_mutations``; None where this version has no such column.
        raw: The program's whole row.
        aligned: The sequence in the reference's coordinates; None if it could not be aligned.
    """

    sample: int
    score: str | None
    status: str
    lineage: str
    mutations: Mapping[str, str | None]
    raw: Mapping[str, str]
    aligned: str | None = None


_MUTATIONS = {
    "substitutions": "substitutions",
    "insertions": "insertions",
    "deletions": "deletions",
    "aa_substitutions": "aaSubstitutions",
    "aa_insertions": "aaInsertions",
    "aa_deletions": "aaDeletions",
}
"""The program's column for each one of ``sample_mutations``."""


def read_table(path: Path, title: str, delimiter: str, needed: Collection[str]) -> Iterator[Any]:
    """Yield the rows of a program's table as dictionaries.

    Raises:
        StepError: The table is missing, lacks a column, or ends in the middle of a row.
    """
    try:
        file = path.open(encoding="utf-8", newline="")
    except FileNotFoundError as error:
        raise StepError(f"{title} wrote no {path.name}.") from error
    with file:
        reader = csv.reader(file, delimiter=delimiter)
        header = next(reader, [])
        if missing := [name for name in needed if name not in header]:
            raise StepError(f"{title} wrote {path.name} without {named(missing)}.")
        for cells in reader:
            if len(cells) != len(header):
                raise StepError(f"{title} wrote an incomplete row (line {reader.line_num}).")
            yield dict(zip(header, cells, strict=True))


def check_names(title: str, found: list[str], asked: Collection[int]) -> None:
    """Check that there is exactly one result for each sample.

    Raises:
        StepError: Some are missing, repeated, or for sequences that were not in the input.
    """
    wanted = {str(sample) for sample in asked}
    if others := [name for name in found if name not in wanted]:
        raise StepError(f"{title} returned sequences that it was not given: {named(others)}.")
    if missing := sorted(wanted.difference(found), key=int):
        raise StepError(
            f"{title} returned no result for {len(missing):,} of {len(wanted):,} samples: "
            f"{named(missing)}."
        )
    if len(found) != len(wanted):
        twice = sorted({name for name in found if found.count(name) > 1}, key=int)
        raise StepError(f"{title} returned more than one result for samples {named(twice)}.")


def read_results(
    table: Path, aligned: Path, title: str, asked: Collection[int]
) -> Iterator[Result]:
    """Yield the result for each sample of a batch, after checking that the batch is complete.

    Raises:
        StepError: It is not; nothing of it can be relied on.
    """
    rows = list(read_table(table, title, "\t", _NEEDED))
    check_names(title, [row[_NAME] for row in rows], asked)
    found = _aligned(aligned, title, asked)
    for row in rows:
        yield to_result(row, found.get(row[_NAME]))


def _aligned(path: Path, title: str, asked: Collection[int]) -> dict[str, str]:
    if not path.exists() or not path.stat().st_size:
        return {}
    found = dict(sequences(path))
    if others := [name for name in found if name not in {str(one) for one in asked}]:
        raise StepError(f"{title} aligned sequences that it was not given: {named(others)}.")
    if len({len(letters) for letters in found.values()}) > 1:
        raise StepError(f"{title} wrote aligned sequences of different lengths.")
    return found


def to_result(row: Mapping[str, str], aligned: str | None) -> Result:
    """Return the result in a row.

    A sequence is invalid if it has errors, or warnings and no score.
    """
    score = row["qc.overallScore"]
    valid = not row["errors"] and not (row.get("warnings") and not score)
    # The datasets of other pathogens than SARS-CoV-2 have lineages; without them, use the clade.
    lineage = (row["lineage"] if "lineage" in row else row["clade"]) if valid else ""
    return Result(
        sample=int(row[_NAME]),
        score=score if valid else None,
        status=row["qc.overallStatus"] if valid else INVALID,
        lineage=lineage or FAILED,
        mutations={ours: row.get(theirs) for ours, theirs in _MUTATIONS.items()},
        raw=row,
        aligned=aligned if valid else None,
    )


def write_results(path: Path, results: Iterator[Result]) -> int:
    """Write results, one to a line; return their number."""
    count = 0
    with path.open("w") as file:
        for result in results:
            file.write(json.dumps(asdict(result)) + "\n")
            count += 1
    return count


def read_written(path: Path) -> Iterator[Result]:
    """Yield the results that `write_results` wrote."""
    with path.open() as file:
        for line in file:
            yield Result(**json.loads(line))
