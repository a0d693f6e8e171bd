from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from aspen.database import migrate
from aspen.database.engine import Database
from aspen.database.errors import (
    BrokenRevisionsError,
    MigrationError,
    MigrationLockError,
    MigrationPermissionError,
    UnknownRevisionError,
)
from aspen.database.migrate import ADVISORY_LOCK, MigrationLimits, UpgradeResult, guarded

BASELINE = "20230321_232555"
IMPATIENT = MigrationLimits(lock_ms=200, statement_ms=60_000, turn_ms=200)

REVISION = """
from alembic import op
revision, down_revision = "{id}", "{after}"
def upgrade() -> None:
    op.execute("{up}")
def downgrade() -> None:
    op.execute("{down}")
"""

UPGRADE = """
import sqlalchemy as sa, sys
from aspen.database import migrate
engine = sa.create_engine(sys.argv[1])
print(len(migrate.upgrade(engine).applied))
engine.dispose()
"""


def write(folder: Path, number: int, up: str, down: str = "SELECT 1") -> str:
    """Write a revision with one statement, and return its name; the first follows the baseline."""
    name = f"20300101_00000{number}"
    after = BASELINE if number == 1 else f"20300101_00000{number - 1}"
    text = REVISION.format(id=name, after=after, up=up, down=down)
    (folder / f"{name}_by_hand.py").write_text(text)
    return name


def run(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)


def ask(engine: Engine, query: str) -> Any:
    with engine.connect() as connection:
        return connection.scalar(sa.text(query))


@pytest.fixture
def empty(empty_db: str) -> Engine:
    return sa.create_engine(empty_db, poolclass=NullPool)


@pytest.fixture
def migrated(migrated_db: str) -> Engine:
    return sa.create_engine(migrated_db, poolclass=NullPool)


def test_upgrade_builds_schema_in_empty_database(empty: Engine) -> None:
    assert migrate.current(empty) is None

    assert migrate.upgrade(empty) == UpgradeResult(None, migrate.head(), (BASELINE,))

    assert migrate.current(empty) == migrate.head()
    assert migrate.check(empty) == []


def test_upgrade_at_head_applies_nothing(migrated: Engine) -> None:
    assert migrate.upgrade(migrated) == UpgradeResult(BASELINE, BASELINE, ())


def test_upgrade_leaves_database_recorded_at_baseline_unchanged(empty: Engine) -> None:
    run(empty, "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
    run(empty, f"INSERT INTO alembic_version VALUES ('{BASELINE}')")

    assert migrate.upgrade(empty) == UpgradeResult(BASELINE, BASELINE, ())

    assert ask(empty, "SELECT to_regnamespace('aspen') IS NULL") is True


def test_migrations_work_with_aspen_first_in_search_path(migrated_db: str) -> None:
    database = Database(migrated_db, writable=True)
    database.begin().__enter__().close()

    assert migrate.check(database.engine) == []
    assert migrate.upgrade(database.engine).applied == ()
    assert migrate.downgrade(database.engine, "base").after is None
    assert migrate.upgrade(database.engine).applied == (BASELINE,)
    assert migrate.check(database.engine) == []
    database.dispose()


def test_downgrade_to_base_drops_all_tables(migrated: Engine) -> None:
    result = migrate.downgrade(migrated, "base")

    assert (result.before, result.after, result.reverted) == (BASELINE, None, (BASELINE,))
    assert sa.inspect(migrated).get_table_names(schema="aspen") == []


def test_concurrent_upgrades_apply_revisions_once(empty_db: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", UPGRADE, empty_db],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]

    results = [(process.communicate(timeout=60), process.returncode) for process in processes]

    assert sorted(out.strip() for (out, _), _ in results) == ["0", "1"], results
    assert [code for _, code in results] == [0, 0]


def test_upgrade_lock_timeout_names_blocking_migration(empty_db: str) -> None:
    engine = sa.create_engine(
        empty_db, poolclass=NullPool, connect_args={"application_name": "the first"}
    )
    with engine.connect() as first:
        first.execute(sa.select(sa.func.pg_advisory_lock(ADVISORY_LOCK)))

        with pytest.raises(MigrationLockError, match=r"Another migration .*the first, PID"):
            migrate.upgrade(engine, limits=IMPATIENT)

    assert migrate.upgrade(engine, limits=IMPATIENT).applied == (BASELINE,)


def test_migration_guard_restores_session_settings_and_lock(migrated_db: str) -> None:
    database = Database(migrated_db, writable=True)
    names = ("search_path", "lock_timeout", "statement_timeout")
    query = sa.select(*(sa.func.current_setting(name) for name in names))
    locks = sa.text(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
    )
    with database.engine.connect() as connection:
        before = connection.execute(query).one()
        connection.rollback()
        with contextlib.suppress(ZeroDivisionError), guarded(connection, IMPATIENT):
            assert connection.execute(query).one() == ("public", "200ms", "1min")
            assert connection.scalar(locks) == 1
            raise ZeroDivisionError
        assert connection.execute(query).one() == before
        assert connection.scalar(locks) == 0
    database.dispose()


def test_upgrade_times_out_on_locked_table(migrated: Engine, tmp_path: Path) -> None:
    write(tmp_path, 1, "ALTER TABLE aspen.samples ADD COLUMN site text")
    with migrated.begin() as reader:
        reader.exec_driver_sql("SELECT count(*) FROM aspen.samples")

        with pytest.raises(MigrationLockError, match=r"A table was locked for longer than 0\.2 s"):
            migrate.upgrade(migrated, directory=tmp_path, limits=IMPATIENT)

    assert migrate.current(migrated) == BASELINE


def test_upgrade_times_out_on_slow_statement(migrated: Engine, tmp_path: Path) -> None:
    write(tmp_path, 1, "SELECT pg_sleep(20)")

    with pytest.raises(MigrationError, match=r"ran for longer than 0\.2 s"):
        migrate.upgrade(migrated, directory=tmp_path, limits=MigrationLimits(statement_ms=200))


def test_lost_connection_during_upgrade_changes_nothing(migrated: Engine, tmp_path: Path) -> None:
    write(tmp_path, 1, "SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(OperationalError, match="closed the connection"):
        migrate.upgrade(migrated, directory=tmp_path)

    assert migrate.current(migrated) == BASELINE


def test_failed_revision_is_rolled_back_and_earlier_ones_are_kept(
    migrated: Engine, tmp_path: Path
) -> None:
    first = write(tmp_path, 1, "CREATE TABLE aspen.sites (id integer)")
    write(tmp_path, 2, "CREATE TABLE aspen.more (id integer); SELECT 1 / 0")

    with pytest.raises(MigrationError, match=r"division by zero \(SQLSTATE 22012\)"):
        migrate.upgrade(migrated, directory=tmp_path)

    assert migrate.current(migrated) == first
    assert ask(migrated, "SELECT to_regclass('aspen.sites') IS NOT NULL") is True
    assert ask(migrated, "SELECT to_regclass('aspen.more') IS NULL") is True


HAND = """\"\"\"by hand\"\"\"
from alembic import op
revision = {id!r}; down_revision = {after!r}; branch_labels = None; depends_on = None
def upgrade():
{body}
def downgrade(): pass
"""


def by_hand(folder: Path, file: str, revision: str, after: Any, body: str = "    pass") -> None:
    (folder / f"{file}.py").write_text(HAND.format(id=revision, after=after, body=body))


@pytest.mark.parametrize(
    ("body", "kept"),  # number of tables
    [
        (
            (
                "    with op.get_context().autocommit_block():\n"
                "        op.execute('create table aspen.kept (i int)')"
            ),
            1,
        ),
        ("    op.execute('create table aspen.kept (i int)'); op.execute('commit')", 2),
        ("    op.execute('create table aspen.kept (i int)'); op.get_bind().commit()", 1),
        ("    op.execute('create table aspen.kept (i int)')", 0),
    ],
    ids=["autocommit block", "COMMIT", "commit()", "one transaction"],
)
@pytest.mark.parametrize("failure", ["op.execute('select 1/0')", "raise ValueError('no')"])
def test_failed_revision_lists_statements_already_committed(
    body: str, kept: int, failure: str, migrated: Engine, tmp_path: Path
) -> None:
    by_hand(tmp_path, "a", "a1", BASELINE, "    op.execute('create table aspen.first (i int)')")
    lost = "    op.execute('create table aspen.lost (i int)')"
    by_hand(tmp_path, "b", "b1", "a1", f"{body}\n{lost}\n    {failure}")
    with pytest.raises(MigrationError) as caught:
        migrate.upgrade(migrated, directory=tmp_path)
    hint = str(caught.value.hint)
    assert ("create table aspen.kept" in hint, "Nothing of this" in hint) == (kept > 0, not kept)
    assert "Already applied and kept: a1." in hint
    assert "aspen.first" not in hint
    assert ("aspen.lost" in hint) == (kept > 1)  # after a COMMIT, every statement commits
    assert migrate.current(migrated) == "a1"
    found = "SELECT count(*) FROM pg_tables WHERE tablename IN ('first', 'kept', 'lost')"
    assert ask(migrated, found) == 1 + kept


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            [("a", "a1", BASELINE), ("b", "b1", BASELINE)],
            "2 newest revisions: a1 (a.py), b1 (b.py)",
        ),
        ([("a", "a1", BASELINE), ("b", "b1", None)], "2 newest revisions"),
        ([("a", "a1", "gone")], "a.py follows gone, which does not exist"),
        ([("a", "a1", BASELINE), ("b", "a1", BASELINE)], "2 files have revision a1"),
        ([("a", BASELINE, None)], f"2 files have revision {BASELINE}"),
        ([("a", "a1", "b1"), ("b", "b1", "a1")], "form a cycle: a1 -> b1 -> a1"),
        ([("a", "a1", "a1")], "Self-loop is detected"),
        ([("a", "a1", BASELINE), ("b", "b1", "c1"), ("c", "c1", "b1")], "form a cycle"),
        ([("a", "a1", BASELINE, "    return (")], "SyntaxError"),
        ([("a", "a1", BASELINE, "    pass\nimport no_such_module")], "ModuleNotFoundError"),
    ],
)
def test_broken_revision_files_are_refused_before_any_is_applied(
    files: list[tuple[Any, ...]], says: str, migrated: Engine, tmp_path: Path
) -> None:
    for file in files:
        by_hand(tmp_path, *file)
    for attempt in (
        lambda: migrate.upgrade(migrated, directory=tmp_path),
        lambda: migrate.history(migrated, directory=tmp_path),
        lambda: migrate.upgrade_sql(directory=tmp_path),
    ):
        with pytest.raises(BrokenRevisionsError) as caught:
            attempt()
        assert says in caught.value.message
    assert migrate.current(migrated) == BASELINE


def test_merged_revisions_are_upgraded_together(migrated: Engine, tmp_path: Path) -> None:
    by_hand(tmp_path, "a", "a1", BASELINE)
    by_hand(tmp_path, "b", "b1", BASELINE)
    by_hand(tmp_path, "c", "c1", ("a1", "b1"))
    assert migrate.upgrade(migrated, directory=tmp_path).after == "c1"


def test_relative_upgrade_and_downgrade_steps_apply_in_order(
    migrated: Engine, tmp_path: Path
) -> None:
    first = write(tmp_path, 1, "CREATE SCHEMA one", "DROP SCHEMA one")
    second = write(tmp_path, 2, "CREATE SCHEMA two", "DROP SCHEMA two")

    assert migrate.upgrade(migrated, "+1", directory=tmp_path).after == first
    assert migrate.upgrade(migrated, directory=tmp_path).applied == (second,)
    assert migrate.downgrade(migrated, "-1", directory=tmp_path).reverted == (second,)
    assert migrate.downgrade(migrated, BASELINE, directory=tmp_path).reverted == (first,)


def test_database_at_unknown_revision_is_reported(migrated: Engine) -> None:
    run(migrated, "UPDATE alembic_version SET version_num = '20991231_000000'")

    for attempt in (
        lambda: migrate.upgrade(migrated),
        lambda: migrate.downgrade(migrated, "base"),
        lambda: migrate.history(migrated),
        lambda: migrate.revision(migrated, "anything"),
    ):
        with pytest.raises(UnknownRevisionError, match="is at revision 20991231_000000") as told:
            attempt()
        assert "Update aspencli" in (told.value.hint or "")
    assert migrate.current(migrated) == "20991231_000000"


def test_database_recording_two_revisions_is_reported(migrated: Engine) -> None:
    run(migrated, "INSERT INTO alembic_version VALUES ('20991231_000000')")

    with pytest.raises(MigrationError, match="records 2 current revisions"):
        migrate.current(migrated)


@pytest.mark.parametrize(
    "wanted", ["nonsense", "20991231_000000", "", " ", "base:head:x", "+x", "a@b"]
)
def test_upgrade_to_nonexistent_revision_is_refused(migrated: Engine, wanted: str) -> None:
    with pytest.raises(UnknownRevisionError, match="Revision not found"):
        migrate.upgrade(migrated, wanted)
    with pytest.raises(UnknownRevisionError, match="Revision not found"):
        migrate.upgrade_sql(wanted)


def test_two_head_revisions_are_reported(tmp_path: Path) -> None:
    write(tmp_path, 1, "SELECT 1")
    other = REVISION.format(id="20300101_000009", after=BASELINE, up="", down="")
    (tmp_path / "other.py").write_text(other)

    with pytest.raises(MigrationError, match="2 newest revisions"):
        migrate.head(tmp_path)


def test_existing_tables_without_recorded_revision_are_reported(migrated: Engine) -> None:
    run(migrated, "DELETE FROM alembic_version")

    with pytest.raises(MigrationError, match="already has what the revision creates"):
        migrate.upgrade(migrated)


def test_read_only_session_can_check_but_not_upgrade(empty_db: str, migrated_db: str) -> None:
    reader, empty = Database(migrated_db), Database(empty_db)

    assert migrate.check(reader.engine) == []
    assert migrate.current(reader.engine) == BASELINE
    with pytest.raises(MigrationPermissionError, match="read-only"):
        migrate.upgrade(empty.engine)
    reader.dispose()
    empty.dispose()


@pytest.fixture
def plain_role(empty_db: str) -> Iterator[Engine]:
    """Yield an engine for a role that may create schemas in its database but is not a superuser."""
    admin = sa.create_engine(empty_db, poolclass=NullPool)
    name, database = f"plain_{uuid.uuid4().hex[:8]}", make_url(empty_db).database
    run(admin, f"CREATE ROLE {name}")
    run(admin, f'GRANT CREATE ON DATABASE "{database}" TO {name}')
    run(admin, f"GRANT CREATE ON SCHEMA public TO {name}")
    yield sa.create_engine(
        empty_db, poolclass=NullPool, connect_args={"options": f"-c role={name}"}
    )
    run(admin, f"DROP OWNED BY {name}")
    run(admin, f"DROP ROLE {name}")


def test_missing_extension_privilege_error_suggests_statement(plain_role: Engine) -> None:
    with pytest.raises(MigrationPermissionError, match="may not create the extension") as told:
        migrate.upgrade(plain_role)

    assert "CREATE EXTENSION earthdistance SCHEMA public;" in (told.value.hint or "")
    assert migrate.current(plain_role) is None


def test_ordinary_role_can_upgrade_when_extensions_exist(plain_role: Engine, empty: Engine) -> None:
    for name in ("cube", "earthdistance", "fuzzystrmatch"):
        run(empty, f"CREATE EXTENSION {name} SCHEMA public")

    assert migrate.upgrade(plain_role).applied == (BASELINE,)
    assert migrate.check(plain_role) == []


def test_missing_privilege_on_public_schema_is_reported(plain_role: Engine, empty: Engine) -> None:
    role = ask(plain_role, "SELECT current_user")
    run(empty, f"REVOKE CREATE ON SCHEMA public FROM {role}, PUBLIC")

    with pytest.raises(MigrationPermissionError, match="permission denied for schema public"):
        migrate.upgrade(plain_role)


def test_missing_database_raises_connection_error(empty: Engine) -> None:
    nowhere = sa.create_engine(empty.url.set(database="nowhere"), poolclass=NullPool)

    with pytest.raises(OperationalError, match="nowhere"):
        migrate.upgrade(nowhere)


def test_migration_history_is_listed_newest_first(migrated: Engine, tmp_path: Path) -> None:
    second = write(tmp_path, 1, "SELECT 1")

    newest, baseline = migrate.history(migrated, directory=tmp_path)

    assert (newest.revision, newest.down_revision) == (second, BASELINE)
    assert (newest.is_head, newest.is_current) == (True, False)
    assert (baseline.revision, baseline.down_revision) == (BASELINE, None)
    assert (baseline.is_head, baseline.is_current) == (False, True)
    assert baseline.created == datetime(2023, 3, 21, 23, 25, 55, tzinfo=UTC)
    assert baseline.message == "The schema of the live service, from nothing."
    assert [each.is_current for each in migrate.history()] == [False]


def test_upgrade_sql_script_builds_same_schema(empty: Engine) -> None:
    run(empty, migrate.upgrade_sql().replace("%", "%%"))

    assert migrate.current(empty) == migrate.head()
    assert migrate.check(empty) == []
    assert ask(empty, "SELECT count(*) FROM aspen.pathogens") == 3


def test_migrations_print_and_log_nothing(
    empty: Engine,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    loggers = [logging.getLogger(), logging.getLogger("alembic")]
    before = [list(logger.handlers) for logger in loggers]

    migrate.upgrade(empty)
    migrate.check(empty)
    migrate.revision(empty, "nothing", directory=tmp_path)
    migrate.upgrade_sql()
    migrate.downgrade(empty, "base")

    assert capfd.readouterr() == ("", "")
    assert [logger.handlers for logger in loggers] == before
