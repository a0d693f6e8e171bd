"""The accuracy of reports and plans, cell by cell."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from aspen.database.engine import Database
from tests.cli.commands.accounts_lab import Accounts
from tests.cli.commands.conftest import Cli


def _report(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _told(path: Path, *columns: str) -> set[tuple[str, ...]]:
    return {tuple(row[column] for column in columns) for row in _report(path)}


def test_only_changed_cells_are_reported_as_updated(
    seeded: Database, cli: Cli, tmp_path: Path
) -> None:
    with seeded.engine.connect() as connection:
        (day,) = connection.execute(
            sa.text(
                "SELECT collection_date::text FROM aspen.samples"
                " WHERE private_identifier = 'RCPHL-0000001'"
            )
        ).one()
    file, report = tmp_path / "a.csv", tmp_path / "report.csv"
    file.write_text(
        f"private_identifier,public_identifier,collection_date\nRCPHL-0000001,NEW-1,{day}\n"
    )
    command = ("samples", "bulk-update", "--group-id", "1", "--from", str(file))
    for flag, done in (("--dry-run", "update"), ("--yes", "updated")):
        ended = cli(*command, flag, "--report", str(report))
        assert ended.code == 0, ended.err
        assert _told(report, "column", "outcome") == {
            ("public_identifier", done),
            ("collection_date", "unchanged"),
        }


def test_every_line_of_created_user_is_reported_as_created(accounts: Accounts) -> None:
    report = accounts.folder / "report.csv"
    rows = (
        "email,name,auth0_user_id,group,role\n"
        "new@example.org,New,auth0|new,1,member\nnew@example.org,New,auth0|new,2,admin\n"
    )
    ended = accounts.users(rows, "--yes", "--report", str(report))
    assert ended.code == 0, ended.err
    told = _report(report)
    assert {row["outcome"] for row in told} == {"created"}
    emails = [row for row in told if row["column"] == "email"]
    assert [(row["line"], row["before"], row["after"]) for row in emails] == [
        ("2", "", "new@example.org")
    ]
    assert {row["line"] for row in told if row["column"] == "role"} == {"2", "3"}


def test_skipped_rows_show_current_values_in_plan_and_report(
    seeded: Database, cli: Cli, tmp_path: Path
) -> None:
    file, report, undo = (tmp_path / name for name in ("a.csv", "report.csv", "undo.csv"))
    file.write_text(
        "private_identifier,public_identifier\n"
        "RCPHL-0000001,NEW-1\nRCPHL-0000002,NEW-2\nRCPHL-0000003,NEW-3\n"
    )
    command = ("samples", "update-public-ids", "--group-id", "1", "-f", str(file), "--yes")
    assert cli(*command, "--undo-file", str(undo)).code == 0
    statement = (
        "UPDATE aspen.samples SET public_identifier = 'THEIRS'"
        " WHERE private_identifier = 'RCPHL-0000002'"
    )
    database = Database(seeded.url, application_name="tests", writable=True)
    with database.engine.begin() as connection:
        connection.execute(sa.text(statement))
    database.dispose()
    ended = cli("samples", "undo", str(undo), "--dry-run", "--report", str(report), "-o", "json")
    assert ended.code == 7, ended.err
    planned: list[dict[str, Any]] = ended.json
    assert [(row["line"], row["action"]) for row in planned] == [
        (3, "update"),
        (4, "skip"),
        (5, "update"),
    ]
    assert planned[1]["public_identifier_before"] == "THEIRS"
    assert ("RCPHL-0000002", "THEIRS", "skip") in _told(
        report, "private_identifier", "before", "outcome"
    )


def test_report_has_row_for_prefix_of_created_group(accounts: Accounts) -> None:
    report = accounts.folder / "report.csv"
    rows = (
        "prefix,name,auth0_org_id,default_tree_location\n"
        "FRESH,A fresh laboratory,org_fresh,North America / USA / California\n"
    )
    ended = accounts.groups(rows, "--dry-run", "--report", str(report))
    assert ended.code == 0, ended.err
    told = _told(report, "column", "after", "outcome")
    assert ("prefix", "FRESH", "create") in told
    assert ("name", "A fresh laboratory", "create") in told
