"""The plan of a rename run through the API, with the same findings and messages as in a database.

`ListPlan` does over the API's list of samples what `aspen.database.bulk` does in SQL.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, Protocol

from aspen.database.bulk.samples import PRIVATE, PUBLIC, SAMPLES
from aspen.database.bulk.spec import (
    AssessedRow,
    Change,
    MovedRow,
    Plan,
    PlannedRow,
    Problem,
    Request,
    Spec,
)
from aspencli.changes.request_journal import Row
from aspencli.remote.api import Sample, SampleRecord
from aspencli.samples.edit import ReplacesSamples
from aspencli.samples.remote import FindsIdentifiers

_AS_IT_IS = 0  # location ID that leaves the location unchanged


class ListedSample(NamedTuple):
    """A sample of the group, with all fields that an update has to write."""

    id: int
    private_identifier: str
    public_identifier: str
    private: bool
    collection_date: str
    sequencing_date: str | None

    def named(self, public: str) -> SampleRecord:
        """Return the record that renames it and leaves everything else unchanged."""
        return {
            "id": self.id,
            "collection_location": _AS_IT_IS,
            "private": self.private,
            "private_identifier": self.private_identifier,
            "public_identifier": public,
            "collection_date": self.collection_date,
            "sequencing_date": self.sequencing_date,
        }


class RenamesSamples(ReplacesSamples, FindsIdentifiers, Protocol):
    """The part of the API that lists samples, finds names, and replaces samples."""


@dataclass(frozen=True)
class Snapshot:
    """The samples that the API listed at one moment.

    Attributes:
        samples: The group's samples, by ID.
        elsewhere: The public identifiers of visible samples in other groups.
    """

    samples: dict[int, ListedSample]
    elsewhere: frozenset[str]

    def holders(self) -> dict[str, ListedSample]:
        """Return the group's samples by public identifier, which is unique within the group."""
        return {held.public_identifier: held for held in self.samples.values()}


@dataclass(frozen=True)
class GroupSamples:
    """A group's samples in the API.

    Attributes:
        samples: The samples endpoints.
        group_id: The group, which is also the one to send requests as.
        slugs: All pathogens; names are unique in a group across pathogens.
    """

    samples: RenamesSamples
    group_id: int
    slugs: Sequence[str]

    @property
    def slug(self) -> str:
        """Return the pathogen for the path of change requests; the service does not check it."""
        return self.slugs[0]

    def read(self) -> Snapshot:
        """Fetch the list."""
        samples: dict[int, ListedSample] = {}
        elsewhere: set[str] = set()

        def keep(sample: Sample) -> None:
            if sample["submitting_group"]["id"] == self.group_id:
                samples[sample["id"]] = _held(sample)
            else:
                elsewhere.add(sample["public_identifier"] or "")

        for slug in self.slugs:
            self.samples.map(self.group_id, slug, keep)
        return Snapshot(samples, frozenset(elsewhere))

    def has(self, names: Iterable[str]) -> bool:
        """Return True if every one of these names matches a sample."""
        return not self.samples.missing(self.group_id, self.slug, list(names))


def _held(sample: Sample) -> ListedSample:
    return ListedSample(
        sample["id"],
        sample["private_identifier"] or "",
        sample["public_identifier"] or "",
        sample["private"],
        sample["collection_date"],
        sample["sequencing_date"],
    )


@dataclass
class _Entry:
    """A row of the file, along with the sample that it matches."""

    request: Request
    held: ListedSample | None
    label: str

    @property
    def line(self) -> int:
        return self.request.line

    @property
    def after(self) -> str:
        return str(self.request.values[0])

    @property
    def before(self) -> str | None:
        return self.held.public_identifier if self.held else None

    @property
    def expected(self) -> str | None:
        return None if self.request.expected is None else str(self.request.expected[0])

    @property
    def changes(self) -> bool:
        return self.held is not None and self.before != self.after


@dataclass
class _Found:
    """The problems found, and the rows left out."""

    problems: list[Problem] = field(default_factory=list)
    left_out: list[Problem] = field(default_factory=list)

    def sort(self) -> None:
        for each in (self.problems, self.left_out):
            each.sort(key=lambda problem: (problem.line, problem.column))


class ListPlan:
    """A rename run planned over the API's list of samples.

    Args:
        spec: How samples are matched: `RENAME`, or the specification that undoes it.
        read: Fetches the list.
        parked: Returns the temporary name of a sample in the run being undone; a sample that
            still has it counts as having the name which that run gave it.
    """

    def __init__(
        self, spec: Spec, read: Callable[[], Snapshot], parked: Callable[[int], str] | None = None
    ):
        self._spec = spec
        self._read = read
        self._parked = parked
        self._requests: list[Request] = []
        self._entries: dict[int, _Entry] = {}
        self._dropped: dict[int, _Entry] = {}  # rows left out of the plan
        self._found = _Found()
        self.snapshot = Snapshot({}, frozenset())

    @property
    def encoding(self) -> None:
        """Return None: the API takes every character."""

    def load(self, requests: Iterable[Request]) -> int:
        """Load the rows of the file, and return their number."""
        self._requests = list(requests)
        return len(self._requests)

    def plan(self, *, skip_moved: bool = False, force: bool = False) -> Plan:
        """Compare the rows of the file with the list, as `BulkRun.plan` does."""
        self.snapshot = self._read()
        keys = self._keys()
        self._entries = {
            request.line: self._entry(request, keys.get(request.key)) for request in self._requests
        }
        self._found.problems += self._repeated()
        told = self._found.left_out if skip_moved else self._found.problems
        for unusable in (self._unexpected if not force else None, self._unknown):
            if unusable:
                told += self._out(list(unusable(any_more=skip_moved)), drop=skip_moved)
        detours = self._find_held(told, skip_taken=skip_moved)
        self._found.sort()
        return self._sum(detours, force=force)

    def problems(self) -> Generator[Problem, None, None]:
        """Yield all problems, ordered by line."""
        yield from self._found.problems

    def left_out(self) -> Generator[Problem, None, None]:
        """Yield the rows left out of the plan, with the reason, ordered by line."""
        yield from self._found.left_out

    def explain(self, unknown: Mapping[int, tuple[str, str]]) -> None:
        """Extend the problems of these lines with the reason why the key matches no sample."""
        keys = self._keys()
        for number, problem in enumerate(self._found.problems):
            if problem.line in unknown and problem.column == PRIVATE.name:
                words, near = unknown[problem.line]
                meant = f"; did you mean {quoted_value(near)}?" if near in keys else ""
                reason = f"{problem.reason}; {words}{meant}"
                self._found.problems[number] = Problem(problem.line, problem.column, reason)

    def moved(self) -> Generator[MovedRow, None, None]:
        """Yield the planned rows whose sample has an unexpected value, ordered by line."""
        for entry in self._entries.values():
            if self._has_moved(entry):
                yield MovedRow(
                    entry.line,
                    entry.request.key,
                    entry.label,
                    PUBLIC.name,
                    entry.expected,
                    entry.before,
                )

    def outcomes(self) -> Generator[AssessedRow, None, None]:
        """Yield every row of the file, ordered by line, with the reason if it is not applied."""
        reasons: dict[int, list[str]] = {}
        left_out = {problem.line for problem in self._found.left_out}
        for problem in [*self._found.problems, *self._found.left_out]:
            reasons.setdefault(problem.line, []).append(f"{problem.column}: {problem.reason}")
        for request in self._requests:
            line = request.line
            entry = self._entries.get(line) or self._dropped.get(line)
            before = entry.before if entry else None
            key = entry.label if entry else request.label or request.key
            change = Change(PUBLIC.name, before, str(request.values[0]))
            reason = "; ".join(reasons.get(line, ())) or None
            yield AssessedRow(line, key, (change,), reason, line in left_out)

    def rows(self, *, limit: int | None = None, changed_only: bool = False) -> Iterator[PlannedRow]:
        """Return the planned rows, ordered by line."""
        found = (
            PlannedRow(e.line, e.label, (Change(PUBLIC.name, e.before, e.after),))
            for e in self._entries.values()
            if e.held and (e.changes or not changed_only)
        )
        return islice(found, limit)

    def all_rows(self) -> list[Row]:
        """Return the plan in the form that a journal stores."""
        return [
            Row(e.line, e.label, e.held.id, e.held.public_identifier, e.after)
            for e in self._entries.values()
            if e.held
        ]

    def rows_to_undo(self) -> list[Row]:
        """Return the plan in the form that an undo file stores, without temporary names.

        Samples parked by an interrupted run are listed with the names that it meant to give them.
        """
        wanted = {e.held.id: e.expected for e in self._entries.values() if e.held}
        return [
            row._replace(before=wanted[row.id] or row.before)
            if self._parked is not None and row.before == self._parked(row.id)
            else row
            for row in self.all_rows()
        ]

    def _keys(self) -> dict[str, ListedSample]:
        """Return the samples by the key that the file uses."""
        samples, by_id = self.snapshot.samples.values(), self._spec.by_id
        return {str(held.id) if by_id else held.private_identifier: held for held in samples}

    def _entry(self, request: Request, held: ListedSample | None) -> _Entry:
        label = request.key
        if self._spec.tells_label:
            label = held.private_identifier if held else request.label or request.key
        return _Entry(request, held, label)

    def _repeated(self) -> Iterator[Problem]:
        """Yield a problem for each row that repeats a sample or a new name."""
        keys: dict[str, int] = {}
        names: dict[str, int] = {}
        for entry in self._entries.values():
            key = entry.request.key
            first = keys.setdefault(key, entry.line)
            if first != entry.line:
                yield Problem(entry.line, self._spec.key.name, f"duplicate of line {first}")
            first = names.setdefault(entry.after, entry.line)
            if first != entry.line:
                yield Problem(entry.line, PUBLIC.name, f"duplicate of line {first}")

    def _has_moved(self, entry: _Entry) -> bool:
        if entry.held is None or entry.expected is None or not entry.changes:
            return False
        is_parked = self._parked is not None and entry.before == self._parked(entry.held.id)
        return entry.before != entry.expected and not is_parked

    def _unexpected(self, *, any_more: bool) -> Iterator[Problem]:
        del any_more  # The message says so anyway.
        for entry in self._entries.values():
            if self._has_moved(entry):
                now, then = quoted_value(entry.before), quoted_value(entry.expected)
                reason = f"{quoted_value(entry.label)} {PUBLIC.holds} {now}, expected {then}"
                yield Problem(entry.line, PUBLIC.name, reason)

    def _unknown(self, *, any_more: bool) -> Iterator[Problem]:
        for entry in self._entries.values():
            if entry.held is None:
                label = quoted_value(entry.label)
                reason = f"{SAMPLES.lacks} {label}"
                if any_more:
                    reason = f"{SAMPLES.noun} {label} no longer exists"
                yield Problem(entry.line, PRIVATE.name, reason)

    def _out(self, found: list[Problem], *, drop: bool) -> list[Problem]:
        """Return the problems found, and drop their rows from the plan if asked to."""
        for problem in found if drop else ():
            entry = self._entries.pop(problem.line, None)
            if entry is not None:
                self._dropped[problem.line] = entry
        return found

    def _find_held(self, told: list[Problem], *, skip_taken: bool) -> int:
        """Report rows whose new name another sample keeps; return how many names are passed on."""
        holders = self.snapshot.holders()
        wants: list[tuple[_Entry, ListedSample]] = []
        for entry in self._entries.values():
            holder = holders.get(entry.after)
            if holder and entry.before != entry.after:
                wants.append((entry, holder))
        freed = {entry.held.id for entry in self._entries.values() if entry.held and entry.changes}
        blocked = [(entry, holder) for entry, holder in wants if holder.id not in freed]
        if skip_taken:
            blocked = _with_waiting(blocked, wants)
        told += self._out([_taken(*each) for each in blocked], drop=skip_taken)
        out = {entry.line for entry, _holder in blocked} if skip_taken else set()
        return len({holder.id for entry, holder in wants if entry.line not in out})

    def _sum(self, detours: int, *, force: bool) -> Plan:
        known = [entry for entry in self._entries.values() if entry.held]
        to_change = sum(entry.changes for entry in known)
        return Plan(
            rows=len(self._requests),
            to_change=to_change,
            already=len(known) - to_change,
            left_out=len({problem.line for problem in self._found.left_out}),
            detours=detours,
            problems=len(self._found.problems),
            forced=sum(map(self._has_moved, known)) if force else 0,
        )


def _with_waiting(
    blocked: list[tuple[_Entry, ListedSample]], wants: list[tuple[_Entry, ListedSample]]
) -> list[tuple[_Entry, ListedSample]]:
    """Return the blocked rows, and those that directly or indirectly wait for their names."""
    waiting: dict[int, list[tuple[_Entry, ListedSample]]] = {}
    for entry, holder in wants:
        waiting.setdefault(holder.id, []).append((entry, holder))
    found = {entry.line: (entry, holder) for entry, holder in blocked}
    queue = list(blocked)
    while queue:
        entry, _holder = queue.pop()
        for each in waiting.get(entry.held.id, ()) if entry.held else ():
            if each[0].line not in found:
                found[each[0].line] = each
                queue.append(each)
    return list(found.values())


def _taken(entry: _Entry, holder: ListedSample) -> Problem:
    wanted, label = quoted_value(entry.after), quoted_value(holder.private_identifier)
    reason = f"{wanted} is already used by {SAMPLES.noun} {label}"
    return Problem(entry.line, PUBLIC.name, reason)


def quoted_value(value: str | None) -> str:
    """Return a value as messages quote it; see `aspen.database.bulk.sql_read.quoted`."""
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)
