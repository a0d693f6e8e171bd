"""A quick sample of the generated mappings; ``make fuzz`` runs tens of thousands."""

from __future__ import annotations

from pathlib import Path

from aspen.database.engine import Database
from benchmarks.fuzz.renames import Case, campaign
from tests.cli.commands.mapping_lab import Lab


def test_plan_and_outcome_of_random_renames_follow_rules(migrated_db: str, tmp_path: Path) -> None:
    database = Database(migrated_db, application_name="fuzz", writable=True)
    case = Case(Lab(migrated_db, tmp_path), database, tmp_path / "undo.csv")
    campaign(case, 80, seed=1)  # a fixed seed, so that enough of them are written
    database.dispose()
    assert case.plans >= 80
    assert case.outcomes > 10
