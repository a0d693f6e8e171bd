"""Plan the undo of several columns through the API, with the same messages as in a database.

It does over the API's list of samples what `aspen.database.bulk` does in SQL. Rows with a value
that the API cannot write are skipped, with the reason.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from aspen.database.bulk.samples import LOCATION, PRIVATE, SAMPLES, SEQUENCING_DATE
from aspen.database.bulk.spec import (
    KEEP,
    AssessedRow,
    Change,
    Column,
    MovedRow,
    Plan,
    PlannedRow,
    Problem,
    Request,
    Spec,
    Value,
)
from aspencli.changes.undo import UndoRow
from aspencli.reference.remote import name_of
from aspencli.remote.api import Locations, Sample, SampleRecord
from aspencli.samples.edit import (
    STORED,
    Edit,
    EditableSample,
    cell_of,
    held,
    undo_rows,
    value_of,
)
from aspencli.samples.rename_plan import GroupSamples, quoted_value

_LIMIT = "the API cannot do that; use --via db"


@dataclass
class Listing:
    """The samples of a group as the API listed them.

    Attributes:
        samples: The wanted samples, by ID.
        slugs: Their pathogens, by ID.
        holders: The group's samples by identifier, for each column; with their labels.
    """

    samples: dict[int, EditableSample] = field(default_factory=dict)
    slugs: dict[int, str] = field(default_factory=dict)
    holders: dict[str, dict[str, tuple[int, str]]] = field(default_factory=dict)


def read_listing(place: GroupSamples, ids: Iterable[int], unique: Iterable[Column]) -> Listing:
    """Fetch the samples with these IDs, and the identifiers that other samples of the group have.

    Args:
        place: The group's samples.
        ids: The IDs of the wanted samples.
        unique: The columns whose values no two samples of the group may share.
    """
    wanted, names = frozenset(ids), [column.name for column in unique]
    found = Listing(holders={name: {} for name in names})

    def keep(sample: Sample) -> EditableSample | None:
        if sample["submitting_group"]["id"] != place.group_id:
            return None
        label = sample["private_identifier"] or ""
        for name in names:
            found.holders[name][str(sample.get(name) or "")] = sample["id"], label
        return held(sample) if sample["id"] in wanted else None

    for slug in place.slugs:
        for each in place.samples.map(place.group_id, slug, keep):
            if each is not None:
                found.samples[each.record["id"]] = each
                found.slugs[each.record["id"]] = slug
        if not names and len(found.samples) == len(wanted):
            break
    return found


@dataclass(frozen=True)
class _Entry:
    """A row of the file, along with the sample that it names and the values of its columns."""

    request: Request
    held: EditableSample | None
    columns: tuple[Column, ...]

    @property
    def line(self) -> int:
        return self.request.line

    @property
    def label(self) -> str:
        record = self.held and self.held.record
        return record["private_identifier"] if record else self.request.label or self.request.key

    def values(self) -> Iterator[tuple[Column, Value, Value, Value]]:
        """Yield each column that the row gives: its current, its new, and its expected value."""
        expected = self.request.expected or self.request.values
        for column, new, old in zip(self.columns, self.request.values, expected, strict=True):
            if new is not KEEP and old is not KEEP:
                now = cell_of(self.held.record, column.name) if self.held else None
                yield column, now, new, old

    def differing(self) -> Iterator[tuple[Column, Value, Value, Value]]:
        """Yield the same for the columns that change."""
        return (each for each in self.values() if self.held and each[1] != each[2])

    @property
    def changes(self) -> bool:
        return any(True for _ in self.differing())

    def moved(self) -> Iterator[tuple[Column, Value, Value]]:
        """Yield each changing column without the expected value: the current and the expected."""
        return ((column, now, old) for column, now, _new, old in self.differing() if now != old)

    def edit(self, before: EditableSample) -> Edit:
        """Return the edit that restores the sample."""
        changes = {STORED[c.name]: value_of(c.name, new) for c, _, new, _ in self.differing()}
        after: SampleRecord = {**before.record, **changes}  # type: ignore[typeddict-item] # checked
        return Edit(before, after)


class RestorePlan:
    """An undo of several columns, planned over the API's list of samples.

    Args:
        spec: The specification of the undo.
        place: The group's samples.
        locations: The API's locations.
    """

    def __init__(self, spec: Spec, place: GroupSamples, locations: Locations):
        self._spec = spec
        self._place = place
        self._locations = locations
        self._requests: list[Request] = []
        self._entries: dict[int, _Entry] = {}
        self._dropped: dict[int, _Entry] = {}  # rows left out of the plan
        self._problems: list[Problem] = []
        self._left_out: list[Problem] = []
        self._listing = Listing()
        self._places: dict[str, str] = {}
        self._waits: dict[int, set[int]] = {}

    @property
    def encoding(self) -> None:
        """Return None: the API takes every character."""

    def load(self, requests: Iterable[Request]) -> int:
        """Load the rows of the file, and return their number."""
        self._requests = list(requests)
        return len(self._requests)

    def plan(self, *, skip_moved: bool = False, force: bool = False) -> Plan:
        """Compare the rows of the file with the list, as `BulkRun.plan` does."""
        del skip_moved  # An undo always skips what it cannot restore.
        unique = [column for _number, column in self._spec.unique()]
        ids = [int(request.key) for request in self._requests]
        self._listing = read_listing(self._place, ids, unique)
        columns, samples = self._spec.columns, self._listing.samples
        self._entries = {
            request.line: _Entry(request, samples.get(int(request.key)), columns)
            for request in self._requests
        }
        if LOCATION in columns:
            self._places = {str(each["id"]): name_of(each) for each in self._locations.all()}
        self._problems += self._repeated(unique)
        for found in (() if force else self._moved(), self._unknown(), self._impossible()):
            self._leave(list(found))
        detours = self._leave_taken(unique)
        for each in (self._problems, self._left_out):
            each.sort(key=lambda problem: (problem.line, problem.column))
        return self._sum(detours, force=force)

    def problems(self) -> Generator[Problem, None, None]:
        """Yield all problems, ordered by line."""
        yield from self._problems

    def left_out(self) -> Generator[Problem, None, None]:
        """Yield the rows left out of the plan, with the reason, ordered by line."""
        yield from self._left_out

    def explain(self, unknown: Mapping[int, tuple[str, str]]) -> None:
        """Do nothing: an undo file finds samples by ID."""

    def moved(self) -> Generator[MovedRow, None, None]:
        """Yield the values in the planned rows that are not the expected ones, by line."""
        for entry in self._entries.values():
            for column, now, expected in entry.moved():
                values = (self._shown(column, expected), self._shown(column, now))
                yield MovedRow(entry.line, entry.request.key, entry.label, column.name, *values)

    def outcomes(self) -> Generator[AssessedRow, None, None]:
        """Yield every row of the file, ordered by line, with the reason if it is not applied."""
        reasons: dict[int, list[str]] = defaultdict(list)
        for problem in [*self._problems, *self._left_out]:
            reasons[problem.line].append(f"{problem.column}: {problem.reason}")
        for request in self._requests:
            left_out = request.line in self._dropped
            entry = self._dropped[request.line] if left_out else self._entries[request.line]
            reason = "; ".join(reasons.get(request.line, ())) or None
            yield AssessedRow(request.line, entry.label, self._changes(entry), reason, left_out)

    def rows(self, *, limit: int | None = None, changed_only: bool = False) -> Iterator[PlannedRow]:
        """Return the planned rows, ordered by line."""
        found = (
            PlannedRow(entry.line, entry.label, self._changes(entry))
            for entry in self._entries.values()
            if entry.held and (entry.changes or not changed_only)
        )
        return islice(found, limit)

    def undo_rows(self) -> Iterator[UndoRow]:
        """Return the plan in the form that an undo file stores."""
        columns = [column.name for column in self._spec.columns]
        return undo_rows(self._edits().values(), columns)

    def batches(self) -> list[tuple[str, list[Edit]]]:
        """Return the edits by pathogen, in the order in which they can be sent.

        A sample that takes the identifier of another one is in a later batch than that one, because
        the live service cannot move an identifier between samples in one request.
        """
        left = self._edits()
        found: list[tuple[str, list[Edit]]] = []
        while left:
            ready = [id_ for id_ in left if not self._waits.get(id_, set()) & left.keys()]
            by_slug: dict[str, list[Edit]] = defaultdict(list)
            for id_ in ready:
                by_slug[self._listing.slugs[id_]].append(left.pop(id_))
            found += by_slug.items()
        return found

    def _edits(self) -> dict[int, Edit]:
        return {
            entry.held.record["id"]: entry.edit(entry.held)
            for entry in self._entries.values()
            if entry.held and entry.changes
        }

    def _changes(self, entry: _Entry) -> tuple[Change, ...]:
        return tuple(
            Change(column.name, self._shown(column, now), self._shown(column, new), now == new)
            for column, now, new, _old in entry.values()
        )

    def _shown(self, column: Column, value: Value) -> Value:
        """Return a value as people read it."""
        return self._places.get(value or "", value) if column == LOCATION else value

    def _repeated(self, unique: Iterable[Column]) -> Iterator[Problem]:
        """Yield a problem for each row that repeats a sample or a new identifier."""
        lines: dict[tuple[str, str], int] = {}
        names = {column.name for column in unique}
        for entry in self._entries.values():
            claims = [(self._spec.key.name, entry.request.key)]
            claims += [(c.name, str(new)) for c, _, new, _ in entry.values() if c.name in names]
            for claim in claims:
                first = lines.setdefault(claim, entry.line)
                if first != entry.line:
                    yield Problem(entry.line, claim[0], f"duplicate of line {first}")

    def _moved(self) -> Iterator[Problem]:
        for entry in self._entries.values():
            for column, now, expected in entry.moved():
                words = [quoted_value(self._shown(column, value)) for value in (now, expected)]
                reason = (
                    f"{quoted_value(entry.label)} {column.holds} {words[0]}, expected {words[1]}"
                )
                yield Problem(entry.line, column.name, reason)

    def _unknown(self) -> Iterator[Problem]:
        for entry in self._entries.values():
            if entry.held is None:
                reason = f"{SAMPLES.noun} {quoted_value(entry.label)} no longer exists"
                yield Problem(entry.line, PRIVATE.name, reason)

    def _impossible(self) -> Iterator[Problem]:
        for entry in self._entries.values():
            for column, _now, new, _old in entry.differing():
                reason = self._why_not(entry, column, new)
                if reason:
                    yield Problem(entry.line, column.name, reason)

    def _why_not(self, entry: _Entry, column: Column, new: Value) -> str | None:
        """Return the reason why a value cannot be written, or None if it can."""
        if column == LOCATION and new is None:
            return f"would be cleared: {_LIMIT}"
        if column == LOCATION and new not in self._places:
            return f"there is no location {quoted_value(new)}"
        if new is not None and column.type == "date" and not _is_day(new):
            return f"would become {quoted_value(new)}: {_LIMIT}"
        if column == SEQUENCING_DATE and new is not None and _has_no_genome(entry.held):
            return f"{SAMPLES.noun} {quoted_value(entry.label)} {_lacks_genome()}"
        return None

    def _leave(self, found: list[Problem]) -> None:
        """Leave the rows with these problems out of the plan."""
        for problem in found:
            entry = self._entries.pop(problem.line, None)
            if entry is not None:
                self._dropped[problem.line] = entry
        self._left_out += found

    def _leave_taken(self, unique: list[Column]) -> int:
        """Leave out rows whose identifier another sample keeps; return how many are passed on."""
        detours: set[tuple[str, int]] = set()
        while True:
            detours.clear()
            self._waits = defaultdict(set)
            found = list(self._taken(unique, detours)) or list(self._circular(unique))
            if not found:
                return len(detours)
            self._leave(found)

    def _taken(self, unique: list[Column], detours: set[tuple[str, int]]) -> Iterator[Problem]:
        """Yield a problem for each row whose identifier another sample keeps.

        Args:
            unique: The columns with identifiers.
            detours: Gets the column and the sample of each identifier that is passed on.
        """
        going = {
            (column.name, int(entry.request.key))
            for entry in self._entries.values()
            for column, *_ in entry.differing()
        }
        for entry in self._entries.values():
            for column, _now, new, _old in entry.differing():
                if column not in unique:
                    continue
                holder, label = self._listing.holders[column.name].get(str(new), (None, ""))
                if holder is None or holder == int(entry.request.key):
                    continue
                if (column.name, holder) in going:
                    detours.add((column.name, holder))
                    self._waits[int(entry.request.key)].add(holder)
                else:
                    words = f"is already used by {SAMPLES.noun} {quoted_value(label)}"
                    yield Problem(entry.line, column.name, f"{quoted_value(new)} {words}")

    def _circular(self, unique: list[Column]) -> Iterator[Problem]:
        """Yield a problem for each row that waits for its own identifier, directly or not."""
        left = dict(self._waits)
        while ready := [id_ for id_, holders in left.items() if not holders & left.keys()]:
            for id_ in ready:
                del left[id_]
        for entry in self._entries.values():
            if int(entry.request.key) in left:
                column, _now, new, _old = next(
                    each for each in entry.differing() if each[0] in unique
                )
                reason = f"{quoted_value(new)} moves in a cycle of samples: {_LIMIT}"
                yield Problem(entry.line, column.name, reason)

    def _sum(self, detours: int, *, force: bool) -> Plan:
        known = [entry for entry in self._entries.values() if entry.held]
        to_change = sum(entry.changes for entry in known)
        return Plan(
            rows=len(self._requests),
            to_change=to_change,
            already=len(known) - to_change,
            left_out=len(self._dropped),
            detours=detours,
            problems=len(self._problems),
            forced=sum(any(True for _ in entry.moved()) for entry in known) if force else 0,
        )


def _is_day(text: str) -> bool:
    try:
        dt.date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _has_no_genome(found: EditableSample | None) -> bool:
    return found is not None and found.sample["upload_date"] is None


def _lacks_genome() -> str:
    side = SEQUENCING_DATE.side
    return side.lacks if side else ""
