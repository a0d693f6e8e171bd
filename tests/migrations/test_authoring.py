from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

from aspen.database import alembic, migrate
from aspen.database.errors import MigrationError, NotAtHeadError


@pytest.fixture
def migrated(migrated_db: str) -> Engine:
    return sa.create_engine(migrated_db, poolclass=NullPool)


def change(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_revision_writes_what_then_upgrades_and_downgrades(
    migrated: Engine, tmp_path: Path
) -> None:
    change(
        migrated,
        "DROP TABLE aspen.usher_options",
        "ALTER TABLE aspen.phylo_trees DROP COLUMN tree_type",
        "ALTER TABLE aspen.samples ADD COLUMN site text",
        "DROP INDEX aspen.uq_users_split_id",
    )

    path = migrate.revision(migrated, "add usher options", directory=tmp_path)

    name = path.name.removesuffix("_add_usher_options.py")
    assert migrate.head(tmp_path) == name
    assert migrate.upgrade(migrated, directory=tmp_path).applied == (name,)
    assert migrate.check(migrated) == []
    migrate.downgrade(migrated, "-1", directory=tmp_path)
    assert "table aspen.usher_options is missing from the database" in migrate.check(migrated)


def test_revision_is_laid_out_like_the_rest_of_the_code(migrated: Engine, tmp_path: Path) -> None:
    change(migrated, "DROP TABLE aspen.usher_options")
    path = migrate.revision(migrated, "add usher options", directory=tmp_path)
    project = Path(__file__).parents[2] / "pyproject.toml"

    for step in (["format", "--check"], ["check", "--ignore=N999"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *step, "--config", project, path],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + path.read_text()
    assert "autogenerate" not in path.read_text()
    assert "aspen.database.models" not in path.read_text()


def test_revision_bears_the_time_of_its_writing(migrated: Engine, tmp_path: Path) -> None:
    path = migrate.revision(migrated, "widen names", autogenerate=False, directory=tmp_path)

    newest = migrate.history(directory=tmp_path)[0]
    assert newest.created is not None
    assert timedelta(seconds=-5) < datetime.now(UTC) - newest.created < timedelta(minutes=1)
    assert path.name == f"{newest.revision}_widen_names.py"
    assert newest.message == "Widen names."


def test_empty_revision_is_for_writing_by_hand(migrated: Engine, tmp_path: Path) -> None:
    change(migrated, "DROP TABLE aspen.usher_options")

    path = migrate.revision(migrated, "by hand", autogenerate=False, directory=tmp_path)

    assert "usher" not in path.read_text()
    assert len(migrate.upgrade(migrated, directory=tmp_path).applied) == 1


def test_revisions_of_one_second_get_different_ids(migrated: Engine, tmp_path: Path) -> None:
    for number in range(3):
        migrate.revision(migrated, f"step {number}", autogenerate=False, directory=tmp_path)
        migrate.upgrade(migrated, directory=tmp_path)

    assert len(migrate.history(directory=tmp_path)) == 4


def test_database_behind_the_newest_revision_is_refused(
    migrated: Engine, empty_db: str, tmp_path: Path
) -> None:
    with pytest.raises(NotAtHeadError, match="is at no revision"):
        migrate.revision(sa.create_engine(empty_db, poolclass=NullPool), "x", directory=tmp_path)
    first = migrate.revision(migrated, "first", directory=tmp_path)

    with pytest.raises(NotAtHeadError, match="the newest revision is") as told:
        migrate.revision(migrated, "second", directory=tmp_path)

    assert told.value.hint == "Upgrade the database first."
    assert list(tmp_path.glob("*.py")) == [first]


def test_message_cannot_break_out_of_the_docstring(migrated: Engine, tmp_path: Path) -> None:
    message = 'rename """ \\ ${1/0}\n"quoted".'

    migrate.revision(migrated, message, directory=tmp_path)

    assert migrate.history(directory=tmp_path)[0].message == "Rename ''' / ${1/0} 'quoted'."


@pytest.mark.parametrize("message", ["", "  \n", "\x1b[2J", "."])
def test_message_that_says_nothing_is_refused(
    migrated: Engine, tmp_path: Path, message: str
) -> None:
    with pytest.raises(MigrationError, match="needs a message"):
        migrate.revision(migrated, message, directory=tmp_path)


def test_folder_with_a_percent_sign_and_a_space_will_do(migrated: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "100% new: revisions"

    path = migrate.revision(migrated, "in there", directory=folder)

    assert path.parent == folder
    assert len(migrate.upgrade(migrated, directory=folder).applied) == 1


def test_id_that_is_no_time_has_no_date() -> None:
    assert alembic.created("initial") is None
