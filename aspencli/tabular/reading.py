"""The part of reading that all table formats share: header, columns in use, and known templates.

A template says what the columns of a file mean, and how the file clears values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from aspencli.errors import BadInputError
from aspencli.stored_text import code_point, strip_invisible

AUTO = "auto"
"""Recognize a template by the columns of the file."""
NONE = "none"
"""Read the file as it is."""
_PREFIX = re.compile(r"^(covv|pox|rsv|arbo|flu)_")  # the prefixes of GISAID's databases
_ASIDE = re.compile(r"\s*(?:\([^)]*\)|-\s*optional|\*)\s*$", re.IGNORECASE)
Record = tuple[int, list[str]]
_SERVICE = {
    "private id": "private_identifier",
    "current private id": "private_identifier",
    "new private id": "new_private_identifier",
    "public id": "public_identifier",
    "sample name": "sequence_name",
    "collection date": "collection_date",
    "collection location": "location",
    "sequencing date": "sequencing_date",
    "sample is private": "private",
}
_GISAID_LABELS = {
    "virus_name": "virus name",
    "subm_sample_id": "sample id given by the submitting laboratory",
    "collection_date": "collection date",
    "location": "location",
    "host": "host",
    "authors": "authors",
}
_GISAID = {
    "virus_name": "public_identifier",
    "subm_sample_id": "private_identifier",
    "collection_date": "collection_date",
    "location": "location",
    "host": "host",
    "authors": "authors",
}
_NEXTSTRAIN_PLACE = ("region", "country", "division", "location")


@dataclass(frozen=True)
class Template:
    """A template that laboratories fill in.

    Attributes:
        name: Its name for ``--template``.
        title: Its name in messages.
        columns: The column for each header.
        marks: Sets of headers; a file that has all headers of one set matches this template.
        clearing: Words that clear a value.
        blank: Words that mean no value.
        joined: A column that is joined from several others, and the headers of these.
        labels: The text below each header in a second header row.
    """

    name: str
    title: str
    columns: Mapping[str, str]
    marks: tuple[frozenset[str], ...]
    clearing: tuple[str, ...] = ()
    blank: frozenset[str] = frozenset()
    joined: tuple[str, tuple[str, ...]] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def column_of(self, header: str) -> str | None:
        """Return the column for a header, or None if the template does not have it."""
        return self.columns.get(plain(header))

    def fits(self, headers: Sequence[str]) -> bool:
        """Return True if a file with these headers was made from the template."""
        found = frozenset(map(plain, headers))
        return any(mark <= found for mark in self.marks)

    def is_second_header(self, headers: Sequence[str], record: Sequence[str]) -> bool:
        """Return True if a row contains column labels instead of values."""
        pairs = [
            (self.labels[plain(header)], plain(cell))
            for header, cell in zip(headers, record, strict=False)
            if plain(header) in self.labels
        ]
        return bool(pairs) and all(label == cell for label, cell in pairs)


def plain(header: str) -> str:
    """Return a header in lower case, without the prefixes and remarks that templates add."""
    text = " ".join(header.split()).lower()
    while text != (bare := _ASIDE.sub("", text)):
        text = bare
    return _PREFIX.sub("", text)


TEMPLATES = (
    Template(
        "czgenepi-upload",
        "the service's upload template",
        _SERVICE,
        (frozenset({"sample name", "private id"}), frozenset({"sample name", "sample is private"})),
    ),
    Template(
        "czgenepi-edit",
        "the service's edit template",
        _SERVICE,
        (
            frozenset({"current private id"}),
            frozenset({"new private id"}),
            frozenset({"sample is private", "collection location"}),
            frozenset({"sample is private", "public id"}),
        ),
        clearing=("Delete", "delete", "DELETE"),
    ),
    Template(
        "gisaid",
        "a GISAID table",
        _GISAID | {label: _GISAID[code] for code, label in _GISAID_LABELS.items()},
        (
            frozenset({"virus_name"}),
            frozenset({"virus name", "collection date"}),
            frozenset({"virus name", "accession id"}),
        ),
        labels=_GISAID_LABELS | {label: code for code, label in _GISAID_LABELS.items()},
    ),
    Template(
        "nextstrain",
        "Nextstrain metadata",
        {
            "strain": "public_identifier",
            "date": "collection_date",
            "host": "host",
            "authors": "authors",
        },
        (
            frozenset({"strain", "date"}),
            frozenset({"strain", "region", "country"}),
            frozenset({"strain", "virus"}),
            frozenset({"strain", "gisaid_epi_isl"}),
            frozenset({"strain", "genbank_accession"}),
        ),
        blank=frozenset({"?"}),
        joined=("location", _NEXTSTRAIN_PLACE),
    ),
)
NAMES = tuple(template.name for template in TEMPLATES)


def choose(name: str, headers: Sequence[str]) -> Template | None:
    """Return the template with this name, or for ``auto`` the one that matches the headers.

    Raises:
        BadInputError: There is no template of that name, or the file has none of its columns.
    """
    if name == NONE:
        return None
    if name == AUTO:
        return next((template for template in TEMPLATES if template.fits(headers)), None)
    found = next((template for template in TEMPLATES if template.name == name), None)
    if found is None:
        raise BadInputError(
            f"Invalid value for --template: {name!r}",
            hint=f"Choose one of: {', '.join((AUTO, NONE, *NAMES))}.",
        )
    if not any(map(found.column_of, headers)):
        raise BadInputError(
            f"Invalid value for --template: the file has no column of {found.title}",
            hint="Remove --template, or map the columns with --map.",
            details=[f"found: {', '.join(headers)}"],
        )
    return found


class Reading:
    """A table that is being read.

    Attributes:
        header: The column names, stripped and without invisible characters.
        header_line: The line number of the header.
        columns: The positions of the columns in use, once known.
        ignored: The positions of the others, except those ignored on purpose.
        days: The positions of the date columns.
        blank_lines: The number of blank lines skipped so far.
        template: The template that the file was made from, if any.
    """

    def __init__(self) -> None:
        self.header: list[str] = []
        self.header_line = 1
        self.columns: Sequence[int] = ()
        self.ignored: Sequence[int] = ()
        self.days: Sequence[int] = ()
        self.blank_lines = 0
        self.template: Template | None = None
        self._joined: list[int] = []
        self._ragged = 0
        self._first_ragged = 0

    @property
    def notes(self) -> list[str]:
        """Return notes for the operator on how it was read; complete once all of it is read."""
        raise NotImplementedError

    def name_columns(self, cells: Sequence[str]) -> None:
        """Set the header, with invisible characters removed."""
        self.header = []
        for cell in cells:
            name, unseen = strip_invisible(cell)
            self.header.append(name.strip())
            if unseen:
                shown = ", ".join(map(code_point, dict.fromkeys(unseen)))
                self.notes.append(
                    f"invisible characters in the header {name.strip()!r} are ignored: {shown}"
                )

    def use_template(self, name: str) -> None:
        """Apply a template; see `choose`."""
        self.template = template = choose(name, self.header)
        if template is None:
            return
        self.notes.append(f"read as {template.title} (to read it as is: --template none)")
        if template.joined:
            column, parts = template.joined
            found = [header.lower() for header in self.header]
            self._joined = [found.index(part) for part in parts if part in found]
            if self._joined:
                shown = " / ".join(self.header[place] for place in self._joined)
                self.header.append(shown if len(self._joined) > 1 else f"{shown} ({column})")

    def column_of(self, place: int) -> str | None:
        """Return the template's column for a position, or "" for one part of a joined column."""
        template = self.template
        if template is None:
            return None
        if place in self._joined:
            return ""
        if template.joined and self._joined and place == len(self.header) - 1:
            return template.joined[0]
        return template.column_of(self.header[place])

    def fit(self, line: int, record: list[str]) -> list[str] | None:
        """Return a row padded or cut to the header's width, or None if its cells are ambiguous.

        Surplus cells are accepted if they are blank, and missing ones if no column in use lacks
        its cell.
        """
        width = len(self.header)
        if any(map(str.strip, record[width:])) or len(record) <= max(self.columns, default=-1):
            return None
        self._ragged += 1
        self._first_ragged = self._first_ragged or line
        return record[:width] + [""] * (width - len(record))

    def watched(self, records: Iterator[Record]) -> Iterator[Record]:
        """Return the records with the template applied, counting values in ignored columns."""
        if self.template is not None:
            records = self._as_template(records, self.template)
        if self.ignored:
            records = self._counted(records)
        return chain(records, self._end())

    def _as_template(self, records: Iterator[Record], template: Template) -> Iterator[Record]:
        width, is_first = len(self.header) - bool(self._joined), True
        for line, record in records:
            if is_first and template.is_second_header(self.header, record):
                self.notes.append(f"line {line} is a second header row and is skipped")
                is_first = False
                continue
            is_first = False
            cells = [
                "" if type(cell) is str and cell.strip() in template.blank else cell
                for cell in record
            ]
            if self._joined and len(cells) >= width and not any(map(str.strip, cells[width:])):
                parts = (cells[place].strip() for place in self._joined)
                cells = [*cells[:width], " / ".join(filter(None, parts))]
            yield line, cells

    def _counted(self, records: Iterator[Record]) -> Iterator[Record]:
        counts = dict.fromkeys(self.ignored, 0)
        for line, record in records:
            width = len(record)
            for place in counts:
                if place < width and record[place] and not record[place].isspace():
                    counts[place] += 1
            yield line, record
        found = [
            f"{self.header[place] or '(no name)'} ({count:,})"
            for place, count in counts.items()
            if count
        ]
        if found:
            self.notes.append(f"values in ignored columns: {', '.join(found)}")

    def _end(self) -> Iterator[Record]:
        if self._ragged:
            self.notes.append(
                "rows with extra blank cells, or without cells in unused columns: "
                f"{self._ragged:,} (the first is line {self._first_ragged:,})"
            )
        yield from ()
