"""Generated files of several columns, planned, applied, and undone, checked against a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded_by
from hypothesis import strategies as st

from aspen.database.bulk.columns import (
    COLLECTION_DATE,
    ID,
    LOCATION,
    PRIVATE,
    PUBLIC,
    SAMPLES,
    SEQUENCING_DATE,
)
from aspen.database.bulk.spec import RowRequest, Spec, Value
from aspen.database.engine import Database
from aspencli.changes.undo import origin_of, read_undo
from aspencli.tabular.table import Fault
from benchmarks.fuzz.account import UNIQUE, Account, Row, Sample, State, Undo, cells
from benchmarks.fuzz.renames import server_of_its_own
from tests.cli.commands.bulk_lab import GENOMES, PLACES
from tests.cli.commands.mapping_lab import Lab
from tests.database.rename_lab import planned, problems, undo_into

NAMES = {"L-1": "1", "L-2": "2", "L-3": "3", "L-4": "4", "L-5": "5"}  # L-5 has no genome
COLUMNS = (PRIVATE, PUBLIC, COLLECTION_DATE, SEQUENCING_DATE, LOCATION)
KEYS = {"id": ID, "private_identifier": PRIVATE, "public_identifier": PUBLIC}
PLACES_OF = {
    "Europe": "901",
    "902": "902",
    "europe/greece/ATTICA": "903",
    "Europe / Georgia": "905",
}
_STATE = """
SELECT s.id, s.private_identifier, s.public_identifier, s.collection_date::text AS collection_date,
       g.sequencing_date::text AS sequencing_date, s.location_id::text AS location,
       u.sample_id IS NULL AS genomeless
  FROM aspen.samples s
  LEFT JOIN aspen.uploaded_pathogen_genomes u ON u.sample_id = s.id
  LEFT JOIN aspen.pathogen_genomes g ON g.entity_id = u.pathogen_genome_id
 WHERE s.submitting_group_id = :group ORDER BY s.id
"""

# A row refers to a sample by its place in the group, and wants the current name of the sample at
# another place; beyond the last place, no sample has such a name.
_PLACES, _WANTED = st.integers(0, 5), st.integers(0, 6)
_DAYS = st.sampled_from(["2023-05-17", "2023-05-20", "2024-02-29"])
_OTHERS = st.fixed_dictionaries(
    {},
    optional={
        "collection_date": _DAYS,
        "sequencing_date": st.one_of(_DAYS, st.none()),
        "location": st.sampled_from([*PLACES_OF, *PLACES_OF, "Utopia"]),
    },
)
_NAMED = st.fixed_dictionaries({}, optional=dict.fromkeys(UNIQUE, _WANTED))
Drawn = tuple[int, dict[str, int], Sample]
_ANY = st.lists(st.tuples(_PLACES, _NAMED, _OTHERS), max_size=6)


@st.composite
def _shuffled(draw: st.DrawFn) -> list[Drawn]:
    """Draw rows in which some samples exchange names; most of them can be written."""
    places = sorted(draw(st.sets(st.integers(0, 4), min_size=1)))
    rows: list[Drawn] = [(place, {}, draw(_OTHERS)) for place in places]
    for column in draw(st.sets(st.sampled_from(UNIQUE))):
        wanted = draw(st.permutations([*places, *draw(st.sets(st.just(5)))]))
        for (_place, names, _others), value in zip(rows, wanted, strict=False):
            names[column] = value
    return rows


ROWS = st.one_of(_ANY, _shuffled(), _shuffled())
MEANWHILE = st.dictionaries(
    st.integers(0, 4), st.one_of(_OTHERS, st.just({"public_identifier": "9"})), max_size=2
)


class ChangesCase:
    """A group to test files on, one after another.

    Args:
        lab: The database.
        database: The same, as the program opens it.
        folder: The folder for undo files.

    Attributes:
        plans: The number of files planned.
        outcomes: The number of files written.
        undone: The number of files undone.
    """

    def __init__(self, lab: Lab, database: Database, folder: Path):
        self._lab = lab
        self._database = database
        self._undo = folder / "undo.csv"
        lab.execute(PLACES)
        self._group = lab.group(NAMES)
        lab.execute(GENOMES, group=self._group)
        self.plans = self.outcomes = self.undone = 0

    def check(self, drawn: list[Drawn], key: str, meanwhile: Any) -> None:
        """Plan a file, write and undo it if possible, and check all of that against the model."""
        state, genomeless = self._state()
        rows = [
            Row(line, self._key(state, key, place), {**self._names(state, names), **others})
            for line, (place, names, others) in enumerate(drawn, start=2)
        ]
        account = Account(state, genomeless, key, rows, PLACES_OF)
        spec = Spec(SAMPLES, KEYS[key], COLUMNS, partial=True)
        names = [column.name for column in COLUMNS]
        asked = [RowRequest(row.line, row.key, cells(row, names)) for row in rows]
        with planned(self._database, self._group, asked, spec=spec) as (run, plan):
            self.plans += 1
            found = {(problem.line, problem.column) for problem in problems(run)}
            assert found == account.problems()
            assert (plan.problems > 0) == bool(found)
            if found:
                return
            assert plan.to_change == account.changed()
            assert plan.already == len(rows) - plan.to_change
            run.apply(undo_into(self._undo))
        wrote = self._state()[0]
        assert wrote == account.outcome()
        self.outcomes += 1
        if plan.to_change:
            self._take_back(spec, plan.to_change, state, wrote, meanwhile)

    def _take_back(
        self, spec: Spec, count: int, before: State, wrote: State, meanwhile: Any
    ) -> None:
        self._disturb(wrote, meanwhile)
        now = self._state()[0]
        then, left = Undo(before, wrote, now).outcome()
        origin = origin_of(spec, "local", self._group, "now", count)
        whole = self._undo.with_name("whole.csv")
        whole.write_text(origin.line() + self._undo.read_text())
        faults: list[Fault] = []
        asked = list(read_undo(str(whole), origin, faults.append))
        assert not faults
        ids = {request.line: int(request.key) for request in asked}
        with planned(self._database, self._group, asked, spec=origin.spec, skip_moved=True) as (
            run,
            plan,
        ):
            assert plan.problems == 0
            assert {ids[each.line] for each in run.left_out()} == left
            assert plan.left_out == len(left)
            run.apply(undo_into(self._undo))
        assert self._state()[0] == then
        self.undone += 1

    def _disturb(self, state: State, meanwhile: Any) -> None:
        """Change samples between a run and its undo, as a concurrent user would."""
        for place, values in meanwhile.items():
            number = list(state)[place]
            for column, value in values.items():
                self._set(number, column, value)

    def _set(self, number: int, column: str, value: Value) -> None:
        target = f"UPDATE aspen.samples SET {column} = :value WHERE id = :id"
        if column == "location":
            value = PLACES_OF.get(str(value), "906")
            target = "UPDATE aspen.samples SET location_id = CAST(:value AS integer) WHERE id = :id"
        elif column == "sequencing_date":
            target = (
                "UPDATE aspen.pathogen_genomes g SET sequencing_date = :value "
                "FROM aspen.uploaded_pathogen_genomes u "
                "WHERE u.pathogen_genome_id = g.entity_id AND u.sample_id = :id"
            )
        try:
            self._lab.execute(target, id=number, value=value)
        except sa.exc.IntegrityError:  # another sample has that name
            assert column == "public_identifier"

    def _key(self, state: State, key: str, place: int) -> str:
        if place >= len(state):
            return "999999" if key == "id" else "nobody"
        number = list(state)[place]
        return str(number) if key == "id" else str(state[number][key])

    def _names(self, state: State, wanted: dict[str, int]) -> Sample:
        samples = list(state.values())
        return {
            column: samples[place][column] if place < len(samples) else f"{column} {place}"
            for column, place in wanted.items()
        }

    def _state(self) -> tuple[State, frozenset[int]]:
        with self._lab.engine.connect() as connection:
            found = connection.execute(sa.text(_STATE), {"group": self._group}).mappings().all()
        names = [column.name for column in COLUMNS]
        state = {row["id"]: {name: row[name] for name in names} for row in found}
        return state, frozenset(row["id"] for row in found if row["genomeless"])


def campaign(case: ChangesCase, cases: int, seed: int | None = None) -> None:
    """Check the given number of files.

    Raises:
        AssertionError: A result differs from the rules.
    """

    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.explain],  # the group keeps changing, so cases cannot shrink
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn=ROWS, key=st.sampled_from(list(KEYS)), meanwhile=MEANWHILE)
    def check(drawn: list[Drawn], key: str, meanwhile: Any) -> None:
        case.check(drawn, key, meanwhile)

    (check if seed is None else seeded_by(seed)(check))()


@contextmanager
def database_of_its_own() -> Iterator[ChangesCase]:
    """Yield a migrated database on a server that is started for it."""
    with server_of_its_own() as (lab, database, folder):
        yield ChangesCase(lab, database, folder)
