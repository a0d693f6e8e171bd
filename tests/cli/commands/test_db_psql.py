"""psql on the target's database: what it may do, and what others can see of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pexpect
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from aspen.database.engine import Database
from aspen.local.postgres.binaries import find_binaries
from aspencli import machine
from aspencli.admin.psql import read_address
from tests import zygote

if TYPE_CHECKING:
    from tests.conftest import CliRunner

pytestmark = pytest.mark.unpooled("psql needs a dedicated server session", modes="transaction")

ADD = "INSERT INTO pathogens (slug, name) VALUES ('XYZ', 'made up')"


@pytest.fixture
def psql_on_path() -> dict[str, str]:
    """Return an environment with psql in PATH; if there is no other, the bundled one."""
    return {"PATH": os.pathsep.join([os.environ["PATH"], str(find_binaries().bindir)])}


@pytest.fixture
def no_psql(tmp_path: Path) -> dict[str, str]:
    empty = tmp_path / "empty"
    empty.mkdir()
    return {"PATH": str(empty)}


def pathogens(database: Database) -> set[str]:
    with database.reading() as session:
        return set(session.scalars(sa.text("SELECT slug FROM pathogens")))


@contextmanager
def at_a_terminal(environ: dict[str, str], *arguments: str) -> Iterator[Any]:
    child = zygote.at_terminal(arguments, env=environ, timeout=120, encoding="utf-8")
    try:
        yield child
    finally:
        child.close(force=True)


@pytest.mark.parametrize("name", ["aspen.users", "users"])
def test_psql_finds_tables_with_and_without_schema(
    run_cli: CliRunner, database: Database, name: str
) -> None:
    result = run_cli("db", "psql", "-c", f"select * from {name};", database=database)
    assert (result.code, result.err) == (0, "")
    assert "auth0_user_id" in result.out


def test_arguments_after_double_dash_are_passed_to_psql(
    run_cli: CliRunner, database: Database
) -> None:
    result = run_cli("db", "psql", "--", "--csv", "-tc", "SELECT 1, 2", database=database)
    assert result.out == "1,2\n"


def test_psql_is_read_only_without_write_option(run_cli: CliRunner, database: Database) -> None:
    result = run_cli("db", "psql", "-c", ADD, database=database)
    assert result.code == 1
    assert "read-only transaction" in result.err
    assert "XYZ" not in pathogens(database)


def test_psql_write_requires_confirmation(run_cli: CliRunner, database: Database) -> None:
    result = run_cli("db", "psql", "--write", "-c", ADD, database=database)
    assert result.code == 3
    assert "--yes" in result.err
    assert "--dry-run" not in result.err
    assert "XYZ" not in pathogens(database)


def test_confirmed_psql_write_changes_database(run_cli: CliRunner, database: Database) -> None:
    result = run_cli("db", "psql", "--write", "--yes", "-c", ADD, database=database)
    assert (result.code, result.out) == (0, "INSERT 0 1\n")
    assert "XYZ" in pathogens(database)


def test_psql_write_on_production_requires_target_name(
    run_cli: CliRunner, migrated_db: str, psql_on_path: dict[str, str]
) -> None:
    address = {"ASPEN_DATABASE_URL_PROD": migrated_db, **psql_on_path}
    yes = ("--yes", "--reason", "a test")
    refused = run_cli("--env", "prod", "db", "psql", "--write", *yes, "-c", ADD, env=address)
    assert refused.code == 3
    assert "--confirm prod" in refused.err
    confirmed = ("--confirm", "prod", "--reason", "a test")
    written = run_cli("--env", "prod", "db", "psql", "--write", *confirmed, "-c", ADD, env=address)
    assert written.code == 0


def test_psql_script_stops_at_first_error(run_cli: CliRunner, database: Database) -> None:
    result = run_cli("db", "psql", input="SELECT 1/0;\nSELECT 'later';\n", database=database)
    assert result.code == 3
    assert "later" not in result.out


def test_psql_session_sets_application_name(run_cli: CliRunner, database: Database) -> None:
    result = run_cli("db", "psql", "--", "-tAc", "SHOW application_name", database=database)
    assert result.out.startswith("aspencli/")
    assert " local " in result.out


def test_psql_ignores_libpq_environment_variables(run_cli: CliRunner, database: Database) -> None:
    astray = {
        "PGHOST": "192.0.2.1",
        "PGHOSTADDR": "192.0.2.1",
        "PGPORT": "1",
        "PGDATABASE": "elsewhere",
        "PGUSER": "nobody",
        "PGOPTIONS": "-c default_transaction_read_only=off",
    }
    words = ["db", "psql", "--", "-tAc", "SELECT current_database()"]
    assert run_cli(*words, database=database, env=astray).out.strip() == database.url.database
    assert run_cli("db", "psql", "-c", ADD, database=database, env=astray).code == 1


def test_password_is_not_visible_in_process_list(
    database: Database, cli_env: Callable[[Database], dict[str, str]]
) -> None:
    password = str(database.url.password)
    words = [sys.executable, "-m", "aspencli", "db", "psql", "-c", "SELECT pg_sleep(20)"]
    child = subprocess.Popen(words, env=cli_env(database), stdin=subprocess.DEVNULL)
    try:
        until(lambda: session_of(database, "pg_sleep"))
        lines = [command for _, command in machine.running()]
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(120)
    assert any("pg_sleep(20)" in line for line in lines)
    assert not [line for line in lines if password in line]


@pytest.mark.unpooled("psql is made read-only by its startup file")
def test_ctrl_c_cancels_statement_and_keeps_psql_open(
    database: Database, cli_env: Callable[[Database], dict[str, str]]
) -> None:
    prompt = f"{database.url.database}=[#>] "
    with at_a_terminal(cli_env(database), "db", "psql", "--", "-X") as child:
        child.expect(prompt)
        child.sendline("select pg_sleep(30);")
        until(lambda: session_of(database, "pg_sleep"))
        child.sendintr()
        child.expect("canceling statement due to user request")
        child.expect(prompt)
        child.sendline("\\q")
        child.expect(pexpect.EOF)


def test_psql_prompt_names_non_local_target(
    migrated_db: str, cli_env: Callable[[None], dict[str, str]], psql_on_path: dict[str, str]
) -> None:
    environ = {**cli_env(None), "ASPEN_DATABASE_URL_STAGING": migrated_db, **psql_on_path}
    words = ["--env", "staging", "db", "psql", "--write", "--", "-X"]
    with at_a_terminal(environ, *words) as child:
        child.expect("Reason to open psql with write access on staging:")
        child.sendline("a test")
        child.expect("Open psql with write access on staging")
        child.sendline("y")
        prompt = f"staging \\(read-write\\) {make_url(migrated_db).database}=[#>] "
        child.expect(prompt)
        child.sendline("SELECT 'beg' || 'un', pg_sleep(600);")
        child.expect("pg_sleep")
        while not _is_sleeping(migrated_db):
            pass
        child.sendintr()  # cancels the statement, and ends neither program
        child.expect("canceling statement due to user request")
        child.expect(prompt)
        child.sendline("\\q")
        child.expect(pexpect.EOF)


def _is_sleeping(address: str) -> bool:
    engine = sa.create_engine(address)
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        " AND datname = current_database()"
    )
    try:
        with engine.connect() as connection:
            return bool(connection.exec_driver_sql(query).scalar())
    finally:
        engine.dispose()


def test_psql_ends_silently_if_reader_closes_pipe(
    database: Database, cli_env: Callable[[Database], dict[str, str]]
) -> None:
    query = "SELECT repeat('x', 1000) FROM generate_series(1, 200000)"
    child = subprocess.Popen(
        [sys.executable, "-m", "aspencli", "db", "psql", "-c", query],
        env=cli_env(database),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout
    assert child.stderr
    child.stdout.readline()
    child.stdout.close()
    with child.stderr:
        assert child.stderr.read() == b""
    assert child.wait(120) == -signal.SIGPIPE


def test_bundled_psql_is_used_for_local_target(
    run_cli: CliRunner, database: Database, no_psql: dict[str, str]
) -> None:
    if not (find_binaries().bindir / "psql").exists():
        pytest.skip("this PostgreSQL comes without psql")
    result = run_cli("db", "psql", "--", "-tAc", "SELECT 1", database=database, env=no_psql)
    assert (result.code, result.out) == (0, "1\n")


def test_bundled_psql_is_refused_for_non_local_target(
    run_cli: CliRunner, migrated_db: str, no_psql: dict[str, str]
) -> None:
    environ = {**no_psql, "ASPEN_DATABASE_URL_STAGING": migrated_db}
    result = run_cli("--env", "staging", "db", "psql", "-c", "SELECT 1", env=environ)
    assert result.code == 5
    assert "aspencli db interact" in result.err


def test_wrong_password_exits_4_with_hint(run_cli: CliRunner, database: Database) -> None:
    result = run_cli("db", "psql", database=database.url.set(password="wrong"))
    assert result.code == 4
    assert "Check the user and password" in result.err


def session_of(database: Database, text: str) -> int | None:
    query = sa.text(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND query LIKE :text AND state = 'active'"
    )
    with database.reading() as session:
        found: int | None = session.scalar(query, {"text": f"%{text}%"})
        return found


def until(look: Callable[[], object | None]) -> object:
    deadline = time.monotonic() + 120
    while (found := look()) is None:
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return found


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_all_postgresql_url_schemes_are_accepted(
    run_cli: CliRunner, database: Database, psql_on_path: dict[str, str], scheme: str
) -> None:
    plain = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    address = f"{scheme}{plain.removeprefix('postgresql')}?connect_timeout=5"
    environ = {"ASPEN_DATABASE_URL_LOCAL": address, **psql_on_path}
    result = run_cli("db", "psql", "-c", "select 41 + 1", env=environ)
    assert (result.code, "42" in result.out) == (0, True), result.err


@pytest.mark.parametrize(
    ("host", "query"),
    [("db.example.org", {}), ("::1", {"sslmode": "require"}), (None, {"host": "/var/run/pg"})],
)
def test_database_url_is_parsed_like_sqlalchemy(host: str | None, query: dict[str, str]) -> None:
    password = "p@ss/w:o%r?d& #'\\ñ"
    url = sa.URL.create("postgresql+psycopg2", "me@x", password, host, 5433, "a/b", query)
    assert read_address(url.render_as_string(hide_password=False)) == {
        "user": "me@x",
        "password": password,
        "port": "5433",
        "dbname": "a/b",
        **({"host": host} if host else {}),
        **query,
    }


@pytest.mark.parametrize(
    "address", ["mysql://a:secret@h/d", "a:secret@h", "postgresql://a:secret@h/d?nonsense=1"]
)
def test_invalid_database_url_is_reported_without_password(
    run_cli: CliRunner, psql_on_path: dict[str, str], address: str
) -> None:
    environ = {"ASPEN_DATABASE_URL_LOCAL": address, **psql_on_path}
    result = run_cli("db", "psql", "-c", "select 1", env=environ)
    assert result.code == 2
    assert "Invalid database URL" in result.err
    assert "secret" not in result.err
