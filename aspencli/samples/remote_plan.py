"""Bulk runs planned over the API's list of samples, with the same messages as in a database.

What `aspen.database.bulk` does in SQL is done here for two kinds of runs: renames, and undos of
several columns.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from aspen.database.bulk.columns import LOCATION, PRIVATE, PUBLIC, SAMPLES, SEQUENCING_DATE
from aspen.database.bulk.spec import (
    KEEP,
    AssessedRow,
    BulkColumn,
    MovedRow,
    Plan,
    Problem,
    RowRequest,
    Spec,
    Value,
    ValueChange,
)
from aspencli.changes.request_journal import RenameRow
from aspencli.changes.undo import UndoRow
from aspencli.reference.remote import name_of
from aspencli.remote.types import Sample, SampleRecord
from aspencli.samples.edit import (
    STORED,
    Edit,
    EditableSample,
    ListAge,
    cell_of,
    held,
    undo_rows,
    value_of,
)
from aspencli.samples.remote import GroupSamples, Snapshot, Wanted
from aspencli.samples.rename_run import wanted_by
from aspencli.tabular.dates import read_day
from aspencli.text import folded, unusual_in_identifier

if TYPE_CHECKING:
    from aspencli.remote.api import Locations

_LIMIT = "the API cannot do that; use --via db"


@dataclass(frozen=True)
class _Entry:
    """A row of the file, with the ID of the sample that it matches and the values of its columns.

    Messages name the sample by its label.
    """

    request: RowRequest
    label: str
    columns: tuple[BulkColumn, ...]
    sample: int | None
    current: tuple[Value, ...]

    @property
    def line(self) -> int:
        return self.request.line

    def values(self) -> Iterator[tuple[BulkColumn, Value, Value, Value]]:
        """Yield each column that the row gives: its current, its new, and its expected value."""
        expected = self.request.expected or self.request.values
        for each in zip(self.columns, self.current, self.request.values, expected, strict=True):
            column, now, new, old = each
            if new is not KEEP and old is not KEEP:
                yield column, now, new, old

    def differing(self) -> Iterator[tuple[BulkColumn, Value, Value, Value]]:
        """Yield the same for the columns that change."""
        return (each for each in self.values() if self.sample is not None and each[1] != each[2])

    @property
    def changes(self) -> bool:
        return any(True for _ in self.differing())


class _Want(NamedTuple):
    """An identifier that a row takes from another sample, its holder."""

    entry: _Entry
    column: BulkColumn
    name: str
    holder: int
    label: str

    @property
    def place(self) -> tuple[str, int]:
        return self.column.name, self.holder

    def problem(self) -> Problem:
        """Return the problem that the holder keeps the identifier."""
        used = f"is already used by {SAMPLES.noun} {_quoted(self.label)}"
        return Problem(self.entry.line, self.column.name, f"{_quoted(self.name)} {used}")


class ListPlan:
    """A bulk run planned over the API's list of samples.

    Args:
        spec: How samples are matched, and what changes.
        parked: Returns the temporary name of a sample in the run being undone; a sample that
            still has it counts as having the name which that run gave it.
        skips: True if rows that cannot be applied are always skipped.
    """

    def __init__(
        self, spec: Spec, parked: Callable[[int], str] | None = None, *, skips: bool = False
    ):
        self._spec = spec
        self._parked = parked
        self._skips = skips
        self._requests: list[RowRequest] = []
        self._entries: dict[int, _Entry] = {}
        self._dropped: dict[int, _Entry] = {}  # rows left out of the plan
        self._problems: list[Problem] = []
        self._left_out: list[Problem] = []
        self._ids: dict[str, int] = {}  # by the key that the file uses
        # For each unique column, the group's samples by identifier, with their labels.
        self._holders: dict[str, dict[str, tuple[int, str]]] = {}

    @property
    def encoding(self) -> None:
        """Return None: the API takes every character."""

    def load(self, requests: Iterable[RowRequest]) -> int:
        """Load the rows of the file, and return their number."""
        self._requests = list(requests)
        return len(self._requests)

    def plan(self, *, skip_moved: bool = False, force: bool = False) -> Plan:
        """Compare the rows of the file with the list, as `BulkRun.plan` does."""
        self._skips = self._skips or skip_moved
        self._fetch()
        self._entries = {request.line: self._entry(request) for request in self._requests}
        self._problems += self._repeated()
        for found in (() if force else self._unexpected(), self._unknown(), self._impossible()):
            self._report(list(found))
        detours = self._settle()
        for each in (self._problems, self._left_out):
            each.sort(key=lambda problem: (problem.line, problem.column))
        known = [entry for entry in self._entries.values() if entry.sample is not None]
        to_change = sum(entry.changes for entry in known)
        return Plan(
            rows=len(self._requests),
            to_change=to_change,
            already=len(known) - to_change,
            left_out=len(self._dropped),
            detours=detours,
            problems=len(self._problems),
            forced=sum(any(True for _ in self._moved(entry)) for entry in known) if force else 0,
        )

    def problems(self) -> Generator[Problem, None, None]:
        """Yield all problems, ordered by line."""
        yield from self._problems

    def left_out(self) -> Generator[Problem, None, None]:
        """Yield the rows left out of the plan, with the reason, ordered by line."""
        yield from self._left_out

    def explain(self, unknown: Mapping[int, tuple[str, str]]) -> None:
        """Extend the problems of these lines with the reason why the key matches no sample."""
        for number, problem in enumerate(self._problems):
            if problem.line in unknown and problem.column == PRIVATE.name:
                words, near = unknown[problem.line]
                meant = f"; did you mean {_quoted(near)}?" if near in self._ids else ""
                reason = f"{problem.reason}; {words}{meant}"
                self._problems[number] = Problem(problem.line, problem.column, reason)

    def moved(self) -> Generator[MovedRow, None, None]:
        """Yield the values in the planned rows that are not the expected ones, by line."""
        for entry in self._entries.values():
            for column, now, expected in self._moved(entry):
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

    def rows(
        self, *, limit: int | None = None, changed_only: bool = False
    ) -> Iterator[AssessedRow]:
        """Return the planned rows, ordered by line."""
        found = (
            AssessedRow(entry.line, entry.label, self._changes(entry))
            for entry in self._entries.values()
            if entry.sample is not None and (entry.changes or not changed_only)
        )
        return islice(found, limit)

    def digest(self) -> str:
        """Return the SHA-256 of the rows that change, in hexadecimal."""
        found = hashlib.sha256()
        for entry in self._entries.values():
            if changes := [(column.name, now, new) for column, now, new, _ in entry.differing()]:
                row = json.dumps([entry.sample, entry.request.key, changes])
                found.update(f"{row}\n".encode("ascii"))
        return found.hexdigest()

    def _fetch(self) -> None:
        """Fetch the list, and index it in `_ids` and `_holders`."""
        raise NotImplementedError

    def _current(self, sample: int) -> tuple[str, tuple[Value, ...]]:
        """Return a sample's label, and its values of the columns that change."""
        raise NotImplementedError

    def _impossible(self) -> Iterator[Problem]:
        """Yield a problem for each value that the API cannot write."""
        return iter(())

    def _shown(self, column: BulkColumn, value: Value) -> Value:  # noqa: ARG002 - see the subclass
        """Return a value as people read it."""
        return value

    def _entry(self, request: RowRequest) -> _Entry:
        columns, sample = self._spec.columns, self._ids.get(request.key)
        label = request.label or request.key
        current: tuple[Value, ...] = (None,) * len(columns)
        if sample is not None:
            label, current = self._current(sample)
        if not self._spec.tells_label:
            label = request.key
        return _Entry(request, label, columns, sample, current)

    def _changes(self, entry: _Entry) -> tuple[ValueChange, ...]:
        return tuple(
            ValueChange(column.name, self._shown(column, now), self._shown(column, new), now == new)
            for column, now, new, _old in entry.values()
        )

    def _moved(self, entry: _Entry) -> Iterator[tuple[BulkColumn, Value, Value]]:
        """Yield each changing column without the expected value: the current and the expected."""
        for column, now, _new, old in entry.differing() if entry.request.expected else ():
            is_parked = self._parked and entry.sample and self._parked(entry.sample) == now
            if now != old and not is_parked:
                yield column, now, old

    def _repeated(self) -> Iterator[Problem]:
        """Yield a problem for each row that repeats a sample or a new identifier."""
        lines: dict[tuple[str, str], int] = {}
        for entry in self._entries.values():
            claims = [(self._spec.key.name, entry.request.key)]
            claims += [(c.name, str(new)) for c, _, new, _ in entry.values() if c.unique]
            for claim in claims:
                first = lines.setdefault(claim, entry.line)
                if first != entry.line:
                    yield Problem(entry.line, claim[0], f"duplicate of line {first}")

    def _unexpected(self) -> Iterator[Problem]:
        for entry in self._entries.values():
            for column, now, expected in self._moved(entry):
                words = [_quoted(self._shown(column, value)) for value in (now, expected)]
                reason = f"{_quoted(entry.label)} {column.holds} {words[0]}, expected {words[1]}"
                yield Problem(entry.line, column.name, reason)

    def _unknown(self) -> Iterator[Problem]:
        for entry in self._entries.values():
            if entry.sample is None:
                label = _quoted(entry.label)
                gone = f"{SAMPLES.noun} {label} no longer exists"
                reason = gone if self._skips else f"{SAMPLES.lacks} {label}"
                yield Problem(entry.line, PRIVATE.name, reason)

    def _report(self, found: list[Problem]) -> None:
        """Add the problems, or leave their rows out of the plan if it skips them."""
        if not self._skips:
            self._problems += found
            return
        self._left_out += found
        for problem in found:
            entry = self._entries.pop(problem.line, None)
            if entry is not None:
                self._dropped[problem.line] = entry

    def _settle(self) -> int:
        """Report rows whose identifier another sample keeps; return how many are passed on."""
        return len({want.place for want in self._taking()})

    def _taking(self) -> list[_Want]:
        """Return what the rows take from other samples, after reporting what these keep.

        If rows are skipped, so are those that wait for their identifiers, and so on.
        """
        wants = list(self._wants())
        waiting: dict[tuple[str, int], list[_Want]] = defaultdict(list)
        for want in wants:
            waiting[want.place].append(want)
        going = _released(self._entries.values())
        found = [want for want in wants if want.place not in going]
        while found:
            self._report([want.problem() for want in found])
            if not self._skips:
                return wants
            kept = _released(want.entry for want in found)
            blocked = [want for place in kept for want in waiting.get(place, ())]
            found = [want for want in blocked if want.entry.line in self._entries]
        return [want for want in wants if want.entry.line in self._entries]

    def _wants(self) -> Iterator[_Want]:
        for entry in self._entries.values():
            for column, now, new, _old in entry.values():
                holder = self._holders.get(column.name, {}).get(str(new))
                if holder and now != new and holder[0] != entry.sample:
                    yield _Want(entry, column, str(new), *holder)


def _released(entries: Iterable[_Entry]) -> set[tuple[str, int]]:
    """Return the columns and samples whose values the entries change."""
    return {
        (column.name, entry.sample)
        for entry in entries
        if entry.sample is not None
        for column, *_ in entry.differing()
    }


def _quoted(value: Value) -> str:
    """Return a value as messages quote it; see `aspen.database.bulk.sql_plan.quoted`."""
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)


class RenamePlan(ListPlan):
    """A rename run: `RENAME`, or the specification that undoes it.

    The samples of an interrupted run are read as well, since it may be the same run.
    """

    def __init__(
        self,
        spec: Spec,
        read: Callable[[Wanted], Snapshot],
        parked: Callable[[int], str] | None = None,
        interrupted: Iterable[RenameRow] = (),
    ):
        super().__init__(spec, parked)
        self._read = read
        self._interrupted = interrupted
        self.snapshot = Snapshot({}, frozenset())

    def all_rows(self) -> list[RenameRow]:
        """Return the plan in the form that a journal stores."""
        return [
            RenameRow(e.line, e.label, e.sample, str(e.current[0]), str(e.request.values[0]))
            for e in self._entries.values()
            if e.sample is not None
        ]

    def rows_to_undo(self) -> list[RenameRow]:
        """Return the plan in the form that an undo file stores, without temporary names.

        Samples parked by an interrupted run are listed with the names that it meant to give them.
        """
        if self._parked is None:
            return self.all_rows()
        wanted = {e.sample: e.request.expected for e in self._entries.values()}
        return [
            row._replace(before=str(expected[0]) or row.before)
            if row.before == self._parked(row.id) and (expected := wanted[row.id])
            else row
            for row in self.all_rows()
        ]

    def _fetch(self) -> None:
        by_id = self._spec.by_id
        keys = {request.key for request in self._requests}
        names = {str(value) for request in self._requests for value in request.values}
        if not by_id:
            names |= keys | {folded(key) for key in keys if unusual_in_identifier(key)}
        ids = frozenset(map(int, keys)) if by_id else frozenset[int]()
        self.snapshot = self._read(Wanted(ids, frozenset(names)) | wanted_by(self._interrupted))
        samples = self.snapshot.samples.values()
        self._ids = {
            str(held.id) if by_id else held.private_identifier: held.id for held in samples
        }
        self._holders[PUBLIC.name] = {
            held.public_identifier: (held.id, held.private_identifier) for held in samples
        }

    def _current(self, sample: int) -> tuple[str, tuple[Value, ...]]:
        held = self.snapshot.samples[sample]
        return held.private_identifier, (held.public_identifier,)


class RestorePlan(ListPlan):
    """An undo of several columns; it skips what it cannot restore."""

    def __init__(self, spec: Spec, place: GroupSamples, locations: Locations):
        super().__init__(spec, skips=True)
        self._place = place
        self._locations = locations
        self._samples: dict[int, EditableSample] = {}
        self._slugs: dict[int, str] = {}
        self.ages: dict[str, ListAge] = {}  # by pathogen
        self._places: dict[str, str] = {}
        self._waits: dict[int, set[int]] = {}

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
                by_slug[self._slugs[id_]].append(left.pop(id_))
            found += by_slug.items()
        return found

    def _edits(self) -> dict[int, Edit]:
        return {
            entry.sample: self._edit(entry.sample, entry)
            for entry in self._entries.values()
            if entry.sample is not None and entry.changes
        }

    def _edit(self, sample: int, entry: _Entry) -> Edit:
        before = self._samples[sample]
        changes = {STORED[c.name]: value_of(c.name, new) for c, _, new, _ in entry.differing()}
        after: SampleRecord = {**before.record, **changes}  # type: ignore[typeddict-item] # checked
        return Edit(before, after)

    def _fetch(self) -> None:
        """Fetch the samples of the file, and the identifiers of the group's other samples."""
        wanted = {int(request.key) for request in self._requests}
        unique = {
            column.name: {str(request.values[number]) for request in self._requests}
            for number, column in self._spec.unique()
        }
        self._holders = {name: {} for name in unique}
        take = partial(self._take, wanted, unique)
        for slug in self._place.slugs:
            self.ages[slug] = ListAge()
            with self.ages[slug].reading():
                found = self._place.samples.read(self._place.group_id, slug, take)
            self._keep(slug, wanted, found)
            if not unique and len(self._samples) == len(wanted):
                break
        given = {request.key: int(request.key) for request in self._requests}
        self._ids = {key: id_ for key, id_ in given.items() if id_ in self._samples}
        if LOCATION in self._spec.columns:
            self._places = {str(each["id"]): name_of(each) for each in self._locations.all()}

    def _take(
        self, wanted: Collection[int], unique: Mapping[str, set[str]], found: Iterable[Sample]
    ) -> list[Sample]:
        """Return the group's samples that the file names or whose unique values it gives."""
        return [
            sample
            for sample in found
            if sample["submitting_group"]["id"] == self._place.group_id
            and (
                sample["id"] in wanted
                or any(sample.get(name) in names for name, names in unique.items())
            )
        ]

    def _keep(self, slug: str, wanted: Collection[int], found: Iterable[Sample]) -> None:
        for sample in found:
            label = sample["private_identifier"] or ""
            for name, holders in self._holders.items():
                holders[str(sample.get(name) or "")] = sample["id"], label
            if sample["id"] in wanted:
                self._samples[sample["id"]] = held(sample)
                self._slugs[sample["id"]] = slug

    def _current(self, sample: int) -> tuple[str, tuple[Value, ...]]:
        record = self._samples[sample].record
        values = tuple(cell_of(record, column.name) for column in self._spec.columns)
        return record["private_identifier"], values

    def _shown(self, column: BulkColumn, value: Value) -> Value:
        return self._places.get(value or "", value) if column == LOCATION else value

    def _impossible(self) -> Iterator[Problem]:
        for entry in self._entries.values():
            for column, _now, new, _old in entry.differing():
                reason = self._why_not(entry, column, new)
                if reason:
                    yield Problem(entry.line, column.name, reason)

    def _why_not(self, entry: _Entry, column: BulkColumn, new: Value) -> str | None:
        """Return the reason why a value cannot be written, or None if it can."""
        if column == LOCATION and new is None:
            return f"would be cleared: {_LIMIT}"
        if column == LOCATION and new not in self._places:
            return f"there is no location {_quoted(new)}"
        if new is not None and column.type == "date" and read_day(new) is None:
            return f"would become {_quoted(new)}: {_LIMIT}"
        if column == SEQUENCING_DATE and column.side and new is not None:
            found = self._samples[entry.sample] if entry.sample is not None else None
            if found and found.sample["upload_date"] is None:
                return f"{SAMPLES.noun} {_quoted(entry.label)} {column.side.lacks}"
        return None

    def _settle(self) -> int:
        while True:
            taking = self._taking()
            self._waits = defaultdict(set)
            for want in taking:
                self._waits[want.entry.sample or 0].add(want.holder)
            circular = list(self._circular())
            if not circular:
                return len({want.place for want in taking})
            self._report(circular)

    def _circular(self) -> Iterator[Problem]:
        """Yield a problem for each row that waits for its own identifier, directly or not."""
        left = dict(self._waits)
        while ready := [id_ for id_, holders in left.items() if not holders & left.keys()]:
            for id_ in ready:
                del left[id_]
        for entry in self._entries.values():
            moving = next((each for each in entry.differing() if each[0].unique), None)
            if moving and entry.sample in left:
                column, _now, new, _old = moving
                reason = f"{_quoted(new)} moves in a cycle of samples: {_LIMIT}"
                yield Problem(entry.line, column.name, reason)
