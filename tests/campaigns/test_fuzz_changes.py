"""A quick sample of the generated files of several columns; ``make fuzz`` runs thousands."""

from __future__ import annotations

from pathlib import Path

from aspen.database.engine import Database
from benchmarks.fuzz.changes import ChangesCase, campaign
from tests.cli.commands.mapping_lab import Lab


def test_plan_outcome_and_undo_of_random_changes_follow_rules(
    migrated_db: str, tmp_path: Path
) -> None:
    database = Database(migrated_db, application_name="fuzz", writable=True)
    case = ChangesCase(Lab(migrated_db, tmp_path), database, tmp_path)
    campaign(case, 80, seed=5)  # a fixed seed, so that enough of them are written
    database.dispose()
    assert case.plans >= 80
    assert case.outcomes > 20
    assert case.undone > 20
