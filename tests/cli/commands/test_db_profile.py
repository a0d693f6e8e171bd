"""``db profile``: what it finds in real work, and that it leaves nothing of that work behind."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.database.models import User
from tests.cli.commands.conftest import Cli
from tests.cli.commands.profile_lab import Profiling

RENAME = "update aspen.users set name = 'renamed' where id = (select min(id) from aspen.users)"


def names(database: Database) -> set[str]:
    with database.reading() as session:
        return set(session.scalars(sa.select(User.name)))


def test_sql_is_read_only_by_default_and_rolled_back_unless_committed(
    profile: Profiling, seeded: Database
) -> None:
    before = names(seeded)
    refused = profile("--sql", RENAME)
    assert refused.code == 3, refused.err
    tried = profile("--write", "--sql", f"{RENAME}; select name from users;")
    assert tried.code == 0, tried.err
    assert json.loads(tried.out)["totals"]["queries"] == 2
    assert names(seeded) == before
    unsure = profile("--write", "--commit", "--sql", RENAME)
    assert unsure.code == 3
    assert names(seeded) == before
    kept = profile("--write", "--commit", "--yes", "--sql", RENAME)
    assert kept.code == 0, kept.err
    assert "renamed" in names(seeded)


def test_committing_code_is_rolled_back_but_sees_its_own_changes(
    profile: Profiling, seeded: Database
) -> None:
    before = names(seeded)
    code = (
        "user = session.scalars(select(User).limit(1)).one(); user.name = 'changed'\n"
        "session.commit()\n"
        "with engine.begin() as other: print(other.get_one(User, user.id).name)"
    )
    done = profile("--write", "-c", code)
    assert done.code == 0, done.err
    assert "changed" in done.err
    assert json.loads(done.out)["totals"]["commits"] == 2
    assert names(seeded) == before


def test_each_statement_is_shown_with_its_line_number(profile: Profiling, tmp_path: Path) -> None:
    file = tmp_path / "report.sql"
    file.write_text("-- who\nselect name from users;\n\n  select id\n from groups; select 1")
    statements = json.loads(profile(str(file)).out)["statements"]
    assert {(one["fingerprint"], one["file"], one["line"]) for one in statements} == {
        ("select name from users", str(file), 1),
        ("select id from groups", str(file), 4),
        ("select ?", str(file), 5),
    }
    assert "--sql:1" in profile("--sql", "select 1", form="table").out


def test_sql_file_runs_statement_by_statement(profile: Profiling, tmp_path: Path) -> None:
    file = tmp_path / "two.sql"
    file.write_text("select '50%;' -- ;\n;\nselect generate_series(1, 3);\n")
    document = json.loads(profile(str(file)).out)
    assert sorted(one["fingerprint"] for one in document["statements"]) == [
        "select ?",
        "select generate_series(?, ?)",
    ]
    assert document["totals"]["rows"] == 4
    file.write_text("select 1; COMMIT; drop table aspen.samples")
    assert profile("--write", str(file)).code == 2


def test_explain_reports_plan_and_spills(profile: Profiling) -> None:
    query = "select i from generate_series(1, 300000) i order by i % 7, i"
    document = json.loads(profile("--explain", "--sql", query).out)
    (one,) = document["statements"]
    assert one["plan"]["Plan"]["Node Type"] == "Sort"
    assert "spilled" in [flag["name"] for flag in one["flags"]]
    done = profile("--explain", "--sql", "select count(*) from samples", form="table")
    assert "plan" in done.err
    assert "found in" in done.err


def test_parameters_need_params_option_and_secrets_stay_hidden(
    profile: Profiling, tmp_path: Path
) -> None:
    code = "session.execute(sa.text('select :token, :city'), {'token': 's3cret', 'city': 'Oslo'})"
    script = tmp_path / "asks.py"
    script.write_text(code)
    silent = profile(str(script))
    assert "Oslo" not in silent.out + silent.err
    asked = profile("--params", str(script))
    assert json.loads(asked.out)["statements"][0]["parameters"] == {
        "token": "(hidden)",
        "city": "Oslo",
    }
    assert "s3cret" not in asked.out + asked.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "Give exactly one thing to profile"),
        (("--sql", "select 1", "-c", "1"), 2, "Give exactly one thing to profile"),
        (("--sql", "select 1", "--as", "somebody"), 2, "--as and --body require --request"),
        (("--sql", "select 1", "--commit"), 2, "--commit requires --write"),
        (("--sql", " ; "), 2, "No SQL statement was given"),
        (("--sql", "select 1", "--budget", "querys<=1"), 2, "unknown metric 'querys'"),
        (("--request", "FETCH /v2"), 2, "Invalid request: "),
        (("--request", "DELETE /v2/orgs/1/samples/1"), 3, "DELETE requests write"),
        (("--sql", "select 1/0"), 1, "division by zero"),
        (("-c", "1/0"), 1, "ZeroDivisionError"),
        (("missing.py",), 2, "Cannot read the script"),
    ],
)
def test_invalid_or_failing_profile_command_is_reported(
    profile: Profiling, words: tuple[str, ...], code: int, said: str
) -> None:
    done = profile(*words)
    assert (done.code, said in done.err) == (code, True), done.err


@pytest.mark.parametrize(
    ("option", "content", "said"),
    [
        ("--compare", "{", "is not valid JSON"),
        ("--compare", "[]", "is not a profile: not a JSON object"),
        ("--compare", '{"format": "another"}', "is not a profile: not a version 1 profile"),
        (
            "--compare",
            '{"format": "aspencli-profile", "version": 1, "statements": [{}]}',
            "is not a profile: 'fingerprint'",
        ),
        ("--compare", None, "Could not read"),
        ("--html", None, "is in a folder that does not exist"),
        ("--html", "", "is a folder"),
    ],
)
def test_unusable_files_are_reported_before_anything_runs(
    profile: Profiling,
    seeded: Database,
    tmp_path: Path,
    option: str,
    content: str | None,
    said: str,
) -> None:
    before, file = names(seeded), tmp_path / "no" / "file"
    if content is not None:
        file.parent.mkdir()
        file.write_text(content) if option == "--compare" else file.mkdir()
    done = profile(option, str(file), "--write", "--commit", "--yes", "--sql", RENAME)
    assert (done.code, said in done.err) == (2, True), done.err
    assert names(seeded) == before


def test_results_are_printed_if_html_report_cannot_be_written(
    profile: Profiling,
) -> None:
    done = profile("--html", "/dev/full", "--sql", "select 1")
    assert done.code == 1
    assert "Cannot write the report to /dev/full: No space left on device" in done.err
    assert done.json["totals"]["queries"] == 1


GUIDE = Path(__file__).parents[3] / "docs/guides/profiling.md"


def test_profiling_guide_describes_every_json_key(profile: Profiling) -> None:
    document = json.loads(profile("--params", "-c", "session.scalar(sa.text('select 1'))").out)
    described = set(re.findall(r"`([a-z0-9_]+)`", GUIDE.read_text().partition("## The JSON")[2]))
    assert {*document, *document["totals"], *document["statements"][0]} <= described


@pytest.mark.parametrize(
    ("sql", "code", "words"),
    [
        ("selec 1", 1, 'syntax error at or near "selec"'),
        ("select 1;\nselect 1/0", 1, "division by zero"),
        ("select * from nosuch", 1, 'relation "nosuch" does not exist'),
        ("select 'x", 1, "unterminated quoted string"),
        ("select '2024-13-45'::date", 1, "date/time field value out of range"),
        ("vacuum", 1, "aspencli db psql"),
        ("copy aspen.users to stdout", 2, "cannot be profiled"),
        ("copy aspen.users (name) from stdin", 2, "cannot be profiled"),
        ("select 1;\n\\timing on\nselect 2", 2, "is a psql command"),
    ],
)
def test_failing_sql_is_reported_with_server_message(
    cli: Cli, sql: str, code: int, words: str
) -> None:
    ended = cli("db", "profile", "--sql", sql)
    assert ended.code == code, ended.err
    assert words in ended.err
    assert "a bug" not in ended.err
    assert "Traceback" not in ended.err


def test_sql_file_with_byte_order_mark_is_accepted(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "bom.sql"
    file.write_bytes(b"\xef\xbb\xbfselect 1;\r\n")
    assert cli("db", "profile", str(file)).code == 0


@pytest.mark.parametrize("content", [b"select '\xff'", "select 1".encode("utf-16"), b"select\0 1"])
def test_sql_file_that_is_not_text_is_refused(cli: Cli, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "odd.sql"
    file.write_bytes(content)
    ended = cli("db", "profile", str(file))
    assert ended.code == 2
    assert str(file) in ended.err
