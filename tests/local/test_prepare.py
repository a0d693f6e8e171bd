"""The roles, schema, and privileges of the local database."""

from __future__ import annotations

from pathlib import Path

import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from aspen.database.migrate import check, head, upgrade
from aspen.local.postgres.prepare import prepare
from aspen.local.postgres.server import DATABASE, READER, SUPERUSER, WRITER, Cluster
from aspen.migrations.baseline import EXTENSIONS
from tests.local.conftest import query


@pytest.fixture(scope="module")
def prepared(shared: Cluster) -> Cluster:
    assert prepare(shared).created
    return shared


def test_prepare_migrates_to_head_and_repeat_changes_nothing(prepared: Cluster) -> None:
    again = prepare(prepared)
    assert not again.created
    assert again.revision == head()
    engine = sa.create_engine(prepared.url(), poolclass=NullPool)
    assert check(engine) == []
    engine.dispose()


def test_writer_role_can_write_and_change_schema(prepared: Cluster) -> None:
    address = prepared.url(user=WRITER)
    query(address, "INSERT INTO aspen.locations (region) VALUES ('Nowhere')")
    query(address, "ALTER TABLE aspen.locations ADD COLUMN note text")
    query(address, "ALTER TABLE aspen.locations DROP COLUMN note")
    query(address, "UPDATE public.alembic_version SET version_num = version_num")


POWERS = (
    *("rolsuper", "rolcreaterole", "rolcreatedb", "rolreplication", "rolbypassrls"),
    *("pg_execute_server_program", "pg_read_server_files", "pg_write_server_files"),
)


@pytest.mark.parametrize("power", POWERS)
def test_writer_role_has_no_server_privileges(prepared: Cluster, power: str) -> None:
    held = power if power.startswith("rol") else f"pg_has_role(rolname, '{power}', 'MEMBER')"
    found = query(
        prepared.url(user=SUPERUSER), f"SELECT {held} FROM pg_roles WHERE rolname = '{WRITER}'"
    )
    assert found is False


@pytest.mark.parametrize(
    "statement",
    [
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "CREATE TEMPORARY TABLE taken (line text); COPY taken FROM PROGRAM 'id'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT lo_import('/etc/passwd')",
        "ALTER SYSTEM SET archive_command = 'id'",
        "CREATE FUNCTION run() RETURNS int AS '/bin/sh', 'x' LANGUAGE c",
        "SET ROLE postgres",
        "SET SESSION AUTHORIZATION postgres",
        "SELECT rolpassword FROM pg_authid",
    ],
)
def test_writer_role_cannot_run_programs_or_read_server_files(
    prepared: Cluster, statement: str
) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        query(prepared.url(user=WRITER), statement)


def test_writer_role_can_migrate_empty_database(prepared: Cluster) -> None:
    query(prepared.url(user=SUPERUSER), f"CREATE DATABASE fresh OWNER {WRITER}")
    for extension in EXTENSIONS:  # some of them require a superuser
        query(prepared.url("fresh", SUPERUSER), f"CREATE EXTENSION {extension} SCHEMA public")
    engine = sa.create_engine(prepared.url("fresh", WRITER), poolclass=NullPool)
    upgrade(engine)
    assert check(engine) == []
    engine.dispose()
    query(prepared.url(user=SUPERUSER), "DROP DATABASE fresh")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO aspen.locations (region) VALUES ('Nowhere')",
        "DELETE FROM aspen.samples",
        "CREATE TABLE aspen.made (id int)",
        "CREATE TABLE public.made (id int)",
    ],
)
def test_reader_role_cannot_write(prepared: Cluster, statement: str) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        query(prepared.url(user=READER), statement)


@pytest.mark.parametrize("maker", [WRITER, SUPERUSER])
def test_reader_role_can_read_tables_created_later(prepared: Cluster, maker: str) -> None:
    query(prepared.url(user=maker), f"CREATE TABLE aspen.by_{maker} AS SELECT 1 AS id")
    assert query(prepared.url(user=READER), f"SELECT id FROM aspen.by_{maker}") == 1
    query(prepared.url(user=SUPERUSER), f"DROP TABLE aspen.by_{maker}")


def test_statement_statistics_are_enabled(prepared: Cluster) -> None:
    counted = query(prepared.url(DATABASE, WRITER), "SELECT count(*) FROM pg_stat_statements")
    assert counted > 0


def test_statement_statistics_contain_no_password(prepared: Cluster) -> None:
    statements = query(
        prepared.url(user=SUPERUSER), "SELECT string_agg(query, ' ') FROM pg_stat_statements"
    )
    assert "ROLE" in statements
    assert not [word for word in prepared.passwords().values() if word in statements]


def test_prepare_keeps_database_at_unknown_newer_revision(shared: Cluster, tmp_path: Path) -> None:
    made = prepare(shared, database="beyond")
    (tmp_path / "more.py").write_text(
        f"revision = 'more'\ndown_revision = {made.revision!r}\n"
        "branch_labels = depends_on = None\n"
        "from alembic import op\n\n\n"
        "def upgrade():\n    op.execute('CREATE TABLE aspen.notices (text text)')\n"
    )
    engine = sa.create_engine(shared.url("beyond", WRITER), poolclass=NullPool)
    upgrade(engine, directory=tmp_path)
    engine.dispose()
    again = prepare(shared, database="beyond")
    assert (again.created, again.revision) == (False, "more")
    query(shared.url("beyond"), "INSERT INTO aspen.notices VALUES ('still here')")
