"""Errors of a real database as shown to operators: exit code and message, without a traceback."""

from __future__ import annotations

import datetime as dt
import os
import socket
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL

from aspen.database.engine import Database
from aspen.database.models import User
from aspencli.cli.failures import Failure, explain
from aspencli.cli.main import run

if TYPE_CHECKING:
    from tests.conftest import Server

INSERT = "INSERT INTO aspen.roles (name) VALUES ('guest')"


def _listing(
    url: URL | str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    address = url if isinstance(url, str) else url.render_as_string(hide_password=False)
    monkeypatch.setenv("ASPEN_DATABASE_URL_LOCAL", address)
    code = run(["groups", "list"])
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert "a bug" not in err
    assert "→" in err  # what to do next
    return code, err


def _failure(database: Database, *statements: str, writing: bool = True) -> Failure:
    """Return the failure reported for the last statement."""
    *before, last = statements
    opened = database.begin() if writing else database.reading()
    with opened as session:
        for statement in before:
            session.execute(sa.text(statement))
        with pytest.raises(sa.exc.DBAPIError) as caught:
            session.execute(sa.text(last))
        session.rollback()
    return explain(caught.value)


# Errors on connecting


def test_wrong_password_exits_with_4_and_is_not_shown(
    seeded: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, err = _listing(seeded.url.set(password="wr0ng"), monkeypatch, capsys)
    assert code == 4
    assert "rejected this user" in err
    assert "wr0ng" not in err


def test_unknown_database_user_exits_with_4(
    seeded: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _listing(seeded.url.set(username="nobody"), monkeypatch, capsys)[0] == 4


def test_closed_database_port_exits_with_5(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))  # bound but not listening, so no other process takes the port
        port = bound.getsockname()[1]
        address = f"postgresql://me:secret@127.0.0.1:{port}/db"
        code, err = _listing(address, monkeypatch, capsys)
    assert code == 5
    assert "is not responding" in err
    assert "secret" not in err


def test_unknown_database_host_exits_with_5(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address = "postgresql://me@nowhere.invalid/db"
    assert _listing(address, monkeypatch, capsys)[0] == 5


def test_missing_database_exits_with_6(
    postgres: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, err = _listing(postgres.url("no_such_database"), monkeypatch, capsys)
    assert code == 6
    assert "The database does not exist" in err


@pytest.mark.parametrize(
    "address",
    ["mysql://me@db/x", "db.example.org", "postgresql://me@db:port/x"],
)
def test_invalid_database_address_exits_with_2(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _listing(address, monkeypatch, capsys)[0] == 2


def test_unconfigured_database_fails_without_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--env", "staging", "groups", "list"]) in {4, 5}
    assert "Traceback" not in capsys.readouterr().err


def test_database_without_schema_exits_with_6_and_suggests_upgrade(
    empty_db: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, err = _listing(empty_db, monkeypatch, capsys)
    assert code == 6
    assert "aspencli db upgrade" in err


# Errors while running a statement


def test_write_in_read_only_session_exits_with_3(seeded: Database) -> None:
    failure = _failure(seeded, INSERT, writing=False)
    assert failure.code == 3
    assert "nothing was written" in failure.message


def test_statement_timeout_exits_with_5(seeded: Database) -> None:
    failure = _failure(seeded.with_limits(statement_ms=50), "SELECT pg_sleep(5)")
    assert failure.code == 5
    assert "too long" in failure.message


def test_lock_timeout_exits_with_7_and_suggests_db_activity(seeded: Database) -> None:
    other = Database(seeded.url)
    with other.begin() as session:
        session.execute(sa.text("LOCK TABLE aspen.roles"))
        failure = _failure(seeded.with_limits(lock_ms=50), INSERT)
    other.dispose()
    assert failure.code == 7
    assert "aspencli db activity" in str(failure.hint)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO aspen.roles (name) VALUES ('admin')",  # unique
        "INSERT INTO aspen.roles (name) VALUES (NULL)",  # not null
        "DELETE FROM aspen.groups WHERE id = 1",  # foreign key
    ],
)
def test_constraint_violation_exits_with_7(seeded: Database, statement: str) -> None:
    failure = _failure(seeded, statement)
    assert failure.code == 7
    assert failure.details  # the server names the constraint


def test_serialization_failure_exits_with_7(seeded: Database) -> None:
    count = "SELECT count(*) FROM aspen.roles"
    other = Database(seeded.url)
    serial = "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"
    with seeded.begin() as ours:
        ours.execute(sa.text(serial))
        ours.execute(sa.text(count))
        with other.begin() as theirs:
            theirs.execute(sa.text(serial))
            theirs.execute(sa.text(count))
            theirs.execute(sa.text("INSERT INTO aspen.roles (name) VALUES ('theirs')"))
        with pytest.raises(sa.exc.DBAPIError) as caught:
            ours.execute(sa.text(INSERT))
        ours.rollback()
    other.dispose()
    failure = explain(caught.value)
    assert (failure.code, failure.hint) == (7, "Try again.")


def test_terminated_connection_exits_with_5(seeded: Database) -> None:
    other = Database(seeded.url)
    with seeded.reading() as session:
        pid = session.scalar(sa.text("SELECT pg_backend_pid()"))
        with other.reading() as killer:
            killer.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        with pytest.raises(sa.exc.DBAPIError) as caught:
            session.execute(sa.text("SELECT 1"))
        session.invalidate()
    other.dispose()
    assert explain(caught.value).code == 5


def test_missing_privilege_exits_with_4(seeded: Database) -> None:
    role = f"poor_{seeded.url.database}"
    with seeded.begin() as session:
        session.execute(sa.text(f'CREATE ROLE "{role}"'))
    failure = _failure(seeded, f'SET LOCAL ROLE "{role}"', "SELECT * FROM aspen.groups")
    with seeded.begin() as session:
        session.execute(sa.text(f'DROP ROLE "{role}"'))
    assert failure.code == 4
    assert "permission denied" in failure.details[0]


@pytest.mark.parametrize(
    "words",
    [
        "sorry, too many clients already",
        'too many connections for role "user_rw"',
        "remaining connection slots are reserved for roles with the SUPERUSER attribute",
        "the database system is starting up",
        "the database system is shutting down",
    ],
)
def test_server_that_accepts_no_connections_exits_with_5(words: str) -> None:
    """The driver sets no SQLSTATE for these, so only the server's message identifies them."""
    said = psycopg2.OperationalError(f'connection to server at "db" failed: FATAL:  {words}\n')
    failure = explain(sa.exc.OperationalError("SELECT 1", {}, said))
    assert failure.code == 5
    assert words in failure.details[0]


def test_write_refused_by_read_only_server_exits_with_3(
    seeded: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Check a server-side refusal, as on a standby, although our own session asked for writing."""
    with seeded.begin() as session:
        session.execute(
            sa.text(
                "CREATE FUNCTION standby() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " RAISE 'read-only' USING ERRCODE = '25006'; END $$;"
                "CREATE TRIGGER standby BEFORE INSERT ON aspen.users EXECUTE FUNCTION standby()"
            )
        )
    address = seeded.url.render_as_string(hide_password=False)
    monkeypatch.setenv("ASPEN_DATABASE_URL_LOCAL", address)
    create = "users create --name A --email a@b.org --auth0-user-id x --group 1 --yes"
    assert run(create.split()) == 3
    assert capsys.readouterr().out == ""
    with seeded.reading() as session:
        assert session.scalar(sa.select(User.id).where(User.email == "a@b.org")) is None


# Errors that do not come from the database


def test_error_about_unreadable_file_names_it() -> None:
    failure = explain(PermissionError(13, "Permission denied", "ids.csv"))
    assert failure.code == 1
    assert failure.message == "ids.csv: Permission denied"


def test_unexpected_error_is_reported_as_bug(seeded: Database) -> None:
    failure = _failure(seeded, "SELECT nonsense FROM aspen.roles")
    assert failure.code == 1
    assert failure.message.startswith("Bug in aspencli: ProgrammingError")


def test_crash_report_contains_no_data(seeded: Database, aspen_home: Path) -> None:
    secret = "hunter" + str(1 + 1)  # the crash report quotes this line
    with seeded.reading() as session, pytest.raises(sa.exc.DBAPIError) as caught:
        session.execute(sa.text("SELECT nonsense WHERE 'x' = :value"), {"value": secret})
    assert secret not in explain(caught.value).message
    (report,) = (aspen_home / "state" / "crashes").iterdir()
    text = report.read_text()
    assert secret not in text
    assert 'column "nonsense" does not exist' in text


def test_crash_report_follows_no_planted_symlink(aspen_home: Path, tmp_path: Path) -> None:
    crashes = aspen_home / "state" / "crashes"
    crashes.mkdir(parents=True)
    now = dt.datetime.now(dt.UTC)
    for seconds in range(60):
        name = f"{now + dt.timedelta(seconds=seconds):%Y%m%dT%H%M%S}-{os.getpid()}.txt"
        (crashes / name).symlink_to(tmp_path / "elsewhere")
    failure = explain(ZeroDivisionError("x"))
    assert failure.message.startswith("Bug in aspencli: ZeroDivisionError")
    assert failure.hint is not None
    assert failure.hint.startswith("Run the command again with --debug")
    assert not (tmp_path / "elsewhere").exists()
