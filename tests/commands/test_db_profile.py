"""``db profile``: what it finds of real work, and that nothing is left of that work."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import selectinload

from db.database import Database
from db.models import Sample, User
from tests.conftest import CliRunner, cli_environment

LOOP = """
for sample in session.scalars(select(Sample).limit(200){cure}):
    list(sample.lineages)
"""
RENAME = "update aspen.users set name = 'renamed' where id = (select min(id) from aspen.users)"


TWO_HUNDRED = sa.text(
    "insert into samples select (jsonb_populate_record(more, jsonb_build_object("
    "'id', 10000 + i, 'private_identifier', 'p' || i, 'public_identifier', 'u' || i))).*"
    " from samples more, generate_series(1, 200) i where more.id = (select min(id) from samples)"
)


@pytest.fixture
def profile(seeded: Database, run_cli: CliRunner) -> Any:
    def run(*words: str, form: str = "json") -> Any:
        return run_cli("db", "profile", "-o", form, *words, env=cli_environment(seeded))

    return run


def names(database: Database) -> set[str]:
    with database.reading() as session:
        return set(session.scalars(sa.select(User.name)))


def flags(document: dict[str, Any]) -> list[str]:
    return [flag["name"] for one in document["statements"] for flag in one["flags"]]


def test_an_n_plus_one_is_named_with_line_and_cure_and_its_cure_is_seen(
    profile: Any, seeded: Database, tmp_path: Path
) -> None:
    with seeded.begin() as session:
        session.execute(TWO_HUNDRED)
    script = tmp_path / "slow.py"
    script.write_text(LOOP.format(cure=""))
    done = profile(str(script))
    assert done.code == 0, done.err
    before = json.loads(done.out)
    (one,) = [each for each in before["statements"] if each["flags"]]
    assert (one["calls"], one["lazily_loaded"]) == (200, "Sample.lineages")
    assert (one["file"], one["line"]) == (str(script), 3)
    assert one["flags"][0]["cure"] == ".options(selectinload(Sample.lineages))"
    (tmp_path / "before.json").write_text(done.out)

    script.write_text(
        "from sqlalchemy.orm import selectinload\n"
        + LOOP.format(cure=".options(selectinload(Sample.lineages))")
    )
    done = profile("--compare", str(tmp_path / "before.json"), "--budget", "n+1=0", str(script))
    assert done.code == 0, done.err
    cured = [one for one in json.loads(done.out) if "n+1 gone" in one["verdict"]]
    assert [(one["calls_before"], one["calls_after"]) for one in cured] == [(200, 0)]


def test_the_table_tells_totals_lines_and_what_is_odd(
    profile: Any, seeded: Database, tmp_path: Path
) -> None:
    with seeded.begin() as session:
        session.execute(TWO_HUNDRED)
    script = tmp_path / "slow.py"
    script.write_text(LOOP.format(cure=""))
    done = profile("--budget", "queries<=12,n+1=0", str(script), form="table")
    assert done.code == 1
    assert "201 queries (2 kinds)" in done.out
    assert "n+1" in done.out
    assert "Sample.lineages loaded one by one, 200 times" in done.err
    assert "selectinload(Sample.lineages)" in done.err
    assert "the budget is broken: queries is 201, not <= 12; n+1 is 1, not = 0" in done.err


def test_sql_is_read_only_then_rolled_back_then_kept(profile: Any, seeded: Database) -> None:
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


def test_code_that_commits_is_rolled_back_and_sees_its_own_changes(
    profile: Any, seeded: Database
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


def test_a_file_of_sql_runs_statement_by_statement(profile: Any, tmp_path: Path) -> None:
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


def test_plans_tell_of_scans_and_spills(profile: Any) -> None:
    query = "select i from generate_series(1, 300000) i order by i % 7, i"
    document = json.loads(profile("--explain", "--sql", query).out)
    (one,) = document["statements"]
    assert one["plan"]["Plan"]["Node Type"] == "Sort"
    assert "spilled" in [flag["name"] for flag in one["flags"]]
    done = profile("--explain", "--sql", "select count(*) from samples", form="table")
    assert "plan" in done.err
    assert "found in" in done.err


def test_parameters_are_shown_only_when_asked_for_and_secrets_never(
    profile: Any, tmp_path: Path
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


def test_the_page_stands_alone_and_no_statement_breaks_out_of_it(
    profile: Any, tmp_path: Path
) -> None:
    page = tmp_path / "profile.html"
    query = 'select 1 as "</script><script>alert(1)</script>"'
    done = profile("--explain", "--html", str(page), "--sql", query)
    assert done.code == 0, done.err
    text = page.read_text()
    assert text.count("</script>") == 2, "the data's, and the code's"
    assert "http://" not in text
    assert "https://" not in text
    data = text.partition('id="data">')[2].partition("</script>")[0]
    assert json.loads(data)["statements"][0]["plan"]["Plan"]
    assert len(json.loads(data)["timeline"]) == 1
    assert profile("--html", str(tmp_path / "no" / "page"), "--sql", "select 1").code == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "one thing to profile is needed"),
        (("--sql", "select 1", "-c", "1"), 2, "one thing to profile is needed"),
        (("--sql", "select 1", "--as", "somebody"), 2, "--as and --body belong to --request"),
        (("--sql", "select 1", "--commit"), 2, "--commit needs --write"),
        (("--sql", " ; "), 2, "there is no statement"),
        (("--sql", "select 1", "--budget", "querys<=1"), 2, "'querys' is not measured"),
        (("--request", "FETCH /v2"), 2, "is no request"),
        (("--request", "DELETE /v2/orgs/1/samples/1"), 3, "a DELETE writes"),
        (("--sql", "select 1/0"), 1, "division by zero"),
        (("-c", "1/0"), 1, "ZeroDivisionError"),
        (("missing.py",), 2, "cannot be read"),
    ],
)
def test_what_cannot_be_done_is_told(
    profile: Any, words: tuple[str, ...], code: int, said: str
) -> None:
    done = profile(*words)
    assert (done.code, said in done.err) == (code, True), done.err


def test_a_request_is_answered_in_here_with_every_query_behind_it(
    profile: Any, seeded: Database
) -> None:
    with seeded.reading() as session:
        user = session.scalars(
            sa.select(User).options(selectinload(User.groups)).where(User.groups.any()).limit(1)
        ).one()
        group = user.groups[0].id
        assert session.scalar(sa.select(sa.func.count(Sample.id)))
    path = f"GET /v2/orgs/{group}/pathogens/SC2/samples/"
    done = profile("--request", path, "--as", user.email)
    assert done.code == 0, done.err
    assert f"{path}: 200" in done.err
    document = json.loads(done.out)
    assert document["totals"]["queries"] >= 3
    assert any("/api/" in one["file"] and one["line"] for one in document["statements"])
    nobody = profile("--request", path)
    assert nobody.code == 1
    assert ": 401" in nobody.err


def test_a_request_that_writes_is_rolled_back_unless_it_is_kept(
    profile: Any, seeded: Database, tmp_path: Path
) -> None:
    def known() -> str | None:
        with seeded.reading() as session:
            return session.scalars(sa.select(User.gisaid_submitter_id).where(User.id == 1)).one()

    body = tmp_path / "body.json"
    body.write_text(json.dumps({"gisaid_submitter_id": "changed"}))
    words = ("--request", "PUT /v2/users/me", "--as", "1", "--body", str(body))
    before = known()
    tried = profile("--write", *words)
    assert tried.code == 0, tried.err
    assert any(
        one["fingerprint"].startswith("UPDATE") for one in json.loads(tried.out)["statements"]
    )
    assert all("/api/" in one["file"] for one in json.loads(tried.out)["statements"])
    assert known() == before
    kept = profile("--write", "--commit", "--yes", *words)
    assert kept.code == 0, kept.err
    assert known() == "changed"


GUIDE = Path(__file__).parents[2] / "docs/guides/profiling.md"


def test_the_guide_tells_what_happens(
    seeded: Database, run_cli: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = [
        dedent(block).strip()
        for block in re.findall(r"(?:^    .*\n|^\n(?=    ))+", GUIDE.read_text(), re.MULTILINE)
    ]
    (slow,) = [block for block in blocks if block.startswith("for sample in")]
    (told,) = [block for block in blocks if block.startswith("Warning: n+1")]
    (cured,) = [block for block in blocks if block.startswith("from sqlalchemy.orm")]
    monkeypatch.chdir(tmp_path)
    script, environment = tmp_path / "slow.py", cli_environment(seeded)

    def run(line: str) -> Any:
        (typed,) = [
            found
            for found in GUIDE.read_text().splitlines()
            if found.strip().startswith(f"aspencli db profile {line}")
        ]
        words = shlex.split(typed.partition(">")[0] if "> before" in typed else typed)
        return run_cli(*words[1:], env=environment)

    script.write_text(slow.partition("\n\n")[0])
    (tmp_path / "before.json").write_text(run("-o json").out)
    broken = run("--budget")
    assert broken.code == 1
    for line in told.splitlines():
        assert line in broken.err
    script.write_text(cured[: cured.index("aspencli")])
    compared = run("--compare").out
    assert "gone, n+1 gone\t60\t0" in compared
    assert "new\t0\t1" in compared


def test_the_guide_describes_every_key_of_the_json(profile: Any) -> None:
    document = json.loads(profile("--params", "-c", "session.scalar(sa.text('select 1'))").out)
    described = set(re.findall(r"`([a-z0-9_]+)`", GUIDE.read_text().partition("## The JSON")[2]))
    assert {*document, *document["totals"], *document["statements"][0]} <= described
