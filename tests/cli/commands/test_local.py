"""The local deployment, from the command line."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.local.auth0.outbox import send
from aspen.local.auth0.store import ProviderStore
from aspen.local.deployment import Deployment
from aspen.local.services import installed_parts
from aspencli.machine import endpoints_file
from tests import zygote
from tests.local.marking import mark_as_created

if TYPE_CHECKING:
    from tests.conftest import CliResult, CliRunner, Server

HEADER = "strain\tgenbank_accession\tdate\tregion\tcountry\tdivision\tlocation\n"
GOOD = "USA/CA-1/2020\tMT000001\t2020-03-05\tNorth America\tUSA\tCalifornia\tOrange County\n"
NO_DAY = "USA/CA-2/2020\tMT000002\t2020-03\tNorth America\tUSA\tCalifornia\t\n"
NO_NAME = "USA/CA-3/2020\t?\t2020-03-07\tNorth America\tUSA\tCalifornia\t\n"


@pytest.fixture
def deployment(aspen_home: Path) -> Iterator[Path]:
    """Yield the test's home directory, and stop whatever runs there at the end."""
    yield aspen_home
    Deployment(aspen_home / "data").reset()


def row(result: CliResult, part: str | None = None) -> dict[str, Any]:
    """Return the only row, or the row of the given part."""
    found: list[dict[str, Any]] = json.loads(result.out)
    (one,) = (row for row in found if part in {None, row.get("part")})
    return one


def count(database: Database, table: str) -> int:
    with database.reading() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(sa.table(table))) or 0


def test_local_postgres_starts_seeds_stops_and_resets(run_cli: CliRunner, deployment: Path) -> None:
    words = ("local", "up", "--only", "postgres", "-o", "json")
    first = run_cli(*words, timeout=120)
    assert first.code == 0, first.err
    assert "initializing" in first.err
    assert "aspencli local seed" in first.err
    part = row(first)
    assert part["url"] == f"postgresql://user_rw@127.0.0.1:{part['port']}/aspen_db"
    assert part["state"] == "running"

    assert run_cli("local", "seed", "--samples", "25").code == 0
    again = run_cli(*words)
    assert (again.code, again.err, row(again)) == (0, "", part)
    status = run_cli("local", "status", "-o", "json")
    assert row(status, "postgres")["pid"]
    assert row(status, "api")["state"] == "absent"
    check = run_cli("local", "status", "--check")
    assert check.code == 5
    assert "aws is absent, identity is absent, api is absent" in check.err
    assert "listening" in run_cli("local", "logs").out
    assert "listening" in run_cli("local", "logs", "postgres").out
    assert run_cli("local", "logs", "api").code == 6
    assert run_cli("local", "logs", "apy").code == 2

    users = run_cli("db", "psql", "--", "-tAc", "SELECT count(*) > 0 FROM users")
    assert users.out == "t\n"
    assert row(run_cli("db", "status", "-o", "json"))["samples"] == 25
    assert modules_of_local_in("pathogens", "list") == []
    endpoints_file(deployment / "data").rename(deployment / "away")  # as after an upgrade
    assert run_cli("pathogens", "list").code == 0
    (deployment / "away").rename(endpoints_file(deployment / "data"))

    follow_until_ctrl_c(run_cli)

    drop = run_cli("db", "drop", "--yes")
    assert drop.code == 0, drop.err
    assert run_cli("db", "create").code == 0
    assert run_cli("db", "upgrade").code == 0  # the local roles get their privileges again
    seed = run_cli("local", "seed", "-o", "json")
    assert row(seed)["groups"] == 3, seed.err

    refused = run_cli("local", "reset")
    assert refused.code == 3
    assert str(deployment) in refused.err or "/var/lib/aspencli" in refused.err
    down = ("local", "down", "-o", "json")
    assert row(run_cli(*down), "postgres")["was_running"] is True
    assert row(run_cli(*down), "postgres")["was_running"] is False
    assert run_cli("db", "psql").code == 5
    stopped = run_cli("pathogens", "list")
    assert (stopped.code, "aspencli local up" in stopped.err) == (5, True)
    reset = ("local", "reset", "--yes", "-o", "json")
    assert row(run_cli(*reset), "postgres")["deleted"] is True
    assert row(run_cli(*reset), "postgres")["deleted"] is False
    assert not endpoints_file(deployment / "data").exists()
    status = run_cli("local", "status", "-o", "json")
    assert {one["state"] for one in json.loads(status.out)} == {"absent"}


def test_all_local_services_start_stop_and_reset(run_cli: CliRunner, deployment: Path) -> None:
    up = run_cli("local", "up", "-o", "json", timeout=240)
    assert up.code == 0, up.err
    parts = {one["part"]: one for one in json.loads(up.out)}
    assert list(parts) == list(installed_parts())
    assert re.search(r"Ready in .* s \(postgres .*, aws .*, identity .*, api .*\)", up.err)
    assert ("Compute jobs do not run here" in up.err) is ("worker" not in parts)
    assert f"{parts['api']['url']}/v2/docs" in up.err
    assert row(run_cli("db", "status", "-o", "json"))["samples"] == 1025

    again = run_cli("local", "up", "-o", "json")
    assert (again.code, again.err, json.loads(again.out)) == (0, "", list(parts.values()))
    assert run_cli("local", "status", "--check").code == 0
    script = Path(__file__).parents[3] / "scripts" / "demo_token.py"
    token = subprocess.run(
        [sys.executable, script, "member@example.org"], capture_output=True, check=False, text=True
    )
    assert token.stdout.count(".") == 2, token.stderr  # the demo's sign-in
    assert row(run_cli("local", "seed", "--roles", "-o", "json"))["samples"] == 0
    checked = json.loads(run_cli("target", "check", "-o", "json").out)[-1]
    assert checked["part"] == "Identity provider"
    assert "127.0.0.1:" in checked["found"]
    assert ": token obtained, " in checked["found"]

    down = run_cli("local", "down", "-o", "json")
    assert [one["part"] for one in json.loads(down.out)] == [*parts][::-1]
    assert {one["how"] for one in json.loads(down.out)} == {"fast"}
    warm = run_cli("local", "up", "-o", "json", timeout=240)
    assert warm.code == 0, warm.err
    assert {one["part"]: one["state"] for one in json.loads(warm.out)} == dict.fromkeys(
        parts, "running"
    )
    deleted = run_cli("local", "reset", "--yes", "-o", "json")
    assert {one["deleted"] for one in json.loads(deleted.out)} == {True}
    assert "api" in deleted.out


def modules_of_local_in(*words: str) -> list[str]:
    """Return the modules of `aspen.local` that a command on the local target loads."""
    script = (
        "import sys\n"
        "from aspencli.cli.main import run\n"
        f"code = run({list(words)!r})\n"
        "found = sorted(name for name in sys.modules if name.startswith('aspen.local.'))\n"
        "sys.exit(code or ' '.join(found) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "ASPEN_ENV": "local"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "SC2" in done.stdout, done.stderr
    return [name for name in done.stderr.split() if name.startswith("aspen.local.")]


def follow_until_ctrl_c(run_cli: CliRunner) -> None:
    """Check that messages are shown as they are written, and that Ctrl-C is not a failure."""
    words = ["local", "logs", "-f", "--lines", "1", "postgres"]
    with zygote.start(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout
        assert child.stderr
        try:
            child.stdout.readline()  # an old one
            run_cli("db", "psql", "-c", 'SELECT 1/0 AS "in vain"')
            while "in vain" not in child.stdout.readline():
                pass
            child.send_signal(signal.SIGINT)
            assert (child.wait(120), child.stderr.read()) == (0, "")
        finally:
            child.kill()


@pytest.fixture
def own_server(aspen_home: Path, postgres: Server) -> None:
    """Mark the tests' server as the one that the deployment created."""
    mark_as_created(aspen_home, postgres.url("postgres"))


def test_commands_without_deployment_suggest_local_up(run_cli: CliRunner) -> None:
    status = run_cli("local", "status")
    assert status.code == 0
    assert "aspencli local up" in status.err
    assert run_cli("local", "status", "--check").code == 5
    assert run_cli("local", "logs").code == 6
    for words in (["local", "seed"], ["db", "status"], ["db", "interact", "-c", "1"]):
        result = run_cli(*words)
        assert result.code == 5
        assert "aspencli local up" in result.err
    assert run_cli("local", "down").code == 0


@pytest.mark.parametrize(
    "command", ["up", "down", "status", "logs", "mail", "reset", "seed", "init"]
)
def test_local_commands_refuse_other_targets(run_cli: CliRunner, command: str) -> None:
    for settings in ({"ASPEN_ENV": "staging"}, {}):
        words = ["--env", "prod"] if not settings else []
        result = run_cli(*words, "local", command, "--yes", env=settings)
        assert result.code == 2
        assert "--env local" in result.err


@pytest.mark.usefixtures("own_server")
def test_second_seed_adds_no_groups_or_users(run_cli: CliRunner, database: Database) -> None:
    first = run_cli("local", "seed", "--yes", "-o", "json", database=database)
    assert row(first)["groups"] == 3
    again = run_cli("local", "seed", "--yes", "-o", "json", database=database)
    assert (row(again)["groups"], row(again)["users"]) == (0, 0)


@pytest.mark.usefixtures("own_server")
def test_seed_of_another_database_requires_confirmation(
    run_cli: CliRunner, database: Database
) -> None:
    assert run_cli("local", "seed", database=database).code == 3
    assert count(database, "users") == 0


@pytest.mark.usefixtures("own_server")
def test_seed_generates_requested_samples(run_cli: CliRunner, seeded: Database) -> None:
    words = ["local", "seed", "--samples", "15", "--group", "2", "--seed", "7", "--yes"]
    result = run_cli(*words, "-o", "json", database=seeded)
    assert row(result)["samples"] == 15
    assert count(seeded, "samples") == 75


@pytest.mark.usefixtures("own_server")
def test_seed_of_unknown_group_exits_with_6(run_cli: CliRunner, seeded: Database) -> None:
    words = ["local", "seed", "--samples", "1", "--group", "99", "--yes"]
    assert run_cli(*words, database=seeded).code == 6


@pytest.mark.usefixtures("own_server")
def test_seed_names_invalid_lines_and_loads_others(
    run_cli: CliRunner, seeded: Database, tmp_path: Path
) -> None:
    metadata, sequences = tmp_path / "metadata.tsv", tmp_path / "sequences.fasta.gz"
    metadata.write_text(HEADER + NO_DAY + GOOD + NO_NAME)
    sequences.write_bytes(gzip.compress(b">USA/CA-1/2020\nACGT\nNN\n"))
    words = ["local", "seed", "--metadata", str(metadata), "--sequences", str(sequences), "--yes"]
    result = run_cli(*words, "-o", "json", database=seeded)
    assert result.code == 0, result.err
    added = row(result)
    assert (added["samples"], added["genomes"], added["rejected"]) == (1, 1, 2)
    assert "Line 2, column date" in result.err
    assert "Line 4, column genbank_accession" in result.err
    again = row(run_cli(*words, "-o", "json", database=seeded))
    assert (again["samples"], again["already"]) == (0, 1)


@pytest.mark.usefixtures("own_server")
def test_seed_from_file_without_valid_lines_exits_with_2(
    run_cli: CliRunner, seeded: Database, tmp_path: Path
) -> None:
    metadata = tmp_path / "metadata.tsv"
    metadata.write_text(HEADER + NO_DAY)
    result = run_cli("local", "seed", "--metadata", str(metadata), "--yes", database=seeded)
    assert result.code == 2
    assert "Line 2, column date" in result.err
    assert count(seeded, "samples") == 60


@pytest.mark.usefixtures("own_server")
@pytest.mark.parametrize(
    "words",
    [
        ["--sequences", "some.fasta"],
        ["--metadata", "absent.tsv"],
        ["--samples", "-1"],
    ],
)
def test_invalid_seed_options_exit_with_2(
    run_cli: CliRunner, seeded: Database, words: list[str]
) -> None:
    assert run_cli("local", "seed", *words, "--yes", database=seeded).code == 2


@pytest.fixture
def provider(aspen_home: Path) -> ProviderStore:
    """Return the state of the local identity provider, as if it had been started."""
    return ProviderStore(aspen_home / "data" / "identity")


def test_mail_lists_messages_newest_first_and_shows_one(
    run_cli: CliRunner, provider: ProviderStore
) -> None:
    with provider.writing() as db:
        for number, name in enumerate(("ada", "bob", "ada"), start=1):
            link = f"http://127.0.0.1:3000/v2/auth/login?invitation={number}"
            text = f"Join us:\n{link}\n\x1b[31m"
            send(db, f"{name}@example.org", f"Mail {number}", text, link=link)
    listed = run_cli("local", "mail", "-o", "json")
    rows = json.loads(listed.out)
    assert [(row["id"], row["to"], row["subject"]) for row in rows] == [
        (3, "ada@example.org", "Mail 3"),
        (2, "bob@example.org", "Mail 2"),
        (1, "ada@example.org", "Mail 1"),
    ]
    assert rows[0]["link"] == "http://127.0.0.1:3000/v2/auth/login?invitation=3"
    assert rows[0]["text"].startswith("Join us:\nhttp://")
    only = run_cli("local", "mail", "--to", "ADA@example.org", "--limit", "1", "-o", "json")
    assert json.loads(only.out) == rows[:1]
    assert "1 of 2 messages shown" in only.err

    table = run_cli("local", "mail", "-o", "table")
    assert "Mail 3" in table.out
    assert "invitation=3" not in table.out
    assert "aspencli local mail ID" in table.err
    one = run_cli("local", "mail", "3", "-o", "table")
    assert "To: ada@example.org\nSubject: Mail 3\n\nJoin us:\nhttp://127" in one.out
    assert "\x1b" not in one.out
    assert json.loads(run_cli("local", "mail", "3", "-o", "json").out) == rows[:1]


def test_mail_without_messages_or_provider_says_so(
    run_cli: CliRunner, request: pytest.FixtureRequest
) -> None:
    before = run_cli("local", "mail")
    assert (before.code, "aspencli local up" in before.err) == (6, True)
    request.getfixturevalue("provider")
    empty = run_cli("local", "mail")
    assert (empty.code, empty.err.strip()) == (0, "No messages.")
    missing = run_cli("local", "mail", "7")
    assert (missing.code, "No message has the ID 7" in missing.err) == (6, True)


@pytest.mark.parametrize(
    "words", [["0"], ["x"], ["--to", " "], ["3", "--to", "ada@example.org"]], ids=" ".join
)
@pytest.mark.usefixtures("provider")
def test_mail_refuses_invalid_arguments(run_cli: CliRunner, words: list[str]) -> None:
    assert run_cli("local", "mail", *words).code == 2
