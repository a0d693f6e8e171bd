"""A public repository's metadata: a tab-separated table with the columns of GISAID or GenBank."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from aspen.workflows.programs import named
from aspen.workflows.reading import reading
from aspen.workflows.steps import StepError

COLUMNS = ("strain", "lineage", "isl", "date", "region", "country", "division", "location")
"""The columns of ``public_repository_metadata`` that a file fills."""
_PLACES = ("region", "country", "division", "location")
_GISAID = "GISAID"
_UNKNOWN = frozenset({"", "?", "NA", "N/A"})
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_TOLERATED = 0.01  # the share of lines that may have more cells than the header
_SHOWN = 5


@dataclass(frozen=True)
class Layout:
    """The places of the columns in a file.

    Attributes:
        header: The names of all columns.
        name: The column with the name of the sequence.
        sources: The column for each of `COLUMNS`; None for those that the file does not have.
    """

    header: tuple[str, ...]
    name: int
    sources: tuple[int | None, ...]

    def values(self, cells: Sequence[str]) -> list[str | None]:
        """Return the values of `COLUMNS` in a row; unknown ones, and incomplete dates, are None."""
        found = [None if place is None else _value(cells[place]) for place in self.sources]
        found[COLUMNS.index("date")] = _day(found[COLUMNS.index("date")])
        return found


def _value(cell: str) -> str | None:
    text = cell.strip()
    return None if text in _UNKNOWN else text


def _day(text: str | None) -> str | None:
    """Return a complete date; guessing the rest of one would shift every curve."""
    if text is None or not _DAY.fullmatch(text):
        return None
    try:
        date.fromisoformat(text)
    except ValueError:
        return None
    return text


def find_layout(path: Path, header: Sequence[str], repository: str) -> Layout:
    """Return the layout of a file with this header.

    Files with the column ``accession`` name sequences by it, as those of GenBank's other pathogens
    do. The others name them by ``strain``.

    Raises:
        StepError: A column that every such file has is missing.
    """
    names = [name.strip() for name in header]
    by_accession = "accession" in names and not (repository == _GISAID and "strain" in names)
    name = "accession" if by_accession else "strain"
    needed = (name, "date", "region", "country")
    if missing := [column for column in needed if column not in names]:
        raise StepError(
            f"{path.name} is not a metadata file of GISAID or GenBank: it has no column "
            f"{named(missing)}."
        )
    wanted = _choices(name, repository)
    sources = tuple(
        next((names.index(one) for one in wanted[column] if one in names), None)
        for column in COLUMNS
    )
    return Layout(tuple(names), names.index(name), sources)


def _choices(name: str, repository: str) -> dict[str, tuple[str, ...]]:
    """Return the columns of a file that may have the values of each of `COLUMNS`, best first."""
    own = ("gisaid_epi_isl",) if repository == _GISAID else ()
    return {
        "strain": (name,),
        "lineage": ("lineage",) if name == "accession" else ("pango_lineage", "lineage"),
        "isl": own or ("genbank_accession_rev", "genbank_accession", "accession"),
        "date": ("date",),
        **{level: (level,) for level in _PLACES},
    }


class Metadata:
    """A metadata file, opened.

    Attributes:
        rejected: The number of lines so far that were rejected.
    """

    def __init__(self, path: Path, repository: str, lines: Iterator[str]):
        self._path, self._lines = path, lines
        self.layout = find_layout(path, _split(next(lines, "")), repository)
        self.rejected = 0
        self._examples = list[str]()

    def rows(self, rename: Callable[[str], str] = str.strip) -> Iterator[list[str]]:
        """Yield the cells of each line that has a name, with the name renamed.

        Raises:
            StepError: Too many lines do not fit the header, or there are none at all.
        """
        width, name, count = len(self.layout.header), self.layout.name, 0
        for number, line in enumerate(self._lines, start=2):
            cells = _split(line)
            if len(cells) > width or not (cells[name : name + 1] and rename(cells[name])):
                if line.strip():
                    self._reject(number)
                continue
            cells += [""] * (width - len(cells))  # spreadsheets drop empty cells at the end
            cells[name] = rename(cells[name])
            count += 1
            yield cells
        if not count:
            raise StepError(f"{self._path.name} has no rows.")
        if self.rejected > _TOLERATED * (count + self.rejected):
            raise StepError(
                f"{self.rejected:,} of {count + self.rejected:,} lines of {self._path.name} do not "
                f"fit its header (lines {named(self._examples)})."
            )

    def _reject(self, number: int) -> None:
        self.rejected += 1
        if len(self._examples) < _SHOWN:
            self._examples.append(str(number))


def _split(line: str) -> list[str]:
    return line.rstrip("\n").replace("\0", "").split("\t")


def read_metadata(path: Path, repository: str) -> Iterator[list[str | None]]:
    """Yield the values of `COLUMNS` for each row of a file.

    Raises:
        StepError: It cannot be read.
    """
    with reading(path) as file:
        metadata = Metadata(path, repository, iter(file))
        for cells in metadata.rows():
            yield metadata.layout.values(cells)
