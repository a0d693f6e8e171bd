"""The schema's revisions, applied and inspected from the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

pytestmark = pytest.mark.unpooled("migrations need one session of the server")

if TYPE_CHECKING:
    from tests.conftest import CliResult, CliRunner

HEAD = "20230321_232555"


@contextmanager
def connection(address: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(address, poolclass=NullPool)
    with engine.begin() as opened:
        yield opened
    engine.dispose()


def run_sql(address: str, *statements: str) -> None:
    with connection(address) as opened:
        for statement in statements:
            opened.exec_driver_sql(statement)


def schemas(address: str) -> list[str]:
    with connection(address) as opened:
        return sa.inspect(opened).get_schema_names()


def only(result: CliResult) -> dict[str, Any]:
    (row,) = json.loads(result.out)
    found: dict[str, Any] = row
    return found


@pytest.fixture
def revisions(run_cli: CliRunner, migrated_db: str, tmp_path: Path) -> Path:
    """Return a folder with one revision beyond the program's own, which adds a table."""
    folder = tmp_path / "revisions"
    words = ["db", "revision", "-m", "add a notice board", "--empty", "--directory", str(folder)]
    result = run_cli(*words, "-o", "json", database=migrated_db)
    assert result.code == 0, result.err
    path = Path(only(result)["path"])
    text = path.read_text()
    text = _with_body(text, "upgrade", 'op.execute("CREATE TABLE aspen.notices (id int)")')
    text = _with_body(text, "downgrade", 'op.execute("DROP TABLE aspen.notices")')
    if "from alembic import op" not in text:
        text = text.replace("def upgrade", "from alembic import op\n\n\ndef upgrade", 1)
    path.write_text(text)
    return folder


def _with_body(text: str, function: str, line: str) -> str:
    found = re.search(rf"(def {function}\(\).*?:\n)((?:    .*\n|\n)*)", text)
    assert found, text
    return text.replace(found[0], f"{found[1]}    {line}\n\n\n")


def test_current_reports_empty_database(run_cli: CliRunner, empty_db: str) -> None:
    result = run_cli("db", "current", "-o", "json", database=empty_db)
    assert only(result) == {"revision": None, "head": HEAD, "behind": 1, "state": "empty"}


def test_upgrade_brings_empty_database_to_head(run_cli: CliRunner, empty_db: str) -> None:
    result = run_cli("db", "upgrade", "-o", "json", database=empty_db)
    assert result.code == 0, result.err
    assert only(result) == {"before": None, "after": HEAD, "applied": [HEAD], "outcome": "updated"}
    assert run_cli("db", "check", database=empty_db).code == 0
    again = run_cli("db", "upgrade", "-o", "json", database=empty_db)
    same = {"before": HEAD, "after": HEAD}
    assert only(again) == {**same, "applied": [], "outcome": "unchanged"}


def test_upgrade_dry_run_lists_revisions_and_writes_nothing(
    run_cli: CliRunner, empty_db: str
) -> None:
    result = run_cli("db", "upgrade", "--dry-run", "-o", "json", database=empty_db)
    assert only(result)["revision"] == HEAD
    assert "aspen" not in schemas(empty_db)


def test_upgrade_sql_output_applies_same_migrations(run_cli: CliRunner, empty_db: str) -> None:
    result = run_cli("db", "upgrade", "--sql", database=empty_db)
    assert "aspen" not in schemas(empty_db)
    applied = run_cli("db", "psql", "--write", "--yes", input=result.out, database=empty_db)
    assert applied.code == 0, applied.err
    assert only(run_cli("db", "current", "-o", "json", database=empty_db))["behind"] == 0
    assert run_cli("db", "check", database=empty_db).code == 0


def test_upgrade_prints_no_sql_if_up_to_date(run_cli: CliRunner, migrated_db: str) -> None:
    result = run_cli("db", "upgrade", "--sql", database=migrated_db)
    assert (result.code, result.out) == (0, "")


def test_downgrade_requires_confirmation(run_cli: CliRunner, migrated_db: str) -> None:
    result = run_cli("db", "downgrade", "base", database=migrated_db)
    assert result.code == 3
    assert HEAD in result.err  # the revision that it would undo
    assert "aspen" in schemas(migrated_db)


def test_downgrade_to_base_removes_all_tables(run_cli: CliRunner, migrated_db: str) -> None:
    result = run_cli("db", "downgrade", "base", "--yes", "-o", "json", database=migrated_db)
    done = {"before": HEAD, "after": None, "reverted": [HEAD], "outcome": "updated"}
    assert only(result) == done
    with connection(migrated_db) as opened:
        assert sa.inspect(opened).get_table_names(schema="aspen") == []


def test_relative_upgrade_and_downgrade_move_one_revision(
    run_cli: CliRunner, migrated_db: str, revisions: Path
) -> None:
    where = ["--directory", str(revisions), "-o", "json"]
    forward = run_cli("db", "upgrade", "+1", *where, database=migrated_db)
    assert forward.code == 0, forward.err
    assert only(forward)["before"] == HEAD
    newest, oldest = json.loads(run_cli("db", "history", *where, database=migrated_db).out)
    assert (newest["message"], newest["is_current"]) == ("Add a notice board.", True)
    assert newest["down_revision"] == oldest["revision"] == HEAD
    back = run_cli("db", "downgrade", "-1", "--yes", *where, database=migrated_db)
    assert only(back)["after"] == HEAD
    nothing = run_cli("db", "downgrade", HEAD, "--yes", *where, database=migrated_db)
    assert only(nothing)["reverted"] == []


def test_wrong_migration_direction_names_right_command(
    run_cli: CliRunner, migrated_db: str, empty_db: str
) -> None:
    back = run_cli("db", "upgrade", "base", database=migrated_db)
    assert back.code == 2
    assert "aspencli db downgrade base" in back.err
    ahead = run_cli("db", "downgrade", "head", database=empty_db)
    assert ahead.code == 2
    assert f"aspencli db upgrade {HEAD}" in ahead.err


@pytest.mark.parametrize("revision", ["1999", "+7", "--nonsense"])
def test_unknown_revision_is_not_found(run_cli: CliRunner, migrated_db: str, revision: str) -> None:
    result = run_cli("db", "downgrade", revision, "--yes", database=migrated_db)
    assert result.code == 6
    assert "aspencli db history" in result.err


def test_upgrade_refuses_database_of_newer_version(run_cli: CliRunner, migrated_db: str) -> None:
    run_sql(migrated_db, "UPDATE public.alembic_version SET version_num = '29990101_000000'")
    result = run_cli("db", "upgrade", database=migrated_db)
    assert result.code == 6
    assert "Update aspencli" in result.err
    state = only(run_cli("db", "current", "-o", "json", database=migrated_db))
    assert (state["behind"], state["state"]) == (None, "unknown")


def test_check_reports_differences_from_models(run_cli: CliRunner, migrated_db: str) -> None:
    run_sql(migrated_db, "ALTER TABLE aspen.samples DROP COLUMN host")
    result = run_cli("db", "check", database=migrated_db)
    assert result.code == 1
    assert "aspen.samples.host" in result.out


def test_revision_is_generated_from_models(
    run_cli: CliRunner, migrated_db: str, tmp_path: Path
) -> None:
    run_sql(migrated_db, "ALTER TABLE aspen.samples DROP COLUMN host")
    words = ["db", "revision", "-m", "bring the host back", "--directory", str(tmp_path)]
    result = run_cli(*words, "-o", "json", database=migrated_db)
    assert result.code == 0, result.err
    assert "add_column" in Path(only(result)["path"]).read_text()


def test_revision_requires_database_at_head(
    run_cli: CliRunner, empty_db: str, tmp_path: Path
) -> None:
    words = ["db", "revision", "-m", "too early", "--directory", str(tmp_path)]
    result = run_cli(*words, database=empty_db)
    assert result.code == 7
    assert "aspencli db upgrade" in result.err
    assert list(tmp_path.glob("*.py")) == []


def test_downgrade_fails_if_table_is_locked(run_cli: CliRunner, migrated_db: str) -> None:
    with connection(migrated_db) as opened:
        opened.exec_driver_sql("LOCK TABLE aspen.samples")
        result = run_cli("db", "downgrade", "base", "--yes", database=migrated_db)
    assert result.code == 7
    assert "aspencli db activity" in result.err
    assert "aspen" in schemas(migrated_db)


def test_upgrade_without_privileges_is_refused(run_cli: CliRunner, empty_db: str) -> None:
    role = sa.make_url(empty_db).database
    run_sql(empty_db, f"CREATE ROLE {role} LOGIN PASSWORD 'pass'")
    try:
        guest = sa.make_url(empty_db).set(username=role, password="pass")
        result = run_cli("db", "upgrade", database=guest)
    finally:
        run_sql(empty_db, f"DROP ROLE {role}")
    assert result.code == 4
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("env", "consent", "code"),
    [
        ("staging", [], 3),
        ("staging", ["--yes"], 0),
        ("prod", ["--yes"], 3),
        ("prod", ["--confirm", "prod"], 0),
    ],
)
def test_upgrade_of_shared_database_requires_confirmation(
    run_cli: CliRunner, empty_db: str, env: str, consent: list[str], code: int
) -> None:
    address = {f"ASPEN_DATABASE_URL_{env.upper()}": empty_db}
    result = run_cli("--env", env, "db", "upgrade", *consent, env=address)
    assert result.code == code
    assert ("aspen" in schemas(empty_db)) is (code == 0)
