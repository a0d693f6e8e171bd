"""Nothing is written without consent: by SQL, by Python, by psql, directly and through a pooler."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL

from aspen.database.engine import Database
from aspen.local.postgres.binaries import find_binaries
from tests.conftest import CliRunner
from tests.poolers.conftest import WAYS
from tests.poolers.tricks import CODES, RUNNER

NAMES = "SELECT string_agg(slug, ' ' ORDER BY slug) FROM aspen.pathogens"
ADD = "INSERT INTO aspen.pathogens (slug, name) VALUES ('XYZ', 'x')"


def contents(database: Database) -> tuple[object, ...]:
    """Return what an attempt might change: pathogens, tables, revisions, large objects."""
    with database.reading() as session:
        return tuple(
            session.scalar(sa.text(query))
            for query in (
                NAMES,
                "SELECT count(*) FROM pg_class WHERE relnamespace = 'aspen'::regnamespace",
                "SELECT version_num FROM public.alembic_version",
                "SELECT count(*) FROM pg_largeobject_metadata",
            )
        )


def environment(url: URL) -> dict[str, str]:
    path = os.pathsep.join([os.environ["PATH"], str(find_binaries().bindir)])
    return {"ASPEN_DATABASE_URL_PROD": url.render_as_string(hide_password=False), "PATH": path}


@pytest.mark.parametrize(
    ("way", "words"),
    [
        *((way, ["interact"]) for way in WAYS),
        *((way, ["profile"]) for way in ("direct", "transaction")),
        *((way, ["profile", "--write"]) for way in ("direct", "session,ignore")),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_python_code_cannot_write_without_confirmation(
    run_cli: CliRunner,
    seeded: Database,
    through: Callable[[str, URL], URL],
    tmp_path: Path,
    way: str,
    words: list[str],
) -> None:
    script, codes = tmp_path / "tricks.py", tmp_path / "codes.json"
    script.write_text(RUNNER)
    codes.write_text(json.dumps(CODES))
    before = contents(seeded)
    confirm = ["--confirm", "prod", "--reason", "test"] if "--write" in words else []
    result = run_cli(
        *("--env", "prod", "db", *words, *confirm, str(script), str(codes)),
        env=environment(through(way, seeded.url)),
        timeout=240,
    )
    said = (result.out + result.err).splitlines()
    tried = {line.split()[0] for line in said if line.split() and line.split()[0].isdigit()}
    assert len(tried) >= len(CODES), result.err
    assert contents(seeded) == before, result.out + result.err


@pytest.fixture
def reader(seeded: Database) -> str:
    """Create a role that reads everything and writes nothing, which our own role may assume."""
    url = seeded.url.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SELECT FROM pg_roles WHERE rolname = 'user_ro'")
        if not cursor.rowcount:
            cursor.execute("CREATE ROLE user_ro")
        cursor.execute("GRANT USAGE ON SCHEMA aspen, public TO user_ro")
        cursor.execute("GRANT SELECT ON ALL TABLES IN SCHEMA aspen, public TO user_ro")
        cursor.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    connection.close()
    return "user_ro"


PSQL: tuple[list[str], ...] = (
    ["-c", ADD],
    ["-c", f"begin read write; {ADD}; commit"],
    ["-c", "begin read write", "-c", ADD, "-c", "commit"],
    ["-c", f"set default_transaction_read_only = off; {ADD}"],
    ["-c", "set default_transaction_read_only = off", "-c", ADD],
    ["-c", f"commit; begin read write; {ADD}; commit"],
    ["-c", f"set role none; begin read write; {ADD}; commit"],
    ["-c", f"reset role; begin read write; {ADD}; commit"],
    ["-c", f"reset session authorization; begin read write; {ADD}; commit"],
    ["-c", f"select set_config('role', 'none', false); begin read write; {ADD}; commit"],
    ["-c", f"do $$ begin execute 'set ro' || 'le none'; end $$; begin read write; {ADD}; commit"],
    ["-c", f'set "role" to none; begin read write; {ADD}; commit'],
    ["-c", "select 'set ro' || 'le none' \\gexec", "-c", f"begin read write; {ADD}; commit"],
    ["-v", "a=set role none", "-c", f":a; begin read write; {ADD}; commit"],
    ["-X", "-c", f"begin read write; {ADD}; commit"],
    ["-f", "-"],
    [],
)


@pytest.mark.parametrize("words", PSQL, ids=" ".join)
def test_read_only_psql_with_reader_role_cannot_write(
    run_cli: CliRunner, seeded: Database, reader: str, words: list[str]
) -> None:
    before = contents(seeded)
    stdin = f"set role none;\nbegin read write;\n{ADD};\ncommit;\n"
    result = run_cli(
        *("--env", "prod", "db", "psql", "--", *words),
        env=environment(seeded.url),
        input=stdin if words in ([], ["-f", "-"]) else None,
    )
    assert result.code in {1, 3}, result.err
    assert contents(seeded) == before


def test_read_only_psql_uses_reader_role(run_cli: CliRunner, seeded: Database, reader: str) -> None:
    words = ["--env", "prod", "db", "psql", "--", "-tAc", "SELECT current_user FROM users LIMIT 1"]
    assert run_cli(*words, env=environment(seeded.url)).out.strip() == reader
    denied = run_cli(*words[:-1], f"begin read write; {ADD}; commit", env=environment(seeded.url))
    assert (denied.code, "permission denied" in denied.err) == (1, True)


@pytest.mark.parametrize("way", WAYS[1:])
def test_read_only_psql_of_production_through_pooler_is_refused(
    run_cli: CliRunner, seeded: Database, through: Callable[[str, URL], URL], way: str
) -> None:
    before = contents(seeded)
    for words in ([ADD], [f"begin read write; {ADD}; commit"]):
        result = run_cli(
            "--env", "prod", "db", "psql", "-c", *words, env=environment(through(way, seeded.url))
        )
        assert result.code == 3, result.err
    assert contents(seeded) == before


@pytest.mark.parametrize("way", WAYS[1:3])
def test_read_only_psql_works_through_session_pooler(
    run_cli: CliRunner, seeded: Database, through: Callable[[str, URL], URL], way: str
) -> None:
    local = {
        "ASPEN_DATABASE_URL_LOCAL": environment(through(way, seeded.url))["ASPEN_DATABASE_URL_PROD"]
    }
    shown = run_cli("db", "psql", "--", "-tAc", "SELECT count(*) > 0 FROM users", env=local)
    assert (shown.code, shown.out.strip()) == (0, "t"), shown.err
    refused = run_cli("db", "psql", "-c", ADD, env=local)
    assert (refused.code, "read-only transaction" in refused.err) == (1, True)


@pytest.mark.parametrize("way", ["transaction", "transaction,ignore"])
def test_psql_write_through_pooler_warns_about_unset_search_path(
    run_cli: CliRunner, seeded: Database, through: Callable[[str, URL], URL], way: str
) -> None:
    query = "select count(*) from aspen.pathogens"
    result = run_cli(
        *("db", "psql", "--write", "--yes", "-c", query), database=through(way, seeded.url)
    )
    assert result.code == 0, result.err
    assert "write aspen.samples, not samples" in result.err
