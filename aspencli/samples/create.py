"""Samples created through the API, from a table and a FASTA file.

Both files are checked before anything is sent. Samples are sent in batches, each all or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aspencli.changes.cells import Understood, day, identifier, named, spoiled, text, truth
from aspencli.errors import BadInputError, ConflictError, NotFoundError
from aspencli.reference.remote import Gazetteer, Scope, find_slugs
from aspencli.remote.types import NewGenome, NewSample, NewSampleFields, Sample
from aspencli.samples.keys import IDENTIFIERS
from aspencli.samples.remote import pick
from aspencli.tabular.damage import Unusable, missing_in
from aspencli.tabular.dates import DayFormat, DayNotes
from aspencli.tabular.fasta import Genome, read_fasta
from aspencli.tabular.table import Fault, Table, find, note_further
from aspencli.text import folded, quote, unusual_in_identifier

if TYPE_CHECKING:
    from aspencli.remote.api import Api, Samples

REQUIRED = ("private_identifier", "collection_date", "location")
SHORTEST = 1000
"""Minimum sequence length that the service accepts."""
_MOST, _SEQUENCE_LETTERS = 100, 3_000_000
"""The maximum number of samples, and of sequence letters, per request."""
_LETTERS = re.compile("[WSKMYRVHDBNZATCGU-]+")
_BLANK = "is blank"


def _depth(cell: str) -> Understood:
    try:
        number = float(cell)
    except ValueError:
        return None, f"{quote(cell)} is not a number"
    return (
        (cell, None)
        if 0 <= number < float("inf")
        else (None, f"{quote(cell)} is not a valid depth")
    )


_TEXTS = (
    *("organism", "authors", "host", "sample_collected_by", "sample_collector_contact_email"),
    *("sample_collector_contact_address", "purpose_of_sampling", "specimen_processing"),
)
FIELDS: Mapping[str, Callable[[str], Understood]] = {
    "private_identifier": identifier,
    "public_identifier": identifier,
    "collection_date": day,
    "location": named,
    "private": truth,
    "sequencing_date": day,
    "sequencing_depth": _depth,
    "sequence_name": named,
    **dict.fromkeys(_TEXTS, text),
}
"""The parser of each table column. ``sequence_name`` is the FASTA header, if it is not the
private identifier."""
_OF_GENOME = ("sequencing_date", "sequencing_depth")


@dataclass
class WantedSample:
    """A sample to create, from a line of the table; its sequence is in the FASTA file.

    The fields of the sample and of its genome are as the API takes them.
    """

    line: int
    fields: NewSampleFields
    genome: dict[str, Any] = field(default_factory=dict)
    sequence_name: str = ""

    @property
    def private(self) -> str:
        """Return its private identifier."""
        return self.fields["private_identifier"]


def read_wanted(
    source: Table,
    fault: Callable[[Fault], None],
    places: Gazetteer,
    *,
    private: bool,
    names: Sequence[str] = (),
    missing_words: bool = False,
    days: DayFormat | None = None,
) -> list[WantedSample]:
    """Return the valid rows of a table; report the problems of the others to ``fault``.

    ``private`` applies where the table does not say; ``days`` is the date format that the file uses
    besides ISO 8601. For the other arguments, see `aspencli.changes.cells.read_mapping`.

    Raises:
        BadInputError: The header lacks a required column.
    """
    columns = find(source, list(FIELDS), "samples", names=names)
    lacking = [name for name in REQUIRED if name not in columns]
    if lacking:
        raise BadInputError(
            f"Line {source.header_line} of {source.name} has no column {', '.join(lacking)}",
            hint=f"Required: {', '.join(REQUIRED)}. If the file has other names, use --map.",
        )
    note_further(source, list(columns.values()), names)
    found: list[WantedSample] = []
    future = {name: DayNotes(name) for name in columns if FIELDS[name] is day}
    for line, cells_found in source.records(fault):
        record = source.fit(line, cells_found, fault)
        if record is None:
            continue
        cells = {
            name: cell if isinstance(cell := record[place], Unusable) else cell.strip()
            for name, place in columns.items()
        }
        wanted = understand(
            line, cells, fault, places, private=private, missing_words=missing_words, days=days
        )
        if wanted is not None:
            found.append(wanted)
            for name, counter in future.items():
                counter.look_at(line, {**wanted.fields, **wanted.genome}.get(name), cells[name])
    for counter in future.values():
        source.notes.extend(counter.notes())
    _check_names(found, fault)
    return found


def understand(
    line: int,
    cells: Mapping[str, str],
    fault: Callable[[Fault], None],
    places: Gazetteer,
    *,
    private: bool,
    missing_words: bool = False,
    days: DayFormat | None = None,
) -> WantedSample | None:
    """Return the sample in cells named as in `FIELDS`, or None if anything is wrong with it."""
    values: dict[str, Any] = {}
    is_good = True
    for name in FIELDS:
        cell = cells.get(name, "")
        value, reason = _understood(name, cell, missing_words=missing_words, days=days)
        if name == "location" and value is not None:
            value, reason = _placed(places, value)
        if reason is not None:
            fault(Fault(line, name, reason))
            is_good = False
        elif value is not None:
            values[name] = value
    return _wanted(line, values, private=private) if is_good else None


def _wanted(line: int, values: dict[str, Any], *, private: bool) -> WantedSample:
    genome = {name: values.pop(name) for name in _OF_GENOME if name in values}
    if "sequencing_depth" in genome:
        genome["sequencing_depth"] = float(genome["sequencing_depth"])
    sequence_name = values.pop("sequence_name", values["private_identifier"])
    values["location_id"] = values.pop("location")
    values["private"] = values["private"] == "true" if "private" in values else private
    fields: Any = values
    return WantedSample(line, fields, genome, sequence_name)


def _understood(name: str, cell: str, *, missing_words: bool, days: DayFormat | None) -> Understood:
    reason = spoiled(cell)
    if reason is None and not cell:
        return None, _BLANK if name in REQUIRED else None
    if reason is None and name in IDENTIFIERS and not missing_words:
        reason = missing_in(cell)
    if reason:
        return None, reason
    understand = FIELDS[name]
    return days.understand(cell) if days is not None and understand is day else understand(cell)


def _placed(places: Gazetteer, text: str) -> tuple[Any, str | None]:
    try:
        return places.find(text)["id"], None
    except (NotFoundError, BadInputError) as error:
        near = f" ({error.details[0]})" if error.details else ""
        message = error.message.removesuffix(".")
        return None, f"{message[:1].lower()}{message[1:]}{near}"


def _check_names(wanted: Iterable[WantedSample], fault: Callable[[Fault], None]) -> None:
    for name in (*IDENTIFIERS, "sequence_name"):
        lines: dict[str, int] = {}
        for one in wanted:
            value = one.sequence_name if name == "sequence_name" else one.fields.get(name)
            if value is not None and lines.setdefault(str(value), one.line) != one.line:
                fault(Fault(one.line, name, f"duplicate of line {lines[str(value)]}"))


class Sequences:
    """The sequences of a FASTA file, which is read twice and never loaded as a whole."""

    def __init__(self, path: Path, wanted: Sequence[WantedSample]):
        self._path = path
        self._stamp = _stamp(path)
        self._by_name = {one.sequence_name: one for one in wanted}

    def check(self, fault: Callable[[Fault], None]) -> list[str]:
        """Check every sequence, report problems, and return the headers of those without a sample.

        Raises:
            BadInputError: The file is not FASTA.
        """
        seen: set[str] = set()
        foreign = []
        for found in read_fasta(self._path):
            one = self._of(found)
            if one is None:
                foreign.append(found.header)
                continue
            reason = flaw_of(found.sequence)
            if one.sequence_name in seen:
                reason = "is in the FASTA file more than once"
            seen.add(one.sequence_name)
            if reason is not None:
                fault(Fault(one.line, "", f"its sequence {reason}"))
        self._report_missing(seen, foreign, fault)
        return foreign

    def _report_missing(
        self, seen: Collection[str], foreign: Iterable[str], fault: Callable[[Fault], None]
    ) -> None:
        """Report the samples without a sequence, each with the unknown header that looks alike."""
        look_alikes = {folded(name): name for name in foreign}
        for name, one in self._by_name.items():
            if name not in seen:
                near = look_alikes.get(folded(name))
                odd = unusual_in_identifier(name) or unusual_in_identifier(near or "")
                why = f" ({odd[0]})" if odd else ""
                meant = f"; did you mean {quote(near)}?{why}" if near is not None else ""
                fault(Fault(one.line, "", f"has no sequence {quote(name)} in {self._path}{meant}"))

    def samples(self, wanted: Collection[WantedSample]) -> Iterator[NewSample]:
        """Yield each of these samples with its sequence, in the order of the FASTA file.

        Raises:
            ConflictError: The file has changed since it was checked.
        """
        left = {one.private for one in wanted}
        for found in read_fasta(self._path):
            one = self._of(found)
            if _stamp(self._path) != self._stamp:
                break
            if one is not None and one.private in left:
                left.remove(one.private)
                genome: Any = {"sequence": found.sequence.replace(".", "-"), **one.genome}
                whole: NewGenome = genome
                yield {"sample": one.fields, "pathogen_genome": whole}
        if left:
            raise ConflictError(
                f"{self._path} was modified while the command was running.",
                hint="Run the command again with --skip-existing, and do not modify the file.",
            )

    def _of(self, found: Genome) -> WantedSample | None:
        return self._by_name.get(found.header) or self._by_name.get(found.name)


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Return a value that changes when the file's content changes; None if stat fails."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def flaw_of(sequence: str) -> str | None:
    """Return what is wrong with an uppercase sequence, or None."""
    letters = sequence.replace(".", "-")
    if len(letters) < SHORTEST:
        return f"is too short: {len(letters):,} letters (minimum {SHORTEST:,})"
    if not _LETTERS.fullmatch(letters):
        odd = sorted({letter for letter in letters if not _LETTERS.fullmatch(letter)})
        return f"contains invalid letters: {' '.join(odd)}"
    return None


def taken_names(
    api: Api, scope: Scope, wanted: Iterable[WantedSample]
) -> tuple[set[str], set[str]]:
    """Return the private and public identifiers of these samples that the group already has.

    Its samples of all pathogens count.
    """
    fields = [one.fields for one in wanted]
    private = {each["private_identifier"] for each in fields}
    public = {each["public_identifier"] for each in fields if "public_identifier" in each}

    def take(found: Iterable[Sample]) -> list[tuple[str | None, str | None]]:
        return [
            (sample["private_identifier"], sample["public_identifier"])
            for sample in found
            if sample["submitting_group"]["id"] == scope.org.id
            and (sample["private_identifier"] in private or sample["public_identifier"] in public)
        ]

    pairs = [
        pair
        for slug in find_slugs(api, None)
        for pair in api.samples.read(scope.org.id, slug, take)
    ]
    return private & {name for name, _ in pairs}, public & {name for _, name in pairs}


def create_samples(
    samples: Samples, scope: Scope, wanted: Iterable[NewSample]
) -> Iterator[list[Sample]]:
    """Create samples in batches, yielding the created samples of each batch.

    Raises:
        AspenError: A batch was rejected; the batches yielded before are created.
    """
    for some in _in_parts(wanted):
        yield samples.create(*scope.key, some, partial(_look, samples, scope, some))


def _in_parts(wanted: Iterable[NewSample]) -> Iterator[list[NewSample]]:
    part: list[NewSample] = []
    letters = 0
    for one in wanted:
        length = len(one["pathogen_genome"]["sequence"])
        if part and (len(part) == _MOST or letters + length > _SEQUENCE_LETTERS):
            yield part
            part, letters = [], 0
        part.append(one)
        letters += length
    if part:
        yield part


def _look(samples: Samples, scope: Scope, some: Sequence[NewSample]) -> list[Sample] | None:
    """Return the samples created by a request whose response was lost, or None."""
    names = {one["sample"]["private_identifier"] for one in some}

    def keep(sample: Sample) -> bool:
        own = sample["submitting_group"]["id"] == scope.org.id
        return own and sample["private_identifier"] in names

    there = pick(samples, scope, keep)
    if not there:
        return None
    if len(there) == len(some):
        return there
    raise ConflictError(
        f"The response was lost, and {len(there):,} of {len(some):,} samples exist: another user "
        "created some of them.",
        hint="Run the command again with --skip-existing.",
    )
