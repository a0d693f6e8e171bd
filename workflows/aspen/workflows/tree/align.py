"""Align genomes to the reference, so that each has one character for each of its sites.

Insertions are dropped, deletions and unknown ends are gaps, as Nextalign does. Nextalign or
minimap2 is used if it is installed, else edlib: the ends of a genome are located with unique
40-mers, and what lies between is aligned from end to end.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from operator import ne
from pathlib import Path

from aspen.workflows.data import Genome
from aspen.workflows.steps import StepError
from aspen.workflows.tree import fasta, programs
from aspen.workflows.tree.names import bare, listed

KMER = 40
"""Long enough that a match is no coincidence, even in a genome of another coronavirus."""
DIFFERENT = 0.1
"""The share of differing bases from which a sequence does not resemble the reference."""

ALIGNED = "aligned"
"""The result of a sequence that is in the alignment; others have the reason why not."""
REPORT = "report.tsv"
"""The file with the result of each sequence."""

_CODES = {
    "R": "AG",
    "Y": "CT",
    "S": "CG",
    "W": "AT",
    "K": "GT",
    "M": "AC",
    "B": "CGT",
    "D": "AGT",
    "H": "ACT",
    "V": "ACG",
    "N": "ACGT",
}
_EQUAL = [(code, base) for code, bases in _CODES.items() for base in bases]
_COMPLEMENT = str.maketrans("ACGTRYKMBVDH", "TGCAYRMKVBHD")
_FOREIGN = re.compile(f"[^ACGT{''.join(_CODES)}]")
_OPERATION = re.compile(r"(\d+)([=XMIDSHN])")


class NotAlignedError(Exception):
    """The reason why a sequence is not in the tree, as the rest of a sentence about it."""


@dataclass(frozen=True)
class Result:
    """The aligned sequences, the reasons why others are not among them, and the program used."""

    aligned: Mapping[str, str]
    excluded: Mapping[str, str]
    versions: Mapping[str, str]


@dataclass
class Aligner:
    """Aligns sequences to one reference with edlib."""

    reference: str
    _unique: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        """Index the k-mers that occur once."""
        self._unique = {}
        repeated = set()
        for position in range(len(self.reference) - KMER + 1):
            kmer = self.reference[position : position + KMER]
            if self._unique.setdefault(kmer, position) != position:
                repeated.add(kmer)
        for kmer in repeated:
            del self._unique[kmer]

    def align(self, sequence: str) -> str:
        """Return a clean sequence with one character for each site of the reference.

        Raises:
            NotAlignedError: It does not resemble the reference.
        """
        first = self._anchor(sequence, range(len(sequence) - KMER + 1))
        if first is None:
            opposite = sequence[::-1].translate(_COMPLEMENT)
            if self._anchor(opposite, range(len(opposite) - KMER + 1)) is not None:
                raise NotAlignedError("is reverse-complemented")
            raise NotAlignedError("does not resemble the reference genome")
        last = self._anchor(sequence, range(len(sequence) - KMER, -1, -1)) or first
        start, end = first[0], last[0] + KMER
        site, end_site = first[1], last[1] + KMER
        if end_site - site < KMER:
            raise NotAlignedError("has parts in another order than the reference genome")
        middle = self._middle(sequence[start:end], self.reference[site:end_site])
        return self.with_ends(sequence[:start], site, middle, sequence[end:])

    def with_ends(self, before: str, site: int, middle: str, after: str) -> str:
        """Return a sequence whose middle is aligned from a site on; its ends may overhang."""
        left = _end(before[::-1], self.reference[:site][::-1])[::-1]
        right = _end(after, self.reference[site + len(middle) :])
        return left + middle + right

    def _anchor(self, sequence: str, positions: Iterable[int]) -> tuple[int, int] | None:
        for position in positions:
            site = self._unique.get(sequence[position : position + KMER])
            if site is not None:
                return position, site
        return None

    @staticmethod
    def _middle(sequence: str, reference: str) -> str:
        import edlib

        if sequence == reference:
            return sequence
        found = edlib.align(
            sequence, reference, mode="NW", task="path", additionalEqualities=_EQUAL
        )
        return spelled(sequence, found["cigar"])


def spelled(sequence: str, cigar: str) -> str:
    """Return the characters of a sequence at the sites of the reference that a CIGAR covers."""
    parts = []
    position = 0
    for length, operation in _operations(cigar):
        if operation in "=XM":
            parts.append(sequence[position : position + length])
            position += length
        elif operation in "DN":
            parts.append("-" * length)
        elif operation in "IS":
            position += length
    return "".join(parts)


def _operations(cigar: str) -> Iterator[tuple[int, str]]:
    for length, operation in _OPERATION.findall(cigar):
        yield int(length), operation


def _end(sequence: str, reference: str) -> str:
    """Return the sequence at the sites of the reference, which both begin where the middle ends."""
    import edlib

    if not sequence or not reference:
        return "-" * len(reference)
    # A sequence may end before the reference does; one that ends after it is cut.
    window = reference[: len(sequence) + KMER]
    found = edlib.align(
        sequence[: len(reference) + KMER],
        window,
        mode="SHW",
        task="path",
        additionalEqualities=_EQUAL,
    )
    return spelled(sequence, found["cigar"]).ljust(len(reference), "-")


def clean(sequence: str) -> str:
    """Return a sequence in upper case, as DNA, without gaps and without the unknown ends."""
    upper = sequence.upper().replace("U", "T").replace("-", "").replace(".", "")
    return _FOREIGN.sub("N", upper).strip("N")


def known(sequence: str) -> int:
    """Return the number of known bases in a sequence."""
    return sum(map(sequence.count, "ACGT"))


def align(source: Path, genome: Genome, folder: Path) -> Result:
    """Return the sequences of a file, aligned.

    Args:
        source: The file, which need not be aligned.
        genome: The pathogen's.
        folder: A folder for temporary files.

    Raises:
        StepError: The file cannot be used at all.
    """
    records = _records(source)
    if genome.reference is None:
        return _aligned_already(records, genome)
    return _by_program(records, genome.reference.sequence, genome.minimum, folder)


def _records(source: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the sequence of each record.

    Raises:
        StepError: A name is empty, or occurs twice.
    """
    seen = set()
    for number, (name, sequence) in enumerate(fasta.read(source), 1):
        if not name:
            raise StepError(f"Sequence {number} of {source.name} has an empty name.")
        if bare(name) in seen:
            raise StepError(
                f"Two samples are named {name}. Change the public identifier of one of them, then"
                " start the run again."
            )
        seen.add(bare(name))
        yield name, sequence


def _aligned_already(records: Iterable[tuple[str, str]], genome: Genome) -> Result:
    aligned: dict[str, str] = {}
    excluded: dict[str, str] = {}
    lengths: dict[int, str] = {}
    for name, sequence in records:
        text = sequence.upper().replace("U", "T").replace(".", "-")
        lengths.setdefault(len(text), name)
        if len(lengths) > 1:
            (one, named), (other, different) = lengths.items()
            raise StepError(
                f"The aligned genome of {different} has {other:,} sites, and that of {named} has"
                f" {one:,}. Run quality control again for both samples, so that they are aligned to"
                " the same reference."
            )
        if reason := _too_short(text, genome.minimum):
            excluded[name] = reason
        else:
            aligned[name] = text
    return Result(aligned, excluded, {})


def _too_short(sequence: str, minimum: int) -> str:
    number = known(sequence)
    if not number:
        return "has no known bases (only N)"
    if number < minimum:
        return f"has only {number:,} known bases; a tree needs {minimum:,}"
    return ""


def _by_program(
    records: Iterable[tuple[str, str]], reference: str, minimum: int, folder: Path
) -> Result:
    aligned: dict[str, str] = {}
    excluded: dict[str, str] = {}

    def usable() -> Iterator[tuple[str, str]]:
        for name, sequence in records:
            text = clean(sequence)
            if reason := _too_short(text, minimum):
                excluded[name] = reason
            else:
                yield name, text

    aligner = Aligner(reference)
    work, versions = _program()
    for name, found in work(usable(), aligner, folder):
        text = found if isinstance(found, str) else ""
        if not text:
            excluded[name] = str(found)
        elif reason := _unlike(text, reference) or _too_short(text, minimum):
            excluded[name] = reason
        else:
            aligned[name] = text
    return Result(aligned, excluded, versions)


def _unlike(aligned: str, reference: str) -> str:
    limit = DIFFERENT * (number := known(aligned))
    if sum(map(ne, aligned, reference)) <= limit:  # three times faster; it also counts gaps
        return ""
    differing = sum(
        base != expected and base in "ACGT"
        for base, expected in zip(aligned, reference, strict=True)
    )
    if differing <= limit:
        return ""
    share = round(100 * (1 - differing / number))
    return f"does not resemble the reference genome: only {share} % of its bases match"


Usable = Iterable[tuple[str, str]]
Work = Callable[[Usable, Aligner, Path], Iterator[tuple[str, "str | NotAlignedError"]]]


def _program() -> tuple[Work, dict[str, str]]:
    for name, work in (("nextalign", _with_nextalign), ("minimap2", _with_minimap2)):
        if programs.installed(name):
            return work, {name: programs.version_of(name)}
    return _with_edlib, {"edlib": version("edlib")}


def _with_edlib(
    sequences: Usable, aligner: Aligner, _folder: Path
) -> Iterator[tuple[str, str | NotAlignedError]]:
    for name, sequence in sequences:
        try:
            yield name, aligner.align(sequence)
        except NotAlignedError as error:
            yield name, error


def _with_nextalign(
    usable: Usable, aligner: Aligner, folder: Path
) -> Iterator[tuple[str, str | NotAlignedError]]:
    sequences = dict(usable)
    names = _write(sequences, aligner, folder)
    output = folder / "nextalign.fasta"
    programs.run(
        "nextalign",
        "run",
        f"--input-ref={folder / 'reference.fasta'}",
        f"--output-fasta={output}",
        "--jobs=1",
        str(folder / "sequences.fasta"),
    )
    found = dict(fasta.read(output)) if output.exists() else {}
    for number, name in names.items():
        yield name, found.get(number) or NotAlignedError("does not resemble the reference genome")


def _with_minimap2(
    usable: Usable, aligner: Aligner, folder: Path
) -> Iterator[tuple[str, str | NotAlignedError]]:
    sequences = dict(usable)
    names = _write(sequences, aligner, folder)
    output = folder / "minimap2.sam"
    programs.run(
        "minimap2",
        *("-a", "-x", "asm20", "--score-N=0", "--secondary=no", "--sam-hit-only", "-t", "1"),
        *("-o", str(output)),
        str(folder / "reference.fasta"),
        str(folder / "sequences.fasta"),
    )
    texts = {number: sequences[name] for number, name in names.items()}
    found, reversed_ones = _read_sam(output, texts, aligner)
    for number, name in names.items():
        if number in found:
            yield name, found[number]
        elif number in reversed_ones:
            yield name, NotAlignedError("is reverse-complemented")
        else:
            yield name, NotAlignedError("does not resemble the reference genome")


def _read_sam(
    path: Path, sequences: Mapping[str, str], aligner: Aligner
) -> tuple[dict[str, str], set[str]]:
    """Return the aligned sequences by number, and the numbers of those that are reversed."""
    found: dict[str, str] = {}
    reversed_ones = set()
    with path.open() as file:
        for line in file:
            if line.startswith("@"):
                continue
            number, flags, _, site, _, cigar = line.split("\t", 6)[:6]
            if int(flags) & 0x10:
                reversed_ones.add(number)
                continue
            # A long gap or unknown stretch splits a genome; the first part reported is the best.
            part = _placed(sequences[number], int(site) - 1, cigar, aligner)
            found[number] = _merged(found[number], part) if number in found else part
    return found, reversed_ones


def _placed(sequence: str, site: int, cigar: str, aligner: Aligner) -> str:
    """Return a sequence at the sites of the reference; clipped ends are aligned with edlib."""
    operations = list(_operations(cigar))
    clipped = [length if kind in "SH" else 0 for length, kind in (operations[0], operations[-1])]
    inner = sequence[clipped[0] : len(sequence) - clipped[1]]
    kept = "".join(f"{length}{kind}" for length, kind in operations if kind not in "SH")
    middle = spelled(inner, kept)
    limit = 300  # an end that is longer is another part, which has its own alignment
    before = sequence[: clipped[0]] if clipped[0] <= limit else ""
    after = sequence[len(sequence) - clipped[1] :] if clipped[1] <= limit else ""
    return aligner.with_ends(before, site, middle, after)


def _merged(best: str, other: str) -> str:
    return "".join(b if a == "-" else a for a, b in zip(best, other, strict=True))


def _write(sequences: Mapping[str, str], aligner: Aligner, folder: Path) -> dict[str, str]:
    """Write the program's input under numbers, since names are free text; return the names."""
    fasta.write(folder / "reference.fasta", [("reference", aligner.reference)])
    fasta.write(
        folder / "sequences.fasta",
        ((str(number), text) for number, text in enumerate(sequences.values(), 1)),
    )
    return {str(number): name for number, name in enumerate(sequences, 1)}


def check_chosen(result: Result, chosen: Iterable[str]) -> None:
    """Reject an alignment that has none of the chosen samples.

    Args:
        result: The alignment.
        chosen: The samples that the tree must contain, some of which may be public ones.

    Raises:
        StepError: Sequences were given, and nothing of use is left.
    """
    wanted = {bare(name) for name in chosen}
    own = [name for name in (*result.aligned, *result.excluded) if bare(name) in wanted]
    failed = [name for name in own if name in result.excluded]
    if not own and not wanted:
        failed = list(result.excluded)
        own = [*result.aligned, *failed]
    # Without own samples, a tree can still have public ones; the next step knows.
    if not own or len(failed) < len(own):
        return
    if len(failed) == 1:
        raise StepError(f"The genome of {failed[0]} {result.excluded[failed[0]]}.")
    raise StepError(
        f"None of the genomes of {listed(failed)} can be used: that of {failed[0]}"
        f" {result.excluded[failed[0]]}."
    )


def read_excluded(folder: Path) -> dict[str, str]:
    """Return the reasons why sequences are not in an alignment, by name."""
    with (folder / REPORT).open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        return {row["strain"]: row["result"] for row in rows if row["result"] != ALIGNED}
