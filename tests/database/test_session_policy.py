"""Settings of the database and the role apply to a session."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import psycopg2
import pytest
import sqlalchemy as sa

from aspen.database.driver import ends_transaction
from aspen.database.engine import Database
from aspen.database.errors import NotAllowedError, ServerReadOnlyError
from aspen.database.migrate import MigrationLimits, guarded
from aspen.database.settings import Guard, Limits, Overrides, SessionPolicy, connection_arguments
from tests.conftest import CliRunner, Server

LIMITS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")


@pytest.fixture
def set_for_database(seeded: Database) -> str:
    """Apply stricter, equal, and looser settings to a database, and return its name."""
    url = seeded.url.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = psycopg2.connect(url)
    connection.autocommit = True
    name = f'"{seeded.url.database}"'
    with connection.cursor() as cursor:
        for setting, value in zip(LIMITS, ("7s", "10min", "90s"), strict=True):
            cursor.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")
        cursor.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    connection.close()
    return name


def limits_of(database: Database) -> list[str]:
    with database.reading() as session:
        return [str(session.scalar(sa.text(f"SHOW {name}"))) for name in LIMITS]


@pytest.mark.usefixtures("set_for_database")
def test_shorter_timeout_of_database_is_kept(seeded: Database) -> None:
    assert limits_of(seeded) == ["7s", "5s", "90s"]
    assert limits_of(seeded.with_limits(statement_ms=0, lock_ms=0)) == ["7s", "10min", "90s"]
    assert limits_of(seeded.derived(overrides=Overrides(timeouts=True))) == ["1min", "5s", "0"]


@pytest.mark.usefixtures("set_for_database")
def test_write_to_read_only_database_requires_override(seeded: Database) -> None:
    with pytest.raises(ServerReadOnlyError), seeded.begin() as session:
        session.connection()
    overriding = seeded.derived(overrides=Overrides(read_only=True))
    with overriding.begin() as session:
        session.execute(sa.text("INSERT INTO pathogens (slug, name) VALUES ('XYZ', 'x')"))
    overriding.dispose()


@pytest.mark.usefixtures("set_for_database")
def test_psql_write_to_read_only_database_is_refused(run_cli: CliRunner, seeded: Database) -> None:
    words = ["db", "psql", "--write", "--yes", "-c", "CREATE TABLE x (i int)"]
    refused = run_cli(*words, database=seeded)
    assert (refused.code, "--override-read-only" in refused.err) == (3, True)
    assert "bug" not in refused.err


@pytest.mark.usefixtures("set_for_database")
def test_migration_keeps_shorter_timeout_of_database(seeded: Database, postgres: Server) -> None:
    direct = Database(postgres.url(str(seeded.url.database)), writable=True)
    writing = direct.derived(overrides=Overrides(read_only=True))
    with writing.engine.connect() as connection, guarded(connection, MigrationLimits()):
        assert connection.scalar(sa.text("SHOW statement_timeout")) == "7s"
        assert connection.scalar(sa.text("SHOW lock_timeout")) == "5s"
    writing.dispose()


def test_derived_database_keeps_reading_guard(seeded: Database) -> None:
    policy = replace(seeded.policy, guard=Guard.READING)
    database = Database(seeded.url, policy=policy)
    for derived in (database, database.with_limits(lock_ms=1), database.derived(guard=Guard.NONE)):
        assert derived.policy.guard is Guard.READING
        with pytest.raises(NotAllowedError), derived.begin():
            pass
        with pytest.raises(NotAllowedError):
            derived.writing()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", ""),
        ("endpoint=ep-1", "endpoint=ep-1"),
        ("-c search_path=x -c statement_timeout=0", "-c search_path=x"),
        ("-cdefault_transaction_read_only=off", ""),
        ("--lock_timeout=0 -c geqo=off", "-c geqo=off"),
        ("-c  DEFAULT_TRANSACTION_READ_ONLY=off", ""),
    ],
)
def test_address_options_cannot_loosen_session_policy(given: str, kept: str) -> None:
    assert connection_arguments(SessionPolicy(limits=Limits()), given)["options"] == kept


@pytest.mark.unpooled("PgBouncer rejects or drops startup options")
@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ("-c default_transaction_read_only=on", True),
        ("-cDefault_Transaction_Read_Only=TRUE -c geqo=off", True),
        ("--default_transaction_read_only=off --default_transaction_read_only=1", True),
        ("-c default_transaction_read_only=on -c default_transaction_read_only=off", False),
        ("-c default_transaction_read_only=off", False),
        ("-c x.default_transaction_read_only=on", False),
        ("", False),
    ],
)
def test_read_only_address_refuses_writes_but_not_reads(
    seeded: Database, options: str, refused: bool
) -> None:
    url = seeded.url.update_query_dict({"options": options}, append=False)
    with Database(url).reading() as session:
        assert session.scalar(sa.text("SELECT 1")) == 1
    writing = Database(url, writable=True)
    with pytest.raises(ServerReadOnlyError) if refused else nullcontext(), writing.begin():
        pass
    overrides = replace(writing.policy, overrides=Overrides(read_only=True))
    with Database(url, policy=overrides).begin() as session:
        session.execute(sa.text("CREATE TEMPORARY TABLE allowed ()"))


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("SELECT 'commit'", None),
        ("SELECT end FROM x", None),
        ("ROLLBACK TO SAVEPOINT a", None),
        ("rollback work to a", None),
        ("DO $$ BEGIN NULL; END $$", None),
        ("SELECT CASE WHEN true THEN 1 END; SELECT 2", None),
        ('SELECT "commit"; SELECT 1', None),
        ("PREPARE a AS SELECT 1", None),
        ("-- commit\nSELECT 1", None),
        ("  \n/* a */ Commit", "COMMIT"),
        ("SELECT 1;;; END", "END"),
        ("-- a\rABORT", "ABORT"),
        ("SELECT $a$ ; $a$; begin", "BEGIN"),
        ("prepare /**/ transaction 'x'", "PREPARE TRANSACTION"),
        ("ROLLBACK PREPARED 'x'", "ROLLBACK"),
        ("start transaction", "START"),
        ("SELECT U&'\\'; commit; --'", "COMMIT"),
        ("SELECT e'\\'; commit; --'", None),
    ],
)
def test_transaction_control_statements_are_detected(statement: str, words: str | None) -> None:
    assert ends_transaction(statement) == words
