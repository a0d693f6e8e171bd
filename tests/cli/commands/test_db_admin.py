"""The database as a whole: setup, creation, dropping, and status."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import NullPool

from aspen.database.engine import Database
from tests.local.marking import mark_as_created

if TYPE_CHECKING:
    from tests.conftest import CliResult, CliRunner, Server

HEAD = "20230321_232555"
STATUS_KEYS = [
    "target",
    "host",
    "port",
    "database",
    "user",
    "server_version",
    "revision",
    "head",
    "schema",
    "size",
    "samples",
    "users",
    "groups",
    "phylo_runs",
    "phylo_trees",
    "estimated",
    "connections",
    "max_connections",
    "waiting",
    "longest_transaction_s",
    "longest_transaction",
    "read_only",
    "replication",
    "verdict",
    "pooler",
    "limits",
]


@pytest.fixture
def absent(postgres: Server) -> Iterator[URL]:
    """Yield the address of a missing database whose name needs quoting."""
    name = f'aspen "odd" %s {uuid.uuid4().hex[:8]}'
    yield make_url(postgres.url("postgres")).set(database=name)
    run_outside(postgres, f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)")


@contextmanager
def connected(address: URL | str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(address, poolclass=NullPool)
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def run_outside(postgres: Server, statement: str) -> None:
    with connected(postgres.url("postgres")) as opened:
        opened.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql(statement)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""').replace("%", "%%") + '"'  # the driver needs % doubled


def databases(postgres: Server) -> set[str]:
    with connected(postgres.url("postgres")) as opened:
        return set(opened.scalars(sa.text("SELECT datname FROM pg_database")))


@pytest.fixture(autouse=True)
def _own_server(aspen_home: Path, postgres: Server) -> None:
    """Mark the tests' server as the one that the local deployment created."""
    mark_as_created(aspen_home, postgres.url("postgres"))


def only(result: CliResult) -> dict[str, Any]:
    (row,) = json.loads(result.out)
    found: dict[str, Any] = row
    return found


def test_setup_and_drop_succeed_and_can_be_repeated(
    run_cli: CliRunner, absent: URL, postgres: Server
) -> None:
    setup = run_cli("db", "setup", "-o", "json", database=absent)
    assert setup.code == 0, setup.err
    assert (only(setup)["created"], only(setup)["after"]) == (True, HEAD)
    again = only(run_cli("db", "setup", "-o", "json", database=absent))
    assert (again["created"], again["applied"]) == (False, [])
    assert run_cli("db", "check", database=absent).code == 0
    drop = run_cli("db", "drop", "--yes", "-o", "json", database=absent)
    assert drop.code == 0, drop.err
    assert only(drop) == {"database": absent.database, "dropped": True, "outcome": "deleted"}
    assert absent.database not in databases(postgres)
    nothing = run_cli("db", "drop", "--yes", "-o", "json", database=absent)
    assert (nothing.code, only(nothing)["dropped"]) == (0, False)


def test_created_database_is_empty(run_cli: CliRunner, absent: URL) -> None:
    assert only(run_cli("db", "create", "-o", "json", database=absent))["created"] is True
    assert only(run_cli("db", "create", "-o", "json", database=absent))["created"] is False
    assert only(run_cli("db", "current", "-o", "json", database=absent))["state"] == "empty"


@pytest.mark.parametrize("command", ["setup", "create"])
def test_dry_run_creates_no_database(
    run_cli: CliRunner, absent: URL, postgres: Server, command: str
) -> None:
    result = run_cli("db", command, "--dry-run", database=absent)
    assert result.code == 0
    assert absent.database not in databases(postgres)


def test_drop_shows_what_would_be_lost(run_cli: CliRunner, seeded: Database) -> None:
    result = run_cli("db", "drop", database=seeded)
    assert result.code == 3
    assert str(seeded.url.database) in result.err
    assert "60 samples" in result.err
    assert "MB" in result.err


def test_drop_with_connected_sessions_requires_force(
    run_cli: CliRunner, migrated_db: str, postgres: Server
) -> None:
    name = make_url(migrated_db).database
    with connected(migrated_db) as opened:
        opened.exec_driver_sql("SET application_name TO 'the night shift'")
        opened.commit()
        result = run_cli("db", "drop", "--yes", database=migrated_db)
        assert result.code == 7
        assert "the night shift" in result.err
        assert name in databases(postgres)
        assert run_cli("db", "drop", "--yes", "--force", database=migrated_db).code == 0
        opened.invalidate()
    assert name not in databases(postgres)


def test_forced_drop_succeeds_despite_locked_table(
    run_cli: CliRunner, migrated_db: str, postgres: Server
) -> None:
    with connected(migrated_db) as opened:
        opened.exec_driver_sql("LOCK TABLE aspen.samples")
        assert run_cli("db", "drop", "--yes", "--force", database=migrated_db).code == 0
        opened.invalidate()
    assert make_url(migrated_db).database not in databases(postgres)


@pytest.mark.unpooled("the pooler keeps a session of the database open")
@pytest.mark.parametrize(
    ("env", "consent", "code"),
    [
        ("staging", ["--yes"], 3),
        ("staging", ["--confirm", "prod"], 3),
        ("staging", ["--confirm", "staging"], 0),
        ("prod", ["--yes"], 3),
        ("prod", ["--confirm", "prod"], 0),
    ],
)
def test_drop_of_shared_database_requires_target_name(
    run_cli: CliRunner, empty_db: str, postgres: Server, env: str, consent: list[str], code: int
) -> None:
    address = {f"ASPEN_DATABASE_URL_{env.upper()}": empty_db}
    result = run_cli("--env", env, "db", "drop", *consent, env=address)
    assert result.code == code
    assert (make_url(empty_db).database in databases(postgres)) is (code != 0)


def test_drop_of_maintenance_database_is_refused(run_cli: CliRunner, postgres: Server) -> None:
    result = run_cli("db", "drop", "--yes", "--force", database=postgres.url("postgres"))
    assert result.code == 3
    assert "postgres" in databases(postgres)


@pytest.mark.parametrize("command", ["status", "upgrade", "setup", "drop", "psql", "check"])
def test_unreachable_server_is_reported(run_cli: CliRunner, migrated_db: str, command: str) -> None:
    with socket.socket() as taken:  # bound, but not listening
        taken.bind(("127.0.0.1", 0))
        deaf = make_url(migrated_db).set(port=taken.getsockname()[1])
        result = run_cli("db", command, database=deaf)
    assert result.code == 5
    assert "Check that it is running" in result.err
    assert str(deaf.password) not in result.err


@pytest.mark.parametrize("command", ["status", "setup", "drop"])
def test_wrong_password_exits_4(run_cli: CliRunner, migrated_db: str, command: str) -> None:
    result = run_cli("db", command, database=make_url(migrated_db).set(password="wrong"))
    assert result.code == 4


@pytest.mark.parametrize("command", ["status", "upgrade", "check"])
def test_missing_database_is_reported_with_create_hint(
    run_cli: CliRunner, absent: URL, command: str
) -> None:
    result = run_cli("db", command, database=absent)
    assert result.code == 6
    assert "aspencli db create" in result.err


def test_status_shows_healthy_database(run_cli: CliRunner, seeded: Database) -> None:
    result = run_cli("db", "status", "-o", "json", database=seeded)
    row = only(result)
    assert list(row) == STATUS_KEYS
    assert (row["samples"], row["revision"], row["verdict"]) == (60, HEAD, "ready")
    assert (row["connections"], row["waiting"], row["read_only"]) == (0, 0, False)
    assert row["size"] > 1_000_000


def change_revision(opened: sa.Connection) -> None:
    opened.exec_driver_sql("UPDATE public.alembic_version SET version_num = '29990101_000000'")
    opened.commit()


def age_revision(opened: sa.Connection) -> None:
    opened.exec_driver_sql("UPDATE public.alembic_version SET version_num = '20221021_175601'")
    opened.commit()


def forget_schema(opened: sa.Connection) -> None:
    opened.exec_driver_sql("DELETE FROM public.alembic_version")
    opened.commit()


def forbid_writing(opened: sa.Connection) -> None:
    name = opened.scalar(sa.text("SELECT quote_ident(current_database())"))
    opened.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    opened.commit()


@pytest.mark.parametrize(
    ("harm", "verdict", "step"),
    [
        (change_revision, "unknown", "newer one"),
        (age_revision, "behind", "the live service's own migrations"),
        (forget_schema, "empty", "aspencli db setup"),
        (forbid_writing, "read-only", "Ask the server's administrator"),
    ],
)
def test_status_verdict_names_next_step(
    run_cli: CliRunner,
    migrated_db: str,
    harm: Callable[[sa.Connection], None],
    verdict: str,
    step: str,
) -> None:
    with connected(migrated_db) as opened:
        harm(opened)
    result = run_cli("db", "status", "-o", "json", database=migrated_db)
    assert only(result)["verdict"] == verdict
    assert step in result.err


def test_status_works_while_table_is_locked(run_cli: CliRunner, migrated_db: str) -> None:
    with connected(migrated_db) as opened:
        opened.exec_driver_sql("SET application_name TO 'the night shift'")
        opened.exec_driver_sql("LOCK TABLE aspen.samples")
        result = run_cli("db", "status", "-o", "json", database=migrated_db)
    row = only(result)
    assert row["samples"] is None or row["estimated"] == ["samples"]
    assert row["connections"] == 1
    assert "the night shift" in row["longest_transaction"]


def test_upgrade_of_older_database_names_alembic_command(
    run_cli: CliRunner, migrated_db: str
) -> None:
    with connected(migrated_db) as opened:
        age_revision(opened)
    result = run_cli("db", "upgrade", "--yes", database=migrated_db)
    assert result.code == 6
    assert "20221021_175601, which is older than 20230321_232555" in result.err
    assert "alembic upgrade 20230321_232555" in result.err
    assert "Update aspencli" not in result.err
