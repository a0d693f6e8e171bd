"""The console as the command starts it; the tests of the shell cover its behavior."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database

if TYPE_CHECKING:
    from tests.conftest import CliRunner

ADD = "session.add(Pathogen(slug='XYZ', name='made up')); session.commit()"


def slugs(database: Database) -> set[str]:
    with database.reading() as session:
        return set(session.scalars(sa.text("SELECT slug FROM pathogens")))


@pytest.mark.parametrize("lead", [["db"], ["db", "--local"], ["--env", "local", "db"]])
def test_code_sees_engine_and_models(run_cli: CliRunner, seeded: Database, lead: list[str]) -> None:
    code = "session = engine.make_session(); print(session.query(Sample).count())"
    result = run_cli(*lead, "interact", "-c", code, database=seeded)
    assert (result.code, result.out) == (0, "60\n")


def test_profile_option_prints_queries_to_stderr(run_cli: CliRunner, seeded: Database) -> None:
    code = "print(session.query(Sample).count())"
    result = run_cli("db", "interact", "--profile", "-c", code, database=seeded)
    assert result.out == "60\n"
    assert "SELECT" in result.err


def test_code_requires_write_option_and_confirmation_to_write(
    run_cli: CliRunner, database: Database
) -> None:
    refused = run_cli("db", "interact", "-c", ADD, database=database)
    assert refused.code == 1  # as for anything that a script raises
    assert "--write" in refused.err
    assert run_cli("db", "interact", "--write", "-c", ADD, database=database).code == 3
    assert "XYZ" not in slugs(database)
    written = run_cli("db", "interact", "--write", "--yes", "-c", ADD, database=database)
    assert written.code == 0, written.err
    assert "XYZ" in slugs(database)


def test_script_receives_arguments_and_sets_exit_code(
    run_cli: CliRunner, database: Database, tmp_path: Path
) -> None:
    script = tmp_path / "report.py"
    script.write_text("import sys\nprint(sys.argv[1:])\nsys.exit(9)\n")
    result = run_cli("db", "interact", str(script), "2023-01", "--yes", "-v", database=database)
    assert (result.code, result.out) == (9, "['2023-01', '--yes', '-v']\n")


def test_code_receives_arguments(run_cli: CliRunner, database: Database) -> None:
    words = ["db", "interact", "-c", "import sys; print(sys.argv[1:])", "one", "two"]
    assert run_cli(*words, database=database).out == "['one', 'two']\n"


def test_connection_failure_is_reported_before_code_runs(
    run_cli: CliRunner, database: Database
) -> None:
    wrong = database.url.set(password="wrong")
    result = run_cli("db", "interact", "-c", "print('ran')", database=wrong)
    assert (result.code, result.out) == (4, "")
    offline = run_cli("db", "interact", "--no-connect", "-c", "print('ran')", database=wrong)
    assert (offline.code, offline.out) == (0, "ran\n")
