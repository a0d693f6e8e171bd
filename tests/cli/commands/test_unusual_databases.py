"""Bulk commands on unusual databases: another encoding, or fewer privileges."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from aspen.database.engine import Database
from tests.cli.commands.conftest import Cli
from tests.conftest import CliRunner, Server, migrate, seed

_PROVIDERS = 150_000  # the first version with locale providers


@pytest.fixture
def latin(postgres: Server) -> Iterator[str]:
    """Yield a seeded database in LATIN1."""
    name = f"aspen_test_{uuid.uuid4().hex[:12]}"
    engine = sa.create_engine(
        postgres.url("postgres"), poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        version = int(connection.exec_driver_sql("SHOW server_version_num").scalar_one())
        provider = "LOCALE_PROVIDER libc" if version >= _PROVIDERS else ""
        connection.exec_driver_sql(
            f"CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' "
            f"LC_CTYPE 'C' {provider}"
        )
    migrate(postgres.url(name))
    seed(postgres.url(name))
    yield postgres.url(name)
    postgres.drop(name)


def test_characters_outside_database_encoding_are_named(
    latin: str, run_cli: CliRunner, tmp_path: Path
) -> None:
    mapping = tmp_path / "ids.csv"
    mapping.write_text(
        "private_identifier,public_identifier\n"
        "RCPHL-0000001,café\nRCPHL-0000002,Ω-2\nRCPHL-0000003,€-3\n",
        encoding="utf-8",
    )
    words = ["samples", "update-public-ids", "--via", "db", "--group-id", "1", "-f", str(mapping)]
    done = run_cli(*words, "--yes", database=latin)
    assert done.code == 2, done.err
    assert "line 3: contains Ω (U+03A9), which the database's encoding" in done.err
    assert "line 4: contains € (U+20AC), which the database's encoding" in done.err
    assert "line 2" not in done.err
    user = ("--email", "x@example.org", "--auth0-user-id", "auth0|x", "--group", "1", "--yes")
    done = run_cli("users", "create", "--via", "db", "--name", "Ωmega", *user, database=latin)
    assert done.code == 2, done.err
    assert "The database's encoding cannot store Ω (U+03A9); nothing was written" in done.err
    mapping.write_text(
        "private_identifier,public_identifier\nRCPHL-0000001,café\n", encoding="utf-8"
    )
    done = run_cli(*words, "--yes", database=latin)
    assert done.code == 0, done.err


@pytest.mark.parametrize("command", ["update-public-ids", "bulk-update"])
def test_missing_temporary_table_privilege_suggests_grant(
    command: str, seeded: Database, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    role, name = f"aspen_test_{uuid.uuid4().hex[:8]}", seeded.url.database
    statements = (
        f"CREATE ROLE {role} LOGIN",
        f'REVOKE TEMPORARY ON DATABASE "{name}" FROM PUBLIC',
        f"GRANT USAGE ON SCHEMA aspen TO {role}",
        f"GRANT ALL ON ALL TABLES IN SCHEMA aspen TO {role}",
    )
    with seeded.begin() as session:
        for statement in statements:
            session.execute(sa.text(statement))
    # A session starts as the role in the address, and continues as the one without the privilege.
    with seeded.begin() as session:
        session.execute(sa.text(f'ALTER ROLE CURRENT_USER IN DATABASE "{name}" SET role = {role}'))
    mapping = tmp_path / "ids.csv"
    mapping.write_text("private_identifier,public_identifier\nRCPHL-0000001,X-1\n")
    options = ["--from"] if command == "bulk-update" else ["--via", "db", "-f"]
    try:
        done = cli("samples", command, "--group-id", "1", *options, str(mapping))
    finally:
        with seeded.begin() as session:
            session.execute(sa.text("RESET role"))
            session.execute(sa.text(f'ALTER ROLE CURRENT_USER IN DATABASE "{name}" RESET role'))
            session.execute(sa.text(f"DROP OWNED BY {role}"))
            session.execute(sa.text(f"DROP ROLE {role}"))
    assert done.code == 4, done.err
    assert "may not create temporary tables" in done.err
    assert "GRANT TEMPORARY ON DATABASE" in done.err
