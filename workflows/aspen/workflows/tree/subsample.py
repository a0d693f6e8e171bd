"""Choice of the samples of a tree, from the group's own and a repository's dump.

The rules are those of ``augur filter`` and of Nextstrain's priorities, with one difference: where
they draw at random, the order of a keyed hash decides, so that the same run has the same tree.

Candidates are kept in a temporary SQLite file, so memory does not grow with the dump. Metadata and
sequences are read once.
"""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

from aspen.workflows.data import GENOMES, Genome
from aspen.workflows.steps import StepError
from aspen.workflows.tree import dump
from aspen.workflows.tree.export import COLUMNS, Run
from aspen.workflows.tree.proximity import Focus, Packer, known_sites
from aspen.workflows.tree.templates import (
    LEVELS,
    Subsample,
    Template,
    group_of,
    matches,
    root_place,
)

SMALLEST = 3
"""The number of sequences that a tree needs."""
_BATCH = 5_000
_ALIASES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "SC2": {"pango_lineage": ("lineage",), "gisaid_epi_isl": ("isl",)},
    "MPX": {"lineage": ("pango_lineage", "clade")},
}
"""Names that a column has in other files."""
_IDENTIFIERS = {"SC2": ("strain", "accession"), "MPX": ("accession", "strain")}
"""The columns that may name a record's sequence; the first one that a file has does."""
_OTHER_NAMES = ("strain", "accession", "genbank_accession", "gisaid_epi_isl", "isl")
"""The columns by which a record may have been chosen."""
_PREFIX = re.compile(r"hCoV-19/", re.IGNORECASE)
_SCHEMA = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = FILE;
CREATE TABLE candidates (
    id INTEGER PRIMARY KEY, strain TEXT NOT NULL UNIQUE, own INTEGER NOT NULL,
    forced INTEGER NOT NULL, rank INTEGER NOT NULL, cells TEXT NOT NULL);
CREATE TABLE members (part INTEGER NOT NULL, id INTEGER NOT NULL, batch TEXT NOT NULL);
CREATE TABLE genomes (id INTEGER PRIMARY KEY, packed BLOB NOT NULL);
CREATE TABLE nearest (focus TEXT NOT NULL, id INTEGER NOT NULL, focal INTEGER NOT NULL,
    distance INTEGER NOT NULL, PRIMARY KEY (focus, id)) WITHOUT ROWID;
"""
_PREFERRED = """
SELECT id, batch FROM (
    SELECT m.id, m.batch, c.rank, c.strain, n.distance, row_number() OVER (
        PARTITION BY n.focal ORDER BY n.distance, c.rank, c.strain) - 1 AS closer
      FROM members m JOIN genomes g USING (id) JOIN candidates c USING (id)
      LEFT JOIN nearest n ON n.focus = :focus AND n.id = m.id
     WHERE m.part = :part AND NOT c.forced)
 ORDER BY distance + :crowding * closer, rank, strain
"""
"""The candidates of a subsample, the best first.

Of those with the same nearest focal genome, each further one is worth less, so that one focal
genome does not fill the tree with its relatives. Without focal genomes, there are no distances.
"""


def subsample(
    run: Run,
    *,
    own: tuple[Path, Path, Path],
    dump_files: tuple[Path, Path],
    folder: Path,
    note: Callable[[str], None] = lambda _text: None,
) -> dict[str, Any]:
    """Write the aligned sequences and the metadata of a tree's samples; return their numbers.

    Args:
        run: The run.
        own: Metadata, aligned sequences, and the report of the alignment, of the group's samples.
        dump_files: Metadata and aligned sequences of the repository.
        folder: The folder for the files.
        note: Called with what people should know, sentence by sentence.

    Raises:
        StepError: A chosen sample is missing, or the samples are too few for a tree.
    """
    genome, made = GENOMES[run.pathogen], run.template()
    path = folder / "candidates.sqlite"
    with _full_disk_named(path), closing(_Candidates(path, run, made, genome)) as candidates:
        candidates.read_metadata(own[0], dump_files[0])
        candidates.read_sequences(own[1], dump_files[1])
        missing = candidates.missing(own[2])
        counts, chosen = candidates.choose()
        tips = candidates.write(chosen, folder)
    path.unlink()
    for name in missing:
        note(f"Left out {name}: the repository's data have no aligned sequence of this name.")
    for reason, number in sorted(candidates.left_out.items()):
        note(f"Left out {number:,} sequences of the repository: {reason}.")
    found = {
        "template": run.tree_type,
        "level": made.place.level,
        "seed": run.seed,
        "tips": tips,
        "root": int(genome.reference is not None),
        "include": candidates.included,
        "subsamples": counts,
        "missing": missing,
        "left_out": dict(candidates.left_out),
    }
    (folder / "counts.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


@contextmanager
def _full_disk_named(path: Path) -> Iterator[None]:
    """Turn SQLite's error about a full disk into that of the system, which is explained."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


class _Candidates:
    """The samples that may get into the tree, in a temporary file.

    Attributes:
        left_out: The number of sequences of the dump that cannot be used, by reason.
        included: The number of chosen samples in the tree.
    """

    def __init__(self, path: Path, run: Run, made: Template, genome: Genome):
        path.unlink(missing_ok=True)
        self.left_out: Counter[str] = Counter()
        self.included = 0
        self._run, self._made, self._genome = run, made, genome
        self._file = sqlite3.connect(path, isolation_level=None)
        self._file.executescript(_SCHEMA)
        self._columns = COLUMNS[run.pathogen]
        self._wanted = set(run.focal)
        self._reference = genome.reference.sequence.encode() if genome.reference else b""
        self._packer = Packer(self._reference) if self._reference else None
        self._root: list[str] = []
        if genome.reference:
            root = {"strain": genome.reference.strain, "date": genome.reference.date}
            root |= {"host": "Human", **root_place(run.pathogen)}
            self._root = [root.get(column, "") for column in self._columns]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    # Reading

    def read_metadata(self, own: Path, other: Path) -> None:
        """Add the candidates; the group's own samples take precedence over those of the dump."""
        for rows, is_own in ((dump.rows(own), True), (self._other_rows(other), False)):
            found = (
                made for row in rows if (made := self._candidate(row, is_own=is_own)) is not None
            )
            while batch := list(islice(found, _BATCH)):
                self._file.execute("BEGIN")
                for values, members in batch:
                    self._add(values, members)
                self._file.execute("COMMIT")
        self._file.execute("CREATE INDEX members_by_part ON members (part, id, batch)")

    def _other_rows(self, path: Path) -> Iterator[Mapping[str, str]]:
        identifiers = _IDENTIFIERS[self._run.pathogen]
        key = ""
        for row in dump.rows(path):
            if not key:
                key = next((name for name in identifiers if name in row), "")
                if not key:
                    raise StepError(f"{path.name} has no column {' or '.join(identifiers)}.")
            aliases = _ALIASES[self._run.pathogen]
            other = {
                column: value
                for column, names in aliases.items()
                if not row.get(column)
                and (value := next((row[name] for name in names if row.get(name)), ""))
            }
            yield {**row, **other, "_name": _PREFIX.sub("", row.get(key, ""), count=1)}

    def _candidate(
        self, row: Mapping[str, str], *, is_own: bool
    ) -> tuple[tuple[Any, ...], list[tuple[int, str]]] | None:
        name = row["strain"] if is_own else row["_name"]
        reference = self._genome.reference
        if not name:
            return None
        forced = name in self._wanted or (not is_own and self._is_wanted(row))
        found = _facts(row)
        members = [
            (number, batch)
            for number, part in enumerate(self._made.subsamples)
            if matches(part, self._made.place, found)
            and (batch := group_of(part, found)) is not None
        ]
        cells = [name if column == "strain" else row.get(column, "") for column in self._columns]
        if reference and name == reference.strain:
            if is_own:
                self._root = cells
            return None
        if not forced and not members:
            return None
        values = (name, is_own, forced, self._rank(name), json.dumps(cells, ensure_ascii=False))
        return values, members

    def _is_wanted(self, row: Mapping[str, str]) -> bool:
        return any(
            _PREFIX.sub("", row[name], count=1) in self._wanted
            for name in _OTHER_NAMES
            if row.get(name)
        )

    def _add(self, values: tuple[Any, ...], members: list[tuple[int, str]]) -> None:
        done = self._file.execute(
            "INSERT INTO candidates (strain, own, forced, rank, cells) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            values,
        )
        if done.rowcount:
            self._file.executemany(
                "INSERT INTO members (part, id, batch) VALUES (?, ?, ?)",
                [(part, done.lastrowid, batch) for part, batch in members],
            )

    def _rank(self, name: str) -> int:
        """Return the place of a name in an order that depends on the run's seed only."""
        digest = blake2b(f"{self._run.seed}:{name}".encode(), digest_size=7).digest()
        return int.from_bytes(digest, "big")

    def read_sequences(self, own: Path, other: Path) -> None:
        """Add the sequences of the candidates."""
        for path, is_own in ((own, True), (other, False)):
            self._file.execute("BEGIN")
            for name, sequence in dump.sequences(path):
                self._add_sequence(name, sequence, is_own=is_own)
            self._file.execute("COMMIT")
            if not is_own:
                self._refuse_unaligned(path)

    def _refuse_unaligned(self, path: Path) -> None:
        used = "SELECT 1 FROM genomes JOIN candidates USING (id) WHERE NOT own LIMIT 1"
        if self.left_out.get(_UNALIGNED) and self._file.execute(used).fetchone() is None:
            length = self._packer.length if self._packer else 0
            raise StepError(
                f"The sequences in {path.name} are not aligned: none of them has {length:,} sites,"
                " as the reference has. Import the repository's data again."
            )

    def _add_sequence(self, name: str, sequence: bytes, *, is_own: bool) -> None:
        row = self._lookup(name, is_own=is_own)
        if row is None:
            return
        if self._packer is None:  # no reference: sequences are compared with the first one
            self._reference = sequence
            self._packer = Packer(sequence)
        if len(sequence) != self._packer.length:
            if is_own:
                raise StepError(
                    f"The aligned genome of {name} has {len(sequence):,} sites instead of"
                    f" {self._packer.length:,}."
                )
            self.left_out[_UNALIGNED] += 1
        elif not is_own and known_sites(sequence) < self._genome.minimum:
            self.left_out[_SHORT] += 1
        else:
            packed = self._packer.pack(sequence)
            self._file.execute("INSERT OR IGNORE INTO genomes VALUES (?, ?)", (row, packed))

    def _lookup(self, name: str, *, is_own: bool) -> int | None:
        bare = name if is_own else _PREFIX.sub("", name, count=1)
        query = "SELECT id FROM candidates WHERE strain = ? AND own = ?"
        for spelling in dict.fromkeys((bare, bare.partition(" ")[0])):
            if row := self._file.execute(query, (spelling, is_own)).fetchone():
                return int(row[0])
        return None

    def missing(self, report: Path) -> list[str]:
        """Return the chosen strains of the repository without a sequence.

        Raises:
            StepError: A chosen sample of a group has none.
        """
        query = "SELECT strain FROM candidates JOIN genomes USING (id) WHERE own AND forced"
        there = {row[0] for row in self._file.execute(query)}
        there |= set(self._root[:1])
        strains = [str(one["strain"]) for one in self._run.samples]
        if absent := [strain for strain in strains if strain not in there]:
            reasons = _reasons(report)
            first = absent[0]
            more = f" The same is true of {len(absent) - 1} more." if len(absent) > 1 else ""
            raise StepError(
                f"The chosen sample {first} cannot be in the tree: its genome"
                f" {reasons.get(first, 'could not be aligned')}.{more}"
                " Upload a better sequence, or start a run without it."
            )
        every = "SELECT strain, cells FROM candidates JOIN genomes USING (id) WHERE forced"
        names = set(self._root)
        for strain, cells in self._file.execute(every):
            names.update((strain, *json.loads(cells)))
        return [strain for strain in self._run.public if strain not in names]

    # Choosing

    def choose(self) -> tuple[dict[str, int], set[int]]:
        """Return the number of samples of each subsample, and the IDs of all samples."""
        query = "SELECT id FROM candidates JOIN genomes USING (id) WHERE forced"
        forced = {row[0] for row in self._file.execute(query)}
        self.included = len(forced)
        counts: dict[str, int] = {}
        chosen, by_part = set(forced), dict[str, set[int]]()
        for number, part in enumerate(self._made.subsamples):
            # Every subsample contains the chosen samples, so a focus on it includes them.
            focal = forced | by_part.get(part.near, set())
            if part.near and focal:
                self._measure(part.near, focal, number)
            by_part[part.name] = self._select(number, part)
            counts[part.name] = len(by_part[part.name])
            chosen |= by_part[part.name]
        return counts, chosen

    def _select(self, number: int, part: Subsample) -> set[int]:
        """Return the chosen members of a subsample: the best of each of its groups."""
        sizes = dict(
            self._file.execute(
                "SELECT batch, count(*) FROM members m JOIN genomes USING (id)"
                " JOIN candidates c USING (id) WHERE part = ? AND NOT forced GROUP BY batch",
                (number,),
            )
        )
        places = self._places(part, sizes)
        found = set[int]()
        values = {"focus": part.near, "part": number, "crowding": self._made.crowding}
        for identifier, batch in self._file.execute(_PREFERRED, values):
            if places.get(batch, 0) > 0:
                places[batch] -= 1
                found.add(identifier)
        return found

    def _places(self, part: Subsample, sizes: Mapping[str, int]) -> dict[str, int]:
        if part.each is not None:
            return {batch: min(part.each, size) for batch, size in sizes.items()}
        order = sorted(sizes, key=lambda batch: (self._rank(f"{part.name}:{batch}"), batch))
        return shared(part.max or 0, {batch: sizes[batch] for batch in order})

    def _measure(self, focus: str, focal: set[int], number: int) -> None:
        """Measure how far a subsample's candidates are from focal genomes."""
        assert self._packer  # noqa: S101 - there are candidates only if there are sequences
        packer = self._packer
        genomes = map(packer.codes, self._packed(focal))
        nearest = Focus(self._reference, genomes, len(focal), self._genome.masked)
        rows = self._file.execute(
            "SELECT m.id, g.packed FROM members m JOIN genomes g USING (id)"
            " JOIN candidates c USING (id) WHERE m.part = ? AND NOT forced"
            " AND NOT EXISTS (SELECT 1 FROM nearest n WHERE n.focus = ? AND n.id = m.id)",
            (number, focus),
        )
        self._file.execute("BEGIN")
        while batch := rows.fetchmany(_BATCH):
            self._file.executemany(
                "INSERT INTO nearest VALUES (?, ?, ?, ?)",
                [(focus, one, *nearest.find(packer.codes(packed))) for one, packed in batch],
            )
        self._file.execute("COMMIT")

    def _packed(self, identifiers: Iterable[int]) -> Iterator[bytes]:
        query = "SELECT rank, strain, packed FROM candidates JOIN genomes USING (id) WHERE id = ?"
        found = [self._file.execute(query, (one,)).fetchone() for one in identifiers]
        # Of two focal genomes at the same distance, the first counts, in whatever order they came.
        for row in sorted(found):
            yield row[-1]

    # Writing

    def _in_order(self, identifiers: Iterable[int]) -> list[int]:
        """Return IDs of own samples and then of others, by their strains."""
        query = "SELECT NOT own, strain, id FROM candidates WHERE id = ?"
        rows = (self._file.execute(query, (one,)).fetchone() for one in identifiers)
        return [row[-1] for row in sorted(rows)]

    def write(self, chosen: set[int], folder: Path) -> int:
        """Write the sequences and metadata of the chosen samples and the root; return their number.

        Raises:
            StepError: They are too few for a tree.
        """
        reference, root = self._genome.reference, int(self._genome.reference is not None)
        if len(chosen) + root < SMALLEST:
            raise StepError(_too_few(len(chosen), self._run))
        query = "SELECT strain, cells, packed FROM candidates JOIN genomes USING (id) WHERE id = ?"
        assert self._packer  # noqa: S101 - there are chosen samples
        with (
            (folder / "aligned.fasta").open("wb") as sequences,
            (folder / "metadata.tsv").open("w", encoding="utf-8", newline="") as metadata,
        ):
            metadata.write("\t".join(_strain_first(self._columns, self._columns)) + "\n")
            if reference:
                metadata.write("\t".join(_strain_first(self._columns, self._root)) + "\n")
                sequences.write(f">{reference.strain}\n".encode() + self._reference + b"\n")
            for identifier in self._in_order(chosen):
                strain, text, packed = self._file.execute(query, (identifier,)).fetchone()
                cells = _strain_first(self._columns, json.loads(text))
                metadata.write("\t".join(cells) + "\n")
                sequences.write(f">{strain}\n".encode() + self._packer.unpack(packed) + b"\n")
        return len(chosen) + root


_UNALIGNED = "not as long as the reference"
_SHORT = "too few known bases"


def _facts(row: Mapping[str, str]) -> dict[str, Any]:
    """Return what the rules of a template know of a sample."""
    first, last, year, month = dump.period(row.get("date", ""))
    return {
        **{level: row.get(level, "") for level in LEVELS},
        "lab": row.get("submitting_lab", ""),
        "lineage": row.get("pango_lineage") or row.get("lineage", ""),
        "first": first,
        "last": last,
        "year": year,
        "month": month,
    }


def _strain_first(columns: Sequence[str], cells: Sequence[str]) -> list[str]:
    """Return a row's cells with the strain first, as the tree's programs expect it."""
    place = list(columns).index("strain")
    return [cells[place], *cells[:place], *cells[place + 1 :]]


def _too_few(found: int, run: Run) -> str:
    number = ("No samples match", "Only 1 sample matches", "Only 2 samples match")[found]
    return (
        f"{number} what the tree is about ({run.title}), and a tree needs {SMALLEST} sequences."
        " Choose samples, or start a run for a larger place or a longer period."
    )


def _reasons(report: Path) -> dict[str, str]:
    """Return why sequences were not aligned, by strain, from the alignment's report."""
    if not report.exists():
        return {}
    with report.open(encoding="utf-8", newline="") as file:
        table = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return {cells[0]: cells[-1] for cells in table if len(cells) > 1 and cells[-1]}


def shared(largest: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Return how many samples each group gets, as evenly as their sizes allow.

    The result adds up to the largest number if there are enough samples.

    Args:
        largest: The number of samples to share.
        sizes: The number of samples in each group; earlier groups get what cannot be divided.
    """
    places = dict.fromkeys(sizes, 0)
    left, open_groups = largest, [batch for batch, size in sizes.items() if size]
    while left and open_groups:
        each = left // len(open_groups)
        if not each:
            for batch in open_groups[:left]:
                places[batch] += 1
            break
        for batch in open_groups:
            given = min(each, sizes[batch] - places[batch])
            places[batch] += given
            left -= given
        open_groups = [batch for batch in open_groups if places[batch] < sizes[batch]]
    return places
