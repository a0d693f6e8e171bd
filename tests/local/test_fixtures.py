"""The fixtures that the other tests depend on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from aspen.database.engine import Database

if TYPE_CHECKING:
    from tests.conftest import CliRunner


def test_empty_db_fixture_has_no_tables(empty_db: str) -> None:
    engine = sa.create_engine(empty_db, poolclass=NullPool)
    with engine.begin() as connection:
        names = sa.inspect(connection).get_table_names()
        connection.execute(sa.text("CREATE TABLE made (id int)"))
    engine.dispose()
    assert names == []


def test_database_fixture_has_schema(database: Database) -> None:
    with database.reading() as session:
        assert sa.inspect(session.connection()).has_table("samples", schema="aspen")


def test_seeded_fixture_has_samples(seeded: Database) -> None:
    with seeded.reading() as session:
        assert session.scalar(sa.text("SELECT count(*) FROM aspen.samples")) == 60


def test_aspen_home_fixture_isolates_environment(aspen_home: Path) -> None:
    assert os.environ["ASPEN_HOME"] == str(aspen_home)
    assert "ASPEN_ENV" not in os.environ


def test_run_cli_fixture_runs_command(run_cli: CliRunner) -> None:
    assert run_cli("--version").out.startswith("aspencli ")
