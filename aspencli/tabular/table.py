"""Tables as their readers return them: rows, columns in use, and how columns are found by name.

Columns are found by the names in the header, by those that the operator gives, or by a template. A
template says what the columns of a file mean, and how the file clears values.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from aspencli.errors import BadInputError
from aspencli.text import code_point, folded, strip_invisible

REJECTED = ("line", "reason")
"""The first columns of a rejects file, which are not part of the original file."""
_AUTO = "auto"  # recognize a template by the columns of the file
NO_TEMPLATE = "none"
"""The name to read a file as it is."""
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
_GISAID = {
    "virus_name": ("virus name", "public_identifier"),
    "subm_sample_id": ("sample id given by the submitting laboratory", "private_identifier"),
    "collection_date": ("collection date", "collection_date"),
    "location": ("location", "location"),
    "host": ("host", "host"),
    "authors": ("authors", "authors"),
}
_NEXTSTRAIN = {"strain": "public_identifier", "date": "collection_date"}
_NEXTSTRAIN |= {"host": "host", "authors": "authors"}
_NEXTSTRAIN_PLACE = ("region", "country", "division", "location")
_IDENTIFIER = re.compile(r"(identi\w*|ids?)$")
_SHOWN = 300  # characters of a header in a message
_SYNONYMS = {
    "private_identifier": {"labid", "labno", "labnumber", "sampleid", "samplename", "specimenid"},
    "public_identifier": {"strain", "virusname", "covvvirusname", "gisaidname", "publicname"},
}
"""Names that laboratories use for columns; suggested, but never used automatically."""
_NEAR = 0.7  # similarity of the letters, from 0 to 1
_VERY_NEAR = 0.85  # for columns that are optional


class DamageCount:
    """A count of unusual cells or rows, with the place of the first."""

    def __init__(self) -> None:
        self.number = 0
        self.first = ""

    def add(self, place: str) -> None:
        """Count a cell or a row."""
        self.number += 1
        self.first = self.first or place

    def __str__(self) -> str:
        return f"{self.number:,} (the first is {self.first})"


@dataclass(frozen=True)
class Fault:
    """The reason a line (from 1) cannot be used; an empty column means the line as a whole."""

    line: int
    column: str
    reason: str


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
        return self.columns.get(_bare(header))

    def fits(self, headers: Sequence[str]) -> bool:
        """Return True if a file with these headers was made from the template."""
        found = frozenset(map(_bare, headers))
        return any(mark <= found for mark in self.marks)

    def is_second_header(self, headers: Sequence[str], record: Sequence[str]) -> bool:
        """Return True if a row contains column labels instead of values."""
        pairs = [
            (self.labels[_bare(header)], _bare(cell))
            for header, cell in zip(headers, record, strict=False)
            if _bare(header) in self.labels
        ]
        return bool(pairs) and all(label == cell for label, cell in pairs)


def _bare(header: str) -> str:
    """Return a header in lower case, without the prefixes and remarks that templates add."""
    text = " ".join(header.split()).lower()
    while text != (bare := _ASIDE.sub("", text)):
        text = bare
    return _PREFIX.sub("", text)


_TEMPLATES = (
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
        {header: column for code, (label, column) in _GISAID.items() for header in (code, label)},
        (
            frozenset({"virus_name"}),
            frozenset({"virus name", "collection date"}),
            frozenset({"virus name", "accession id"}),
        ),
        labels={code: label for code, (label, _column) in _GISAID.items()}
        | {label: code for code, (label, _column) in _GISAID.items()},
    ),
    Template(
        "nextstrain",
        "Nextstrain metadata",
        _NEXTSTRAIN,
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


def _choose(name: str, headers: Sequence[str]) -> Template | None:
    """Return the template with this name, or for ``auto`` the one that matches the headers."""
    if name == NO_TEMPLATE:
        return None
    if name == _AUTO:
        return next((template for template in _TEMPLATES if template.fits(headers)), None)
    found = next((template for template in _TEMPLATES if template.name == name), None)
    if found is None:
        names = [template.name for template in _TEMPLATES]
        raise BadInputError(
            f"Invalid value for --template: {name!r}",
            hint=f"Choose one of: {', '.join((_AUTO, NO_TEMPLATE, *names))}.",
        )
    if not any(map(found.column_of, headers)):
        raise BadInputError(
            f"Invalid value for --template: the file has no column of {found.title}",
            hint="Remove --template, or map the columns with --map.",
            details=[f"found: {', '.join(headers)}"],
        )
    return found


class Table:
    """A table that is being read; each file format is a subclass.

    Args:
        name: Its name in messages.
        notes: Notes for the operator on how it is read; complete once all of it is read.
        delimiter: The delimiter between its cells, or between column names in messages.

    Attributes:
        header: The column names, stripped and without invisible characters.
        header_line: The line number of the header.
        columns: The positions of the columns in use, once known.
        ignored: The positions of the others, except those ignored on purpose.
        days: The positions of the date columns.
        blank_lines: The number of blank lines skipped so far.
        template: The template that the file was made from, if any.
        is_guarded: True if apostrophes keep spreadsheets from evaluating the cells of a text.
    """

    def __init__(self, name: str, notes: list[str], delimiter: str) -> None:
        self.name = name
        self.notes = notes
        self.delimiter = delimiter
        self.header: list[str] = []
        self.header_line = 1
        self.columns: Sequence[int] = ()
        self.ignored: Sequence[int] = ()
        self.days: Sequence[int] = ()
        self.blank_lines = 0
        self.template: Template | None = None
        self.is_guarded = False
        self._joined: list[int] = []
        self._ragged = DamageCount()

    @property
    def remedy(self) -> str | None:
        """Return what to do about the unreadable cells so far, or None if there are none."""
        return None

    def records(self, fault: Callable[[Fault], None]) -> Iterator[Record]:
        """Return the rows, each with its first line number; report faults to ``fault``."""
        raise NotImplementedError

    def line_of(self, names: Collection[str]) -> int | None:  # noqa: ARG002 - see the subclasses
        """Return an early line after the header that has all these names as cells, if any."""
        return None

    def is_reported(self, value: str) -> bool:  # noqa: ARG002 - see the subclasses
        """Return True if the value is unreadable and already reported as a fault."""
        return False

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
        """Apply the template with this name, or for ``auto`` the one that the header matches.

        Raises:
            BadInputError: There is no template of that name, or the file has none of its columns.
        """
        self.template = template = _choose(name, self.header)
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

    def fit(self, line: int, record: list[str], fault: Callable[[Fault], None]) -> list[str] | None:
        """Return a row fitted to the header's width, or report a fault and return None.

        Surplus cells are accepted if they are blank, and missing ones if no column in use lacks
        its cell.
        """
        width = len(self.header)
        if len(record) == width:
            return record
        if any(map(str.strip, record[width:])) or len(record) <= max(self.columns, default=-1):
            kind = "too few" if len(record) < width else "too many"
            reason = f"has {kind} cells: {len(record)} (the header has {width})"
            fault(Fault(line, "", reason))
            return None
        self._ragged.add(f"line {line:,}")
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
        if self._ragged.number:
            self.notes.append(
                f"rows with extra blank cells, or without cells in unused columns: {self._ragged}"
            )
        yield from ()


class SavedName(str):
    """A pair from a saved column mapping, which need not apply to every file."""

    __slots__ = ()


def locate(
    source: Table, wanted: Sequence[str], kind: str = "a mapping file", *, names: Sequence[str] = ()
) -> list[int]:
    """Return the positions of the wanted columns, and note any others.

    The operator may give the file's names for some of them: ``Lab ID=private_identifier``, in any
    case. Messages name the kind of file.

    Raises:
        BadInputError: A column is missing or appears twice, or the file lacks a given name.
    """
    positions, problems = _placed(source, wanted, names)
    problems += [(name, 0) for name in wanted if name not in positions]
    if problems:
        raise _foreign(source, wanted, kind, problems)
    used = [positions[name] for name in wanted]
    note_further(source, used, names)
    return used


def find(
    source: Table, known: Sequence[str], kind: str, *, names: Sequence[str] = ()
) -> dict[str, int]:
    """Return the positions of the known columns that the file has; for the rest, see `locate`.

    Raises:
        BadInputError: A column appears twice, the file lacks a given name, or a header is a near
            match, so that its column would be ignored.
    """
    positions, twice = _placed(source, known, names)
    if twice:
        raise _foreign(source, known, kind, twice)
    taken = {*positions.values(), *_unwanted(source, names)}
    free = [name for place, name in enumerate(source.header) if place not in taken]
    missing = [name for name in known if name not in positions]
    near = _nearest(missing, free, _VERY_NEAR) if missing else {}
    if near:
        options = " ".join(_option(header, name) for name, header in near.items())
        raise BadInputError(
            f"Line {source.header_line} of {source.name} has "
            + ", ".join(f"{header!r} (did you mean {name}?)" for name, header in near.items()),
            hint=f"If so: {options}. To ignore it: "
            + " ".join(_option(header, "") for header in near.values()),
            details=[f"found: {_listed(source.header)}"],
        )
    return positions


def note_further(source: Table, used: Sequence[int], names: Sequence[str] = ()) -> None:
    """Record the positions of the columns that are used, and note the other columns.

    Those that the operator gave an empty name are ignored on purpose.
    """
    parts = [place for place in range(len(source.header)) if source.column_of(place) == ""]
    used = [*used, *parts]  # the template joins these into one column
    further = [name for place, name in enumerate(source.header) if place not in used]
    if further:
        source.notes.append(f"ignored columns: {_listed(further)}")
    source.columns = used
    own = len(REJECTED) if tuple(source.header[: len(REJECTED)]) == REJECTED else 0
    known = {*used, *_unwanted(source, names), *range(own)}
    source.ignored = [place for place in range(len(source.header)) if place not in known]


def _placed(
    source: Table, wanted: Sequence[str], names: Sequence[str]
) -> tuple[dict[str, int], list[tuple[str, int]]]:
    """Return the position of each column found, and the columns found several times."""
    found = list(map(_plain, source.header))
    positions = _given(source, wanted, names)
    unwanted = _unwanted(source, names)
    twice = []
    for name in wanted:
        if name in positions:
            continue
        places = [
            place
            for place, header in enumerate(found)
            if place not in unwanted
            and place not in positions.values()
            and (header if (column := source.column_of(place)) is None else column) == name
        ]
        if len(places) == 1:
            positions[name] = places[0]
        elif places:
            twice.append((name, len(places)))
    return positions, twice


def _unwanted(source: Table, names: Sequence[str]) -> list[int]:
    """Return the positions of the columns ignored on purpose: ``--map 'Note='``."""
    ignored = {_plain(words[:-1]) for words in names if words.endswith("=")}
    return [place for place, header in enumerate(source.header) if _plain(header) in ignored]


def _given(source: Table, wanted: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """Return the position of each column that the operator has named."""
    found = list(map(_plain, source.header))
    positions: dict[str, int] = {}
    for words in names:
        header, is_pair, column = (part.strip() for part in words.rpartition("="))
        name = column.lower()
        if isinstance(words, SavedName) and (
            name not in wanted or found.count(_plain(header)) == 0
        ):
            continue
        if header and is_pair and not name:
            if _plain(header) not in found:
                raise _unknown(source, header, name)
            continue
        if not (is_pair and header) or name not in wanted:
            raise BadInputError(
                f"Invalid value for --map: {words!r}",
                hint=f"Use HEADER=COLUMN, where COLUMN is one of: {', '.join(wanted)}.",
            )
        if name in positions:
            raise BadInputError(f"--map names {name} more than once.", hint="Map each column once.")
        if found.count(_plain(header)) != 1:
            raise _unknown(source, header, name)
        positions[name] = found.index(_plain(header))
    return positions


def _unknown(source: Table, header: str, name: str) -> BadInputError:
    if _plain(header) in map(_plain, source.header):
        return BadInputError(
            f"{source.name} has more than one column {header}",
            hint="Give the columns different names.",
        )
    from difflib import get_close_matches

    headers = {_plain(other): other for other in source.header}
    near = get_close_matches(_plain(header), list(headers), n=1)
    return BadInputError(
        f"Invalid value for --map: {source.name} has no column {header!r}",
        hint=f"Did you mean {_option(headers[near[0]], name)}?" if near else "Check its header.",
        details=[f"found: {_listed(source.header)}"],
    )


def _foreign(
    source: Table, wanted: Sequence[str], kind: str, problems: Sequence[tuple[str, int]]
) -> BadInputError:
    near = _nearest(wanted, source.header)
    reasons = []
    for name, count in problems:
        meant = f" (did you mean {near[name]!r}?)" if name in near else ""
        reasons.append(f"{count} columns {name}" if count else f"no column {name}{meant}")
    absent = [name for name, count in problems if not count]
    options = [_option(near.get(name, "YOUR HEADER"), name) for name in absent]
    hint = f"Expected: {source.delimiter.join(wanted)}"
    later = source.line_of(absent) if absent else None
    if later is not None:
        hint = f"Line {later} looks like the header: --skip-lines {later - 1}"
        options = []
    return BadInputError(
        f"Line {source.header_line} of {source.name} is not the header of {kind}: "
        f"{'; '.join(reasons)}",
        hint=f"{hint}. To map other names: {' '.join(options)}" if options else hint,
        details=[f"found: {_listed(source.header)}"],
    )


def _nearest(
    wanted: Sequence[str], header: Sequence[str], near: float = _NEAR
) -> Mapping[str, str]:
    """Return, by column, the header that was probably meant, if there is one."""
    from difflib import SequenceMatcher

    best: dict[str, tuple[float, str]] = {}
    for other in header:
        letters = _letters(other)
        likeness, name = max(
            (
                1.0
                if letters in _SYNONYMS.get(name, ()) and near < _VERY_NEAR
                else SequenceMatcher(None, _stem(other, name), _stem(name, other)).ratio(),
                name,
            )
            for name in wanted
        )
        if likeness >= max(near, best.get(name, (0.0, ""))[0]) and _plain(other) not in wanted:
            best[name] = likeness, other
    return {name: other for name, (_likeness, other) in best.items()}


def _plain(header: str) -> str:
    return " ".join((header if header.isascii() else folded(header)).split()).lower()


def _letters(header: str) -> str:
    return re.sub(r"[\W_]", "", _plain(header))


def _stem(header: str, other: str) -> str:
    """Return the part to compare: Private ID is like private_identifier, Sample ID is not."""
    stem, others = (_IDENTIFIER.sub("", _letters(each)) for each in (header, other))
    are_both = stem != _letters(header) and others != _letters(other)
    return stem if are_both and stem and others else _letters(header)


def _option(header: str, name: str) -> str:
    return f"--map {shlex.quote(f'{header}={name}')}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name.replace("\n", " ") or "(no name)" for name in names)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
