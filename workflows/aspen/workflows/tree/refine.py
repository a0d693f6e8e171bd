"""Date the nodes of a tree, and find the mutations and places of its branches, with augur."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median

from aspen.workflows.data import Genome, Reference
from aspen.workflows.steps import StepError
from aspen.workflows.tree import augur, fasta, newick
from aspen.workflows.tree.augur import AugurFailedError
from aspen.workflows.tree.build import read_alignment
from aspen.workflows.tree.names import bare, labels

CLOCK_RATE = 8e-4
"""The rate where the dates do not show it, in substitutions per site and year."""
CLOCK_RATES = (4e-4, 1.2e-3)
"""An estimate outside of these is an artifact of too few samples or wrong dates."""
CLOCK_FILTER = 3
"""Samples are outliers if they deviate by more than this number of interquartile distances."""
FEW = 10
"""With fewer dated samples, quartiles and a clock rate say nothing."""
DATED = 3
"""TreeTime needs this number of samples with dates."""
TRAITS = ("country",)
"""Columns of which the values of ancestors are inferred."""
NAMES = "names.json"
"""The file with the name of each label."""
NOTES = "notes.json"
"""The file with the notes."""
MANY_VALUES = 300
"""TreeTime infers columns with fewer values than this."""

MINIMUM = 3
"""Augur reads trees with this number of tips."""

_UNKNOWN = "XXXX-XX-XX"
_COPY = "NODE_COPY_"  # no label begins like this
_DATE = re.compile(r"(\d{4})(?:-(\d{1,2}|XX)(?:-(\d{1,2}|XX))?)?", re.IGNORECASE)


@dataclass
class Notes:
    """Facts about a tree for its readers.

    Attributes:
        rate: The clock rate; None without a time tree.
        estimated: True if the rate comes from the dates.
        why: The reason why there is no estimate or no time tree.
        outliers: The samples that the clock filter removed.
    """

    rate: float | None = None
    estimated: bool = False
    why: str = ""
    outliers: list[str] = field(default_factory=list)


def read_metadata(path: Path) -> list[dict[str, str]]:
    """Return the rows of a metadata file."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [{key: value or "" for key, value in row.items() if key} for row in rows]


def write_metadata(path: Path, rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> None:
    """Write rows as augur reads them."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(rows)


def usable_date(text: str) -> str:
    """Return a date as augur reads it, with XX for parts that are missing or impossible.

    A date in the future, or before 1900, is none at all.
    """
    found = _DATE.fullmatch(text.strip()[:10])
    if not found:
        return _UNKNOWN
    year, month, day = (part.upper() if part else "XX" for part in found.groups())
    usable = f"{year}-XX-XX"
    if month != "XX" and 1 <= int(month) <= 12:  # noqa: PLR2004 - the months of a year
        usable = f"{year}-{int(month):02}-XX"
        if day != "XX":
            with suppress(ValueError):
                usable = date(int(year), int(month), int(day)).isoformat()
    earliest = usable.replace("XX", "01")
    return usable if "1900" < earliest <= date.today().isoformat() else _UNKNOWN  # noqa: DTZ011 - a day more or less


def refine(
    tree: Path,
    alignment: Path,
    metadata: Path,
    genome: Genome,
    out: Path,
    *,
    keep: Collection[str] = (),
) -> Notes:
    """Write the refined tree and what is known about its nodes to a folder.

    Args:
        tree: The tree, whose tips have labels.
        alignment: The sequences of its tips, by name.
        metadata: A row for each of them.
        genome: The pathogen's.
        out: The folder.
        keep: Samples that stay in the tree whatever their dates are.

    Raises:
        StepError: The inputs do not belong together, or augur failed.
    """
    sequences = read_alignment(alignment)
    label = labels(sequences)
    root = newick.parse(tree.read_text())
    tips = [tip.name for tip in newick.tips(root)]
    if missing := set(tips) - set(label.values()):
        raise StepError(f"The tree has {min(missing)}, of which there is no sequence.")
    rows = _rows(read_metadata(metadata), label, genome.reference)
    # Augur refuses trees with fewer than three tips.
    copies = [f"{_COPY}{number}" for number in range(MINIMUM - len(tips))]
    root.children += [newick.Node(copy) for copy in copies]
    rows += [{**rows[0], "strain": copy} for copy in copies]
    texts = {mark: sequences[name] for name, mark in label.items()}
    texts |= {copy: next(iter(sequences.values())) for copy in copies}
    kept = {bare(name) for name in keep} | (
        {genome.reference.strain} if genome.reference else set()
    )
    labels_kept = [mark for name, mark in label.items() if bare(name) in kept]
    (out / "keep.txt").write_text("".join(f"{mark}\n" for mark in labels_kept))
    work = _Refinement(root, rows, genome, out)
    work.prepare()
    try:
        work.write_alignment((mark, genome.mask(text)) for mark, text in texts.items())
        notes = work.dates()
        # Masked sites are of no use for the tree, but their mutations are shown.
        work.write_alignment(texts.items())
        work.mutations()
        work.traits()
    except AugurFailedError as error:
        raise StepError(f"{error}; see the log.") from error
    finally:
        work.alignment.unlink(missing_ok=True)
    work.remove(copies)
    names = {mark: name for name, mark in label.items()}
    left = work.left()
    notes.outliers = [names[mark] for mark in tips if mark not in left]
    (out / NAMES).write_text(json.dumps(names))
    (out / NOTES).write_text(json.dumps(asdict(notes)))
    return notes


def _rows(
    rows: Iterable[dict[str, str]], label: Mapping[str, str], reference: Reference | None
) -> list[dict[str, str]]:
    by_name = {row.get("strain", ""): row for row in rows}
    found = []
    for name, mark in label.items():
        row = dict(by_name.get(name, {}))
        if reference and name == reference.strain:
            row["date"] = row.get("date") or reference.date
        places = {column: row.get(column) or "?" for column in TRAITS}
        day = usable_date(row.get("date", ""))
        found.append({"strain": mark, "date": day, **places})
    return found


@dataclass
class _Refinement:
    """The commands of augur on one tree."""

    root: newick.Node
    rows: Sequence[Mapping[str, str]]
    genome: Genome
    out: Path

    def __post_init__(self) -> None:
        """Name the files."""
        self.source = self.out / "input.nwk"
        self.alignment = self.out / "input.fasta"
        self.metadata = self.out / "input.tsv"
        self.tree = self.out / "tree.nwk"

    def prepare(self) -> None:
        """Write the tree and the metadata as augur reads them."""
        self.source.write_text(newick.write(self.root))
        write_metadata(self.metadata, self.rows, ["strain", "date", *TRAITS])

    def write_alignment(self, records: Iterable[tuple[str, str]]) -> None:
        """Write the sequences."""
        fasta.write(self.alignment, records)

    def dates(self) -> Notes:
        """Date the nodes; without a usable time scale, only name them."""
        notes = Notes()
        dated = [row for row in self.rows if row["date"] != _UNKNOWN]
        if self.genome.reference is None:
            notes.why = "the pathogen has no reference genome here"
        elif len(dated) < DATED:
            notes.why = f"fewer than {DATED} samples have a collection date"
        else:
            return self._time_tree(notes)
        self._refine()
        return notes

    def _time_tree(self, notes: Notes) -> Notes:
        slope = self._slope()
        reason = "the collection dates and the mutations show no clock rate"
        if slope is not None and CLOCK_RATES[0] / 2 <= slope <= CLOCK_RATES[1] * 2:
            filtering = ("--clock-filter-iqd", CLOCK_FILTER, "--keep-ids", self.out / "keep.txt")
            try:
                self._refine("--timetree", *filtering)
            except AugurFailedError as error:
                reason = str(error)
            else:
                rate = self._rate()
                if CLOCK_RATES[0] <= rate <= CLOCK_RATES[1]:
                    notes.rate, notes.estimated = rate, True
                    return notes
                reason = f"the estimate was {rate:.1e}"
        notes.why = reason
        try:
            self._refine("--timetree", "--clock-rate", CLOCK_RATE)
        except AugurFailedError as error:
            notes.why = str(error)
            self._refine()
        else:
            notes.rate = CLOCK_RATE
        return notes

    def _slope(self) -> float | None:
        """Return the slope of divergence by date, or None if too few samples have dates.

        It is the median over pairs of an earlier and a later sample (Theil's incomplete method):
        a few wrong dates, which the clock filter is there to find, do not change it.
        """
        times = {row["strain"]: _middle(row["date"]) for row in self.rows}
        depths = {self.root: 0.0}
        points = []
        for node in newick.preorder(self.root):
            for child in node.children:
                depths[child] = depths[node] + child.length
            time = None if node.children else times[node.name]
            if time is not None:
                points.append((time, depths[node]))
        if len(points) < FEW:
            return None
        points.sort()
        pairs = zip(points, points[(len(points) + 1) // 2 :], strict=False)
        slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in pairs if x2 > x1]
        return median(slopes) if slopes else None

    def _refine(self, *more: object) -> None:
        augur.run(
            "refine",
            *("--tree", self.source, "--alignment", self.alignment, "--metadata", self.metadata),
            *("--output-tree", self.tree, "--output-node-data", self.out / "branch_lengths.json"),
            *("--keep-root", "--keep-polytomies", "--divergence-units", "mutations"),
            *("--no-covariance", "--seed", 1, "--verbosity", 0),
            *more,
        )

    def _rate(self) -> float:
        clock = json.loads((self.out / "branch_lengths.json").read_text())["clock"]
        return float(clock["rate"])

    def left(self) -> set[str]:
        """Return the tips that the clock filter has not removed."""
        return {tip.name for tip in newick.tips(newick.parse(self.tree.read_text()))}

    def remove(self, copies: Collection[str]) -> None:
        """Remove tips that were added."""
        if copies:
            root = newick.parse(self.tree.read_text())
            root.children = [child for child in root.children if child.name not in copies]
            self.tree.write_text(newick.write(root))

    def mutations(self) -> None:
        """Find the mutations of each branch."""
        reference = self.genome.reference
        found = self.out / "nt_muts.json"
        root_sequence = ("--root-sequence", reference.sequence_file) if reference else ()
        augur.run(
            "ancestral",
            *("--tree", self.tree, "--alignment", self.alignment, "--output-node-data", found),
            *("--inference", "joint", "--seed", 1, *root_sequence),
        )
        proteins = self.out / "aa_muts.json"
        if reference is None:
            proteins.write_text(json.dumps({"nodes": {}}))
        else:
            augur.run(
                "translate",
                *("--tree", self.tree, "--ancestral-sequences", found),
                *("--reference-sequence", reference.genes_file, "--output-node-data", proteins),
            )
        _without_sequences(found)

    def traits(self) -> None:
        """Infer the places of ancestors."""
        found = self.out / "traits.json"
        columns = [name for name in TRAITS if len({row[name] for row in self.rows}) < MANY_VALUES]
        if not columns:
            found.write_text(json.dumps({"nodes": {}}))
            return
        augur.run(
            "traits",
            *("--tree", self.tree, "--metadata", self.metadata, "--columns", *columns),
            *("--confidence", "--output-node-data", found),
        )


def _middle(text: str) -> float | None:
    """Return the middle of a date's range in years, or None without a year."""
    year, month, day = text.split("-")
    if year == "XXXX":
        return None
    if month == "XX":
        return int(year) + 0.5
    if day == "XX":
        return int(year) + (int(month) - 0.5) / 12
    return int(year) + (date(int(year), int(month), int(day)).timetuple().tm_yday - 0.5) / 365.25


def _without_sequences(path: Path) -> None:
    """Remove the sequence of each node, which makes up nearly all of the file."""
    data = json.loads(path.read_text())
    for node in data["nodes"].values():
        node.pop("sequence", None)
    path.write_text(json.dumps(data))


def versions() -> dict[str, str]:
    """Return the versions of the programs."""
    names = ("nextstrain-augur", "phylo-treetime")
    return {name: version(name) for name in names}
