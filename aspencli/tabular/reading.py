"""Parts shared by the readers of all table formats: limits, faults, and the columns to read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from aspencli.stored_text import code_point, without_unseen
from aspencli.tabular.templates import Template, choose

Record = tuple[int, list[str]]


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
            name, unseen = without_unseen(cell)
            self.header.append(name.strip())
            if unseen:
                shown = ", ".join(map(code_point, dict.fromkeys(unseen)))
                self.notes.append(
                    f"invisible characters in the header {name.strip()!r} are ignored: {shown}"
                )

    def use_template(self, name: str) -> None:
        """Apply a template; see `aspencli.tabular.templates.choose`."""
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
