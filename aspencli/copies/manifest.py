"""The manifest of a dump: what is in it, and the checksum of each of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from aspencli.errors import BadInputError

NAME = "manifest.json"
FORMAT, VERSION = "aspencli dump", 2
_READABLE = frozenset({1, VERSION})  # the first version has no files of trees
TREES = "phylo_trees"
_CHECKSUM = "sha256"
MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Part:
    """A file with some of the rows of a table.

    Attributes:
        file: Its name in the dump.
        rows: The number of rows in it.
        size: Its size in bytes.
        sha256: Its checksum, in hexadecimal.
    """

    file: str
    rows: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Table:
    """A table of the dump."""

    name: str
    columns: tuple[str, ...]
    parts: tuple[Part, ...]

    @property
    def rows(self) -> int:
        """Return the number of rows in all parts."""
        return sum(part.rows for part in self.parts)


@dataclass(frozen=True)
class TreeFile:
    """The file of a tree."""

    tree: int  # its ID
    part: Part


@dataclass(frozen=True)
class LeftOut:
    """A tree whose file is not in the dump, although its row is."""

    tree: int  # its ID
    reason: str

    def __str__(self) -> str:
        return f"tree {self.tree}: {self.reason}"


@dataclass(frozen=True)
class Encryption:
    """The encryption of the parts; see `aspencli.copies.sealing`."""

    method: str
    salt: str  # in hexadecimal
    cost: int


@dataclass(frozen=True)
class Manifest:
    """The description of a dump."""

    tool: str
    created_at: str
    target: str  # the label of the target that it was made from
    database: str
    server_version: str
    revision: str | None
    scrubbed: bool
    rules: str  # the digest of the masking rules
    genomes: str
    groups: int  # the number of chosen groups; 0 for all
    keeps_user: bool
    encryption: Encryption | None
    tables: tuple[Table, ...]
    sequences: Mapping[str, int] = field(default_factory=dict)
    trees: str = "drop"
    tree_files: tuple[TreeFile, ...] = ()
    trees_left_out: tuple[LeftOut, ...] = ()

    @property
    def rows(self) -> int:
        """Return the number of rows in all tables."""
        return sum(table.rows for table in self.tables)

    @property
    def size(self) -> int:
        """Return the size of all parts in bytes."""
        return sum(part.size for _, part in self.parts)

    @property
    def parts(self) -> list[tuple[str, Part]]:
        """Return all parts, each with the name of its table."""
        rows = [(table.name, part) for table in self.tables for part in table.parts]
        return rows + [(TREES, one.part) for one in self.tree_files]

    def encode(self) -> bytes:
        """Return it as JSON with a checksum."""
        document = {"format": FORMAT, "version": VERSION, **asdict(self)}
        document[_CHECKSUM] = _digest(document)
        return json.dumps(document, indent=1).encode() + b"\n"


def decode(text: bytes, place: str) -> Manifest:
    """Return the manifest in a file.

    Raises:
        BadInputError: It is damaged, or of a newer version.
    """
    try:
        document: dict[str, Any] = json.loads(text)
        found = document.pop(_CHECKSUM)
        if document["format"] != FORMAT or found != _digest(document):
            raise ValueError
        if document.pop("version") not in _READABLE:
            raise BadInputError(
                f"The dump in {place} was made by a newer version of aspencli.",
                hint="Update aspencli, then try again.",
            )
        del document["format"]
        return _read(document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInputError(
            f"The manifest of the dump in {place} is damaged; nothing was written.",
            hint="Copy the dump again from where it was made, or make a new one.",
        ) from error


def _read(document: dict[str, Any]) -> Manifest:
    document["tables"] = tuple(
        Table(one["name"], tuple(one["columns"]), tuple(Part(**part) for part in one["parts"]))
        for one in document["tables"]
    )
    document["tree_files"] = tuple(
        TreeFile(one["tree"], Part(**one["part"])) for one in document.get("tree_files", ())
    )
    document["trees_left_out"] = tuple(LeftOut(**one) for one in document.get("trees_left_out", ()))
    if document["encryption"] is not None:
        document["encryption"] = Encryption(**document["encryption"])
    return Manifest(**document)


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
