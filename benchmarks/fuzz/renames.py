"""Generated mappings, planned and applied on a real PostgreSQL, checked against a model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded_by
from hypothesis import strategies as st

from aspen.database.engine import Database
from aspen.local.postgres.server import Cluster
from tests.cli.commands.mapping_lab import Lab
from tests.conftest import Server, migrate
from tests.database.rename_lab import Row, planned, problems, requests, undo_into
from tests.database.test_renames import ABCDE, ANY_ROWS, SHUFFLED, expected_problems

ROWS = st.one_of(ANY_ROWS, SHUFFLED, SHUFFLED)  # most of the valid ones are permutations


class Case:
    """A group to test mappings on, one after another.

    Args:
        lab: The database.
        database: The same, as the program opens it.
        undo: The path for undo files.

    Attributes:
        plans: The number of mappings planned.
        outcomes: The number of mappings written.
    """

    def __init__(self, lab: Lab, database: Database, undo: Path):
        self._lab = lab
        self._database = database
        self._undo = undo
        self._group = lab.group(ABCDE)
        self._names = dict(ABCDE)
        self.plans = 0
        self.outcomes = 0

    def check(self, rows: list[Row]) -> None:
        """Plan a mapping, write it if possible, and check both results against the rules."""
        names = self._names
        with planned(self._database, self._group, requests(rows)) as (run, plan):
            self.plans += 1
            found = {(problem.line, problem.column) for problem in problems(run)}
            assert found == expected_problems(names, rows)
            assert (plan.problems > 0) == bool(found)
            if found:
                return
            assert plan.to_change == sum(names[lab] != public for lab, public in rows)
            assert plan.already == len(rows) - plan.to_change
            run.apply(undo_into(self._undo))
        # Each mapping starts from the names that the previous one left.
        self._names = self._lab.names(self._group)
        assert self._names == names | dict(rows)
        self.outcomes += 1


def campaign(case: Case, cases: int, seed: int | None = None) -> None:
    """Check the given number of mappings.

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
    @given(rows=ROWS)
    def check(rows: list[Row]) -> None:
        case.check(rows)

    (check if seed is None else seeded_by(seed)(check))()


@contextmanager
def database_of_its_own() -> Iterator[Case]:
    """Yield a migrated database on a server that is started for it."""
    with server_of_its_own() as (lab, database, folder):
        yield Case(lab, database, folder / "undo.csv")


@contextmanager
def server_of_its_own() -> Iterator[tuple[Lab, Database, Path]]:
    """Start a server for a campaign; yield a migrated database on it, and a folder."""
    with tempfile.TemporaryDirectory(prefix="aspen-fuzz-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # the server's account needs to pass through
        try:
            server = Server(folder)
            address = server.url(server.create())
            migrate(address)
            database = Database(address, application_name="fuzz", writable=True)
            yield Lab(address, folder), database, folder
            database.dispose()
        finally:
            Cluster(folder).reset()
