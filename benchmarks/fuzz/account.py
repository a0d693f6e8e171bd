"""A simple model of a bulk update of several columns, one sample after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from aspen.database.bulk.spec import KEEP, Cell, Value

UNIQUE = ("private_identifier", "public_identifier")

Sample = dict[str, Value]
State = dict[int, Sample]
"""The values of each sample, by ID."""


@dataclass(frozen=True)
class Row:
    """One row of a file: the key of a sample, and its new values."""

    line: int
    key: str
    values: Mapping[str, Value]


@dataclass
class Account:
    """The expected result of a file.

    Attributes:
        state: The samples.
        genomeless: The IDs of samples that cannot have a sequencing date.
        key: The column that identifies samples: ``id`` or a unique column.
        rows: The rows of the file.
        places: The meaning of each text for a location; other texts have none.
    """

    state: State
    genomeless: frozenset[int]
    key: str
    rows: Sequence[Row]
    places: Mapping[str, str]

    def __post_init__(self) -> None:
        self.found = {row.line: self._find(row) for row in self.rows}

    def problems(self) -> set[tuple[int, str]]:
        """Return the line and column of each problem."""
        return {
            *self._unknown(),
            *self._repeated(),
            *self._taken(),
            *self._without_place(),
        }

    def outcome(self) -> State:
        """Return the samples after the update."""
        state = {number: dict(sample) for number, sample in self.state.items()}
        for row in self.rows:
            number = self.found[row.line]
            assert number is not None
            state[number] |= self._wanted(row)
        return state

    def changed(self) -> int:
        """Return the number of samples that change."""
        then = self.outcome()
        return sum(
            then[number] != self.state[number] for number in set(self.found.values()) if number
        )

    def _find(self, row: Row) -> int | None:
        if self.key == "id":
            return int(row.key) if int(row.key) in self.state else None
        found = self._holders(self.key, row.key)
        if found:
            return found[0]
        return self._renamed(row)

    def _renamed(self, row: Row) -> int | None:
        """Return the sample that already has the row's new name and all of its other values."""
        name = row.values.get(self.key)
        if name is None or any(other.key == name for other in self.rows):
            return None
        for number in self._holders(self.key, name):
            if {**self.state[number], **self._wanted(row)} == self.state[number]:
                return number
        return None

    def _holders(self, column: str, value: Value) -> list[int]:
        return [number for number, sample in self.state.items() if sample[column] == value]

    def _wanted(self, row: Row) -> Sample:
        wanted = dict(row.values)
        place = wanted.get("location")
        if place is not None:
            wanted["location"] = self.places.get(place, place)
        return wanted

    def _changes(self, row: Row, column: str) -> bool:
        number = self.found[row.line]
        return (
            number is not None
            and column in row.values
            and row.values[column] != self.state[number][column]
        )

    def _unknown(self) -> Iterator[tuple[int, str]]:
        return ((row.line, self.key) for row in self.rows if self.found[row.line] is None)

    def _repeated(self) -> Iterator[tuple[int, str]]:
        for place, row in enumerate(self.rows):
            before = self.rows[:place]
            if row.key in [other.key for other in before]:
                yield row.line, self.key
            for column in UNIQUE:
                given = [other.values.get(column) for other in before]
                if row.values.get(column) is not None and row.values[column] in given:
                    yield row.line, column

    def _taken(self) -> Iterator[tuple[int, str]]:
        for column in UNIQUE:
            freed = {self.found[row.line] for row in self.rows if self._changes(row, column)}
            for row in self.rows:
                if column not in row.values:
                    continue
                holders = set(self._holders(column, row.values[column]))
                if holders - {self.found[row.line]} - freed:
                    yield row.line, column

    def _without_place(self) -> Iterator[tuple[int, str]]:
        for row in self.rows:
            place = row.values.get("location")
            if place is not None and place not in self.places:
                yield row.line, "location"
            if row.values.get("sequencing_date") and self.found[row.line] in self.genomeless:
                yield row.line, "sequencing_date"


@dataclass
class Undo:
    """The expected result of an undo, after others have changed samples, too.

    Attributes:
        before: The samples before the run that is undone.
        wrote: The samples as the run wrote them.
        now: The current samples.
    """

    before: State
    wrote: State
    now: State

    def outcome(self) -> tuple[State, set[int]]:
        """Return the samples after the undo, and the ones that it skips."""
        rows = {
            number: {c: v for c, v in sample.items() if self.wrote[number][c] != v}
            for number, sample in self.before.items()
        }
        rows = {number: row for number, row in rows.items() if row}
        left = {number for number, row in rows.items() if self._has_moved(number, row)}
        while True:
            going = {number: row for number, row in rows.items() if number not in left}
            stuck = set(self._stuck(going))
            if not stuck:
                then = {n: {**sample, **going.get(n, {})} for n, sample in self.now.items()}
                return then, left
            left |= stuck

    def _has_moved(self, number: int, row: Sample) -> bool:
        now, wrote = self.now[number], self.wrote[number]
        return any(now[column] not in {old, wrote[column]} for column, old in row.items())

    def _stuck(self, going: Mapping[int, Sample]) -> Iterator[int]:
        """Yield the samples that want a value kept by a sample outside the undo."""
        for column in UNIQUE:
            freed = {
                number
                for number, row in going.items()
                if column in row and row[column] != self.now[number][column]
            }
            for number, row in going.items():
                holders = {
                    other
                    for other, sample in self.now.items()
                    if column in row and sample[column] == row[column]
                }
                if holders - {number} - freed:
                    yield number


def cells(row: Row, columns: Iterable[str]) -> tuple[Cell, ...]:
    """Return a row's cell for each column, as in a request."""
    return tuple(row.values.get(column, KEEP) for column in columns)
