"""Pangolin: its versions, its command line, and its report."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from aspen.workflows.programs import Program, Version, run
from aspen.workflows.qc.results import check_names, read_table
from aspen.workflows.steps import StepError

PANGOLIN = Program(
    "pangolin",
    "Install pangolin 4 (https://cov-lineages.org/resources/pangolin/installation.html); the "
    "package of that name on PyPI is another program.",
)
REPORT = "lineage_report.csv"
_MAJOR = 4
_NAME = "taxon"
# Later versions add columns, such as expanded_lineage.
_NEEDED = (_NAME, "lineage", "ambiguity_score", "version", "note")
_DESIGNATED = re.compile(r"Assigned (?:using|from) designation hash")
_TRAILING = re.compile(r"v?(\d+(?:\.\d+)+)\s*$")


@dataclass(frozen=True)
class Pangolin:
    """The pangolin that is installed.

    Attributes:
        data: The version of its lineages (pangolin-data), such as 1.23.1.
        constellations: The version of its definitions of variants; None if it does not say.
    """

    path: Path
    version: Version
    data: str
    constellations: str | None


def find() -> Pangolin:
    """Return the pangolin that is installed.

    Raises:
        StepError: There is none, its version is not supported, or it is another program.
    """
    path = PANGOLIN.find()
    printed = PANGOLIN.ask("--version")
    version = Version.find(printed)
    if version is None or not printed.lower().startswith("pangolin"):
        raise StepError(
            f"{path} --version printed {printed[:100]!r}; it is not the pangolin that assigns "
            f"lineages, and no sample was changed. {PANGOLIN.source}"
        )
    if version.major != _MAJOR:
        raise StepError(
            f"pangolin {version.text} is not supported (supported: 4); no sample was changed. "
            f"{PANGOLIN.source}"
        )
    data = trailing_number(PANGOLIN.ask("--pangolin-data-version"))
    if data is None:
        raise StepError(f"{path} does not state the version of its data; no sample was changed.")
    return Pangolin(path, version, data, _constellations())


def _constellations() -> str | None:
    try:
        printed = PANGOLIN.ask("--all-versions")
    except StepError:
        return None  # it only makes some refreshes unnecessary
    lines = [line for line in printed.splitlines() if line.lower().startswith("constellations")]
    return trailing_number(lines[0]) if lines else None


def trailing_number(text: str) -> str | None:
    """Return the version number at the end of a text such as ``PUSHER-v1.23.1``."""
    found = _TRAILING.search(text.strip())
    return found and found[1]


def assign(pangolin: Pangolin, sequences: Path, folder: Path) -> Path:
    """Assign lineages to sequences; return the report, in a folder."""
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    words: list[str | Path] = [
        *(pangolin.path, sequences, "--threads", str(os.cpu_count() or 1)),
        *("--outdir", folder, "--outfile", REPORT, "--tempdir", temporary),
    ]
    run(words, folder / "pangolin.log", title=f"pangolin {pangolin.version.text}")
    return folder / REPORT


@dataclass(frozen=True)
class Assignment:
    """The lineage of one sample.

    Attributes:
        version: The version of what assigned it, such as ``PUSHER-v1.23.1``.
        probability: In percent; None if pangolin gives none.
        raw: The columns of the report that are not empty.
    """

    sample: int
    lineage: str
    version: str
    probability: int | None
    raw: Mapping[str, str]


def read_report(path: Path, title: str, asked: Collection[int]) -> Iterator[Assignment]:
    """Yield the lineage of each sample, after checking that the report is complete.

    Raises:
        StepError: It is not; nothing of it can be relied on.
    """
    rows = list(read_table(path, title, ",", _NEEDED))
    check_names(title, [row[_NAME] for row in rows], asked)
    for row in rows:
        if not row["lineage"] or not row["version"]:
            raise StepError(f"{title} gave sample {row[_NAME]} no lineage or no version.")
        yield Assignment(
            sample=int(row[_NAME]),
            lineage=row["lineage"],
            version=row["version"],
            probability=_probability(title, row),
            raw={name: value for name, value in row.items() if value},
        )


def _probability(title: str, row: Mapping[str, str]) -> int | None:
    if row["ambiguity_score"]:
        try:
            return round(100 * float(row["ambiguity_score"]))
        except (ValueError, OverflowError) as error:
            raise StepError(
                f"{title} gave sample {row[_NAME]} the ambiguity score {row['ambiguity_score']!r}."
            ) from error
    return 100 if _DESIGNATED.search(row["note"]) else None
