"""Operators' tasks through PgBouncer with a single connection to the server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL

from aspen.database.engine import Database
from tests.conftest import CliRunner

IDENTIFIERS = """
SELECT private_identifier, public_identifier FROM aspen.samples
 WHERE submitting_group_id = 1 ORDER BY id LIMIT 5
"""
LEFT = "SELECT count(*) FROM pg_class WHERE relname LIKE 'aspencli%'"


def identifiers(database: Database) -> dict[str, str]:
    with database.reading() as session:
        return {row[0]: row[1] for row in session.execute(sa.text(IDENTIFIERS))}


def left_behind(database: Database) -> int:
    """Return the number of our temporary tables on the server."""
    with database.reading() as session:
        return int(session.scalar(sa.text(LEFT)) or 0)


@contextmanager
def administering(database: Database) -> Iterator[psycopg2.extensions.cursor]:
    url = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = psycopg2.connect(url)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def test_bulk_update_and_undo_work_through_pooler(
    run_cli: CliRunner, seeded: Database, pooled: URL, tmp_path: Path
) -> None:
    before = identifiers(seeded)
    names, publics = list(before), list(before.values())
    wanted = dict(zip(names, [*publics[1:], publics[0]], strict=True))
    mapping, report = tmp_path / "ids.csv", tmp_path / "report.csv"
    lines = ["private_identifier,public_identifier", *(f"{k},{v}" for k, v in wanted.items())]
    mapping.write_text("\n".join(lines) + "\n")
    words = ["samples", "update-public-ids", "--group-id", "1"]
    words += ["--private-to-public-id-mapping", str(mapping)]
    shown = run_cli(*words, "--dry-run", database=pooled)
    assert (shown.code, identifiers(seeded)) == (0, before), shown.err
    written = run_cli(*words, "--yes", "--report", str(report), "-o", "json", database=pooled)
    assert (written.code, identifiers(seeded)) == (0, wanted), written.err
    assert len(report.read_text().splitlines()) >= len(wanted)
    assert left_behind(seeded) == 0
    run = json.loads(written.out)[0]["run"]
    again = run_cli(*words, "--yes", database=pooled)
    assert again.code == 0, again.err
    undone = run_cli("samples", "undo", run, "--yes", database=pooled)
    assert (undone.code, identifiers(seeded)) == (0, before), undone.err


def test_bulk_update_through_pooler_reports_bad_lines(
    run_cli: CliRunner, seeded: Database, pooled: URL, tmp_path: Path
) -> None:
    first, second = list(identifiers(seeded))[:2]
    mapping = tmp_path / "ids.csv"
    rows = [f"{first},same", f"{second},same", "absent,other"]
    mapping.write_text("\n".join(["private_identifier,public_identifier", *rows]) + "\n")
    words = ["samples", "update-public-ids", "--group-id", "1", "--yes"]
    result = run_cli(*words, "--private-to-public-id-mapping", str(mapping), database=pooled)
    assert result.code == 2, result.err
    assert "line 3" in result.err
    assert "line 4" in result.err


def test_users_import_works_through_pooler(
    run_cli: CliRunner, seeded: Database, pooled: URL, tmp_path: Path
) -> None:
    people, report = tmp_path / "people.csv", tmp_path / "report.csv"
    people.write_text("email,name,auth0_user_id,group,role\nq@x.org,Q,auth0|q,1,member\n")
    result = run_cli(
        "users", "import", str(people), "--yes", "--report", str(report), database=pooled
    )
    assert result.code == 0, result.err
    with seeded.reading() as session:
        assert session.scalar(sa.text("SELECT count(*) FROM users WHERE email = 'q@x.org'")) == 1
    assert "created" in report.read_text()


def test_session_settings_apply_in_each_pooled_transaction(run_cli: CliRunner, pooled: URL) -> None:
    code = """
for _ in range(2):
    print(*[session.scalar(sa.text("SHOW " + name)) for name in
            ("search_path", "statement_timeout", "lock_timeout", "transaction_read_only")], sep="|")
    session.commit()
"""
    result = run_cli("db", "interact", "-c", code, database=pooled)
    assert result.out.split() == ["aspen,public|1min|5s|on"] * 2, result.err


def test_session_settings_do_not_leak_to_other_pooler_clients(
    run_cli: CliRunner, pooled: URL
) -> None:
    assert run_cli("samples", "list", "--limit", "1", database=pooled).code == 0
    url = pooled.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = psycopg2.connect(url)
    with connection.cursor() as cursor:
        cursor.execute("SHOW default_transaction_read_only")
        assert cursor.fetchone() == ("off",)
        cursor.execute("SHOW search_path")
        assert cursor.fetchone() == ('"$user", public',)
    connection.close()


def test_console_through_pooler_writes_only_after_confirmation(
    run_cli: CliRunner, seeded: Database, pooled: URL
) -> None:
    code = "session.add(Pathogen(slug='XYZ', name='x')); session.commit()"
    refused = run_cli("db", "interact", "-c", code, database=pooled)
    assert refused.code == 1
    written = run_cli("db", "interact", "--write", "--yes", "-c", code, database=pooled)
    assert written.code == 0, written.err
    with seeded.reading() as session:
        assert session.scalar(sa.text("SELECT count(*) FROM pathogens WHERE slug = 'XYZ'")) == 1


def test_profile_through_pooler_explains_statements(
    run_cli: CliRunner, seeded: Database, pooled: URL
) -> None:
    code = "session.execute(sa.text('DELETE FROM sample_qc_metrics')); session.commit()"
    code += "\nprint([len(s.lineages) for s in session.scalars(select(Sample).limit(3))])"
    words = ["db", "profile", "--write", "-c", code, "--explain", "-o", "json"]
    result = run_cli(*words, database=pooled)
    assert result.code == 0, result.err
    statements = [row["fingerprint"] for row in json.loads(result.out)["statements"]]
    assert not [text for text in statements if "set_config" in text or "SAVEPOINT" in text]


def test_status_and_doctor_report_pooler(run_cli: CliRunner, pooled: URL) -> None:
    status = json.loads(run_cli("db", "status", "-o", "json", database=pooled).out)[0]
    assert (status["pooler"], status["verdict"]) == (True, "ready")
    found = run_cli("db", "doctor", "-o", "json", database=pooled)
    assert "pooler" in [row["check"] for row in json.loads(found.out)]


def test_migration_through_pooler_is_refused(run_cli: CliRunner, pooled: URL) -> None:
    shown = run_cli("db", "upgrade", "--dry-run", database=pooled)
    assert shown.code == 0, shown.err
    refused = run_cli("db", "downgrade", "base", "--yes", database=pooled)
    assert (refused.code, "pooler" in refused.err) == (3, True), refused.err


def test_stricter_database_settings_apply_through_pooler(
    run_cli: CliRunner, seeded: Database, pooled: URL
) -> None:
    name = seeded.url.database
    with administering(seeded) as cursor:
        cursor.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        cursor.execute(f"ALTER DATABASE \"{name}\" SET statement_timeout = '5s'")
    code = "session.add(Pathogen(slug='XYZ', name='x')); session.commit()"
    words = ["db", "interact", "--write", "--yes"]
    refused = run_cli(*words, "-c", code, database=pooled)
    assert (refused.code, "--override-read-only" in refused.err) == (3, True), refused.err
    written = run_cli(*words, "--override-read-only", "-c", code, database=pooled)
    assert written.code == 0, written.err
    status = json.loads(run_cli("db", "status", "-o", "json", database=pooled).out)[0]
    assert status["limits"]["statement_timeout"] == {"server": 5000, "ours": 60000, "used": 5000}
    assert status["verdict"] == "read-only"


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ({"password": "wrong"}, 4, "rejected this user"),
        ({"username": "stranger"}, 4, "rejected this user"),
        ({"database": "missing"}, 6, "database does not exist"),
    ],
)
def test_connection_refused_by_pooler_is_reported_like_server_refusal(
    run_cli: CliRunner, pooled: URL, given: dict[str, Any], code: int, words: str
) -> None:
    ended = run_cli("db", "status", database=pooled.set(**given))
    assert (ended.code, words in ended.err) == (code, True), ended.err
