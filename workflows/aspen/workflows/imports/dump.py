"""A repository's dump on its way to the bucket: as it came, processed, and aligned.

Files are read once each, as streams. Only the hash of each name is kept in memory: 70 bytes for a
sequence, so that ten million of them fit.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Self

from aspen.workflows.imports.metadata import Metadata
from aspen.workflows.programs import say
from aspen.workflows.reading import packing, reading, records
from aspen.workflows.steps import StepError

METADATA, SEQUENCES, ALIGNED = "metadata.tsv.xz", "sequences.fasta.zst", "aligned.fasta.xz"
DESCRIPTION = "dump.json"
REFERENCE_LENGTHS = {"SC2": 29_903}
"""The lengths of the references that sequences can be aligned to, by pathogen."""
_SPACE = re.compile(r"\s+")
_SHOWN_EACH = 100_000


@dataclass(frozen=True)
class Dump:
    """Facts about a dump.

    Attributes:
        pathogen: The slug.
        repository: The name.
        time: The part of the keys that tells dumps apart.
        started: The beginning of the step that wrote this, in UTC.
        metadata: The name of the file with the metadata, as it came.
        sequences: The name of the file with the sequences, as it came.
        ended: The end of this step.
        rows: The number of rows of metadata.
        count: The number of sequences with metadata.
        shortest: The length of the shortest sequence.
        longest: The length of the longest sequence.
        aligned_by: What aligned the sequences; ``given`` if they came aligned.
    """

    pathogen: str
    repository: str
    time: str
    started: str
    metadata: str
    sequences: str
    ended: str = ""
    rows: int = 0
    count: int = 0
    shortest: int = 0
    longest: int = 0
    aligned_by: str = ""

    def write(self, folder: Path) -> None:
        """Write it to a step's folder."""
        (folder / DESCRIPTION).write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return what `write` wrote."""
        return cls(**json.loads((folder / DESCRIPTION).read_text()))

    @property
    def began(self) -> datetime:
        """Return the beginning."""
        return datetime.fromisoformat(self.started)

    def ended_now(self, now: datetime) -> Self:
        """Return the same with the end of this step."""
        return replace(self, ended=now.isoformat())

    @property
    def is_aligned(self) -> bool:
        """Return True if the sequences came aligned to the reference."""
        return self.shortest == self.longest == REFERENCE_LENGTHS.get(self.pathogen, self.longest)


class Names:
    """The names of sequences, as files of repositories write them.

    Args:
        prefix: The repository's prefix for this pathogen, which is dropped.
    """

    def __init__(self, prefix: str | None):
        self._prefix = f"{prefix}/".lower() if prefix else ""
        self.known = set[int]()

    def clean(self, name: str) -> str:
        """Return a name without the prefix and without spaces, as in Nextstrain's files."""
        text = _SPACE.sub("", name)
        if self._prefix and text.lower().startswith(self._prefix):
            text = text[len(self._prefix) :]
        return text

    def add(self, name: str) -> bool:
        """Remember a name; return False if it was known."""
        number, before = hash(name), len(self.known)
        self.known.add(number)
        return len(self.known) > before

    def of_header(self, header: str) -> str | None:
        """Return the known name that a FASTA header begins with, or None.

        A header is the name, the name with more after a bar, or the name with a description.
        """
        for text in (header, header.partition("|")[0], header.partition(" ")[0]):
            name = self.clean(text)
            if hash(name) in self.known:
                return name
        return None


def process_metadata(source: Path, target: Path, repository: str, names: Names) -> int:
    """Write the metadata with clean names, the first row of each; return the number of rows.

    Raises:
        StepError: The file cannot be used.
    """
    count = repeated = 0
    with reading(source) as file, packing(target) as out:
        metadata = Metadata(source, repository, iter(file))
        out.write("\t".join(metadata.layout.header) + "\n")
        for cells in metadata.rows(names.clean):
            if not names.add(cells[metadata.layout.name]):
                repeated += 1
                continue
            out.write("\t".join(cells) + "\n")
            count += 1
            if count % _SHOWN_EACH == 0:
                say(f"{count:,} rows of metadata read")
    say(
        f"{count:,} rows of metadata; {repeated:,} repeated and {metadata.rejected:,} damaged "
        "rows were skipped"
    )
    return count


def process_sequences(source: Path, target: Path, names: Names, dump: Dump) -> Dump:
    """Write the sequences that have metadata, the first of each name; return what is known now.

    Raises:
        StepError: The file cannot be used, or no sequence has metadata.
    """
    done, total, without = Names(None), 0, 0
    shortest, longest, written = 0, 0, 0
    with packing(target) as out:
        for header, letters in records(source):
            total += 1
            name = names.of_header(header)
            if name is None:
                without += 1
            elif done.add(name):
                out.write(f">{name}\n{letters}\n")
                shortest = min(shortest or len(letters), len(letters))
                longest, written = max(longest, len(letters)), written + 1
            if total % _SHOWN_EACH == 0:
                say(f"{total:,} sequences read")
    if not written:
        raise StepError(
            f"No sequence of {source.name} has metadata; do its names match those in the metadata?"
        )
    say(
        f"{written:,} sequences; {without:,} without metadata and "
        f"{total - without - written:,} repeated ones were skipped"
    )
    return replace(dump, count=written, shortest=shortest, longest=longest)


def repack(source: Path, target: Path) -> Names:
    """Write a FASTA file in another packing; return the names in it."""
    names = Names(None)
    with packing(target) as out:
        for name, letters in records(source):
            names.add(name)
            out.write(f">{name}\n{letters}\n")
    return names


def names_in(path: Path) -> Names:
    """Return the names in a FASTA file."""
    names = Names(None)
    for name, _ in records(path):
        names.add(name)
    return names


def keep_named(source: Path, target: Path, repository: str, names: Names) -> int:
    """Write the rows of metadata whose sequence is named; return their number."""
    kept = dropped = 0
    with reading(source) as file, packing(target) as out:
        metadata = Metadata(source, repository, iter(file))
        out.write("\t".join(metadata.layout.header) + "\n")
        for cells in metadata.rows():
            if hash(cells[metadata.layout.name]) in names.known:
                out.write("\t".join(cells) + "\n")
                kept += 1
            else:
                dropped += 1
    say(f"{kept:,} aligned sequences; {dropped:,} rows of metadata have none")
    return kept
