"""The audit trail in the target's bucket: what is written, when a write is refused, what waits."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from aspencli.cli.changes.execute import witness_of
from aspencli.cli.context import AppContext
from tests import zygote
from tests.conftest import CliResult
from tests.deployments.gateway import Gateway, gateway
from tests.deployments.rig import BUCKET

if TYPE_CHECKING:
    from tests.deployments.rig import Deployment

_PROD = "aspencli/audit/prod/"
_PATIENCE_S = 60.0
_SECRET = "s3cr3t-H0rse"


@pytest.fixture
def gate(deployment: Deployment) -> Iterator[Gateway]:
    with gateway(deployment.aws) as found:
        yield found


def create_user(*more: str) -> tuple[str, ...]:
    one = uuid.uuid4().hex[:8]
    return (
        *("users", "create", "--via", "db", "--group", "1", "--name", f"New {one}"),
        *("--email", f"{one}@example.org", "--auth0-user-id", f"auth0|{one}", *more),
    )


def write(deployment: Deployment, env: str = "prod") -> CliResult:
    return deployment.run("--env", env, *create_user("--confirm", env))


def users(deployment: Deployment) -> int:
    ((count,),) = deployment.sql("SELECT count(*) FROM aspen.users")
    return int(count)


def entries(deployment: Deployment, prefix: str = _PROD) -> list[dict[str, Any]]:
    """Return the content of all objects of a trail, the oldest first."""
    storage = deployment.client("s3")
    keys = [key for key in deployment.objects() if key.startswith(prefix)]
    bodies = (storage.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys)
    return sorted(map(json.loads, bodies), key=lambda entry: int(entry["number"]))


def events(deployment: Deployment, prefix: str = _PROD) -> list[tuple[str, str | None]]:
    """Return the events of a trail with their outcomes."""
    return [
        (entry["event"]["event"], entry["event"].get("outcome"))
        for entry in entries(deployment, prefix)
    ]


def runs(deployment: Deployment, *words: str, env: str = "prod") -> list[dict[str, Any]]:
    done = deployment.run("--env", env, "history", "list", *words, "-o", "json")
    assert done.code == 0, done.err
    found: list[dict[str, Any]] = json.loads(done.out)
    return found


def shown(deployment: Deployment, run: str, env: str = "prod") -> dict[str, Any]:
    done = deployment.run("--env", env, "history", "show", run, "-o", "json")
    assert done.code == 0, done.err
    (found,) = json.loads(done.out)
    assert isinstance(found, dict)
    return found


def waiting(deployment: Deployment) -> int:
    return len(list(deployment.home.glob("state/audit/*/*.json")))


def verify(deployment: Deployment, env: str = "prod") -> CliResult:
    return deployment.run("--env", env, "history", "verify", "-o", "json")


# What is written


def test_write_has_an_entry_when_it_begins_and_one_when_it_ends(deployment: Deployment) -> None:
    done = write(deployment)
    assert done.code == 0, done.err
    begin, end = entries(deployment)
    assert (begin["number"], begin["previous"], end["number"]) == (1, None, 2)
    first, last = begin["event"], end["event"]
    assert (first["event"], first["command"], first["target"]) == (
        "started",
        "users create",
        "prod",
    )
    assert first["aws"] == "arn:aws:sts::123456789012:user/moto"
    assert first["argv"][:4] == ["--env", "prod", "users", "create"]
    assert len(first["digest"]) == 64
    assert {"user", "host", "pid", "version", "log"} <= first.keys()
    assert (last["event"], last["outcome"]) == ("ended", "written")
    run = shown(deployment, first["run"])
    assert run["aws"] == first["aws"]
    assert run["audit"] == f"s3://{BUCKET}/{_PROD} (entries 1, 2)"
    assert run["argv"].startswith("aspencli --env prod users create")
    assert verify(deployment).code == 0


def test_declined_writes_dry_runs_and_reads_have_no_entry(deployment: Deployment) -> None:
    assert deployment.run("--env", "prod", *create_user("--yes")).code == 3
    assert deployment.run("--env", "prod", "db", "downgrade", "base", "--dry-run").code == 0
    assert deployment.run("--env", "prod", "db", "current").code == 0
    assert entries(deployment) == []


def test_secrets_of_the_command_line_reach_neither_log_nor_bucket(deployment: Deployment) -> None:
    address = f"https://me:{_SECRET}@api.example.org"
    done = deployment.run("--env", "prod", "--api", address, *create_user("--confirm", "prod"))
    assert done.code == 0, done.err
    assert "https://me:***@" in json.dumps(entries(deployment))
    assert _SECRET not in json.dumps(entries(deployment))
    for path in deployment.home.rglob("*"):
        assert not path.is_file() or _SECRET not in path.read_text(errors="replace"), path


def test_failed_write_ends_with_its_outcome(deployment: Deployment) -> None:
    deployment.sql("ALTER TABLE aspen.users ADD CONSTRAINT closed CHECK (id < 0) NOT VALID")
    try:
        assert write(deployment).code == 7
    finally:
        deployment.sql("ALTER TABLE aspen.users DROP CONSTRAINT closed")
    assert events(deployment) == [("started", None), ("ended", "unfinished")]


def test_stacks_and_targets_have_their_own_trails(deployment: Deployment) -> None:
    deployment.sql('DROP DATABASE IF EXISTS "audit-stack"')
    deployment.sql('CREATE DATABASE "audit-stack" OWNER boss')
    stack = ("--env", "rdev", "--stack", "audit-stack")
    done = deployment.run(*stack, "db", "upgrade", "--yes")
    assert done.code == 0, done.err
    assert write(deployment, "staging").code == 0
    prefixes = {key.rpartition("/")[0] for key in deployment.objects()}
    assert prefixes == {"aspencli/audit/rdev/audit-stack", "aspencli/audit/staging"}


def test_bulk_run_names_its_undo_file(deployment: Deployment) -> None:
    ((name,),) = deployment.sql("SELECT private_identifier FROM aspen.samples ORDER BY id LIMIT 1")
    rename = deployment.run(
        *("--env", "prod", "samples", "update-public-ids", "--via", "db", "--group-id", "1"),
        *("-f", "-", "--confirm", "prod"),
        input=f"private_identifier,public_identifier\n{name},{uuid.uuid4().hex}\n",
    )
    assert rename.code == 0, rename.err
    begin, end = (entry["event"] for entry in entries(deployment))
    assert begin["counts"]["to_change"] == 1
    assert begin["file"]["sha256"]
    assert end["undo_file"].endswith(".csv")
    undo = deployment.run("--env", "prod", "samples", "undo", begin["run"], "--confirm", "prod")
    assert undo.code == 0, undo.err
    assert entries(deployment)[2]["event"]["undo_of"] == begin["run"]
    undone = next(run for run in runs(deployment, "--everyone") if run["run"] == begin["run"])
    assert undone["undone_by"]


def test_killed_write_leaves_its_beginning(deployment: Deployment) -> None:
    ((name,),) = deployment.sql("SELECT private_identifier FROM aspen.samples ORDER BY id LIMIT 1")
    words = (
        *("--env", "prod", "samples", "update-public-ids", "--via", "db", "--group-id", "1"),
        *("-f", "-", "--confirm", "prod"),
    )
    with closing(psycopg2.connect(deployment.superuser)) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE aspen.samples IN SHARE MODE")
        process = zygote.start(
            words,
            env=dict(deployment.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdin is not None
        process.stdin.write(f"private_identifier,public_identifier\n{name},Killed\n".encode())
        process.stdin.close()
        deadline = time.monotonic() + _PATIENCE_S
        while not entries(deployment):
            assert time.monotonic() < deadline
        process.kill()
        process.wait()
    assert events(deployment) == [("started", None)]
    (run,) = runs(deployment, "--everyone")
    assert run["outcome"] == "unknown"
    checked = deployment.run("--env", "prod", "history", "check", run["run"])
    assert checked.code == 0, checked.err
    assert events(deployment)[1:] == [("checked", "rolled back")]
    (run,) = runs(deployment, "--everyone")
    assert run["outcome"] == "rolled back"


# When the bucket is out of reach


def _denied(_method: str, path: str) -> str | None:
    return "deny" if BUCKET in path else None


def _dropped(_method: str, path: str) -> str | None:
    return "drop" if BUCKET in path else None


def _writes_denied(method: str, path: str) -> str | None:
    return "deny" if method == "PUT" and BUCKET in path else None


@pytest.mark.parametrize(
    ("rule", "code", "message"),
    [
        (_denied, 4, "AWS denied it to profile genepi-prod"),
        (_writes_denied, 4, "Could not write to the bucket genepi-db-data: AWS denied it"),
        (_dropped, 5, "AWS does not answer"),
    ],
)
def test_production_refuses_a_write_that_cannot_be_recorded(
    deployment: Deployment, gate: Gateway, rule: Any, code: int, message: str
) -> None:
    before = users(deployment)
    gate.rule = rule
    done = write(deployment.through(gate.address))
    assert (done.code, done.out) == (code, ""), done.err
    assert "Nothing was changed, because this run cannot be recorded" in done.err
    assert message in done.err
    assert users(deployment) == before
    (run,) = runs(deployment)
    assert run["outcome"] == "refused"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"ASPEN_AUDIT_BUCKET_PROD": "no-such-bucket"}, 5),
        ({"ASPEN_AUDIT_BUCKET_PROD": "x", "AWS_SHARED_CREDENTIALS_FILE": "/none"}, 4),
    ],
)
def test_production_refuses_without_bucket_or_credentials(
    deployment: Deployment, more: dict[str, str], code: int
) -> None:
    address = {"ASPEN_DATABASE_URL_PROD": deployment.superuser}
    before = users(deployment)
    done = write(deployment.having(**address, **more))
    assert (done.code, done.out) == (code, ""), done.err
    assert "cannot be recorded in the audit trail of prod" in done.err
    assert users(deployment) == before


@pytest.mark.parametrize("rule", [_denied, _writes_denied, _dropped])
def test_other_targets_queue_entries_and_send_them_with_the_next_write(
    deployment: Deployment, gate: Gateway, rule: Any
) -> None:
    there = deployment.through(gate.address)
    gate.rule = rule
    done = write(there, "staging")
    assert done.code == 0, done.err
    (line,) = [line for line in done.err.splitlines() if "queued" in line]
    assert "Send it later: aspencli --env staging history sync" in line
    assert waiting(there) == 2
    assert "2 entries wait for the audit trail of staging" in there.run("history").err
    gate.rule = lambda _method, _path: None
    assert write(there, "staging").code == 0
    assert waiting(there) == 0
    found = entries(deployment, "aspencli/audit/staging/")
    assert [entry["event"]["event"] for entry in found] == ["started", "ended"] * 2
    assert found[0]["event"]["run"] < found[2]["event"]["run"]
    assert verify(there, "staging").code == 0


def test_sync_sends_what_waits_once(deployment: Deployment, gate: Gateway) -> None:
    there = deployment.through(gate.address)
    gate.rule = _dropped
    assert write(there, "staging").code == 0
    (run,) = runs(there, env="staging")
    assert shown(there, run["run"], "staging")["audit"] == "queued: ended, started"
    failed = there.run("--env", "staging", "history", "sync")
    assert failed.code == 5, failed.err
    assert waiting(there) == 2
    gate.rule = lambda _method, _path: None
    sent = there.run("--env", "staging", "history", "sync", "-o", "json")
    assert [each["entry"] for each in json.loads(sent.out)] == [1, 2]
    again = there.run("--env", "staging", "history", "sync")
    assert (again.code, again.out) == (0, ""), again.err
    assert "No entry waits" in again.err
    assert "entries 1, 2" in shown(there, run["run"], "staging")["audit"]


def test_interrupted_sync_sends_nothing_twice(deployment: Deployment, gate: Gateway) -> None:
    there = deployment.through(gate.address)
    gate.rule = _dropped
    assert write(there, "staging").code == 0
    gate.rule = lambda method, _path: "lose" if method == "PUT" else None
    assert there.run("--env", "staging", "history", "sync").code == 0  # found to be there
    gate.rule = lambda _method, _path: None
    assert there.run("--env", "staging", "history", "sync").code == 0
    assert events(deployment, "aspencli/audit/staging/") == [
        ("started", None),
        ("ended", "written"),
    ]


def test_end_that_cannot_be_recorded_waits_and_the_write_succeeds(
    deployment: Deployment, gate: Gateway
) -> None:
    there = deployment.through(gate.address)
    gate.rule = lambda method, _path: "drop" if method == "PUT" and len(gate.writes()) > 1 else None
    before = users(deployment)
    done = write(there)
    assert done.code == 0, done.err
    assert users(deployment) == before + 1
    assert "The end of this run is not in the audit trail of prod yet" in done.err
    assert "aspencli --env prod history sync" in done.err
    assert events(deployment) == [("started", None)]
    gate.rule = lambda _method, _path: None
    assert write(there).code == 0
    first, second, *_ = (entry["event"] for entry in entries(deployment))
    assert (first["run"], second["event"], second["outcome"]) == (second["run"], "ended", "written")


@pytest.mark.parametrize("lost", [1, 1_000], ids=["first", "every"])
def test_beginning_whose_answer_is_lost_is_recorded_once(
    deployment: Deployment, gate: Gateway, lost: int
) -> None:
    gate.rule = lambda method, _: "lose" if method == "PUT" and len(gate.writes()) <= lost else None
    done = write(deployment.through(gate.address))
    assert done.code == 0, done.err
    assert events(deployment) == [("started", None), ("ended", "written")]


def test_beginning_that_may_have_been_recorded_is_followed_by_its_end(
    deployment: Deployment, gate: Gateway
) -> None:
    there = deployment.through(gate.address)
    before = users(deployment)

    def lose(method: str, path: str) -> str | None:
        if method == "PUT":
            return "lose"
        return "drop" if gate.writes() and path.endswith(".json") else None

    gate.rule = lose
    refused = write(there)
    assert refused.code == 5, refused.err
    assert users(deployment) == before
    assert events(deployment) == [("started", None)]
    gate.rule = lambda _method, _path: None
    assert there.run("--env", "prod", "history", "sync").code == 0
    assert events(deployment) == [("started", None), ("ended", "refused")]


# Targets without a bucket, and those of others


def test_target_with_only_an_address_has_a_local_log_only(deployment: Deployment) -> None:
    text = f'[targets.mylab]\nsafety = "shared"\ndatabase_url = "{deployment.superuser}"\n'
    mine = deployment.with_config(text)
    done = mine.run("--env", "mylab", *create_user("--yes"))
    assert done.code == 0, done.err
    assert deployment.objects() == []
    check = mine.run("--env", "mylab", "target", "check", "-o", "json")
    (part,) = [row for row in json.loads(check.out) if row["part"] == "Audit trail"]
    assert (part["state"], part["found"]) == ("note", "on this machine only")
    settings = json.loads(mine.run("--env", "mylab", "config", "show", "-o", "json").out)
    (setting,) = [row for row in settings if row["name"] == "audit_trail"]
    assert setting["value"] == "on this machine only"
    everyone = mine.run("--env", "mylab", "history", "list", "--everyone")
    assert everyone.code == 2
    assert "mylab has no audit trail" in everyone.err
    assert verify(mine, "mylab").code == 0


def test_run_on_plain_local_deployment_opens_no_trail() -> None:
    with AppContext() as context:
        context.options.give("env", "local")
        assert witness_of(context) is None


def test_local_deployment_set_to_production_says_that_it_has_no_trail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[targets.local]\nsafety = "production"\n')
    monkeypatch.setenv("ASPEN_CONFIG", str(config))
    with AppContext() as context:
        context.options.give("env", "local")
        witness = witness_of(context)
        assert witness is not None
        assert witness.begin({"event": "confirmed", "run": "1", "at": ""}) == {}
    assert "Audit trail of local: on this machine only." in capsys.readouterr().err


def test_run_on_local_deployment_records_the_aws_identity_that_it_used(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", deployment.aws)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "operator")
    with AppContext() as context:
        context.options.give("env", "local")
        arn = context.aws.arn  # as a copy to a bucket does before it is confirmed
        witness = witness_of(context)
        assert witness is not None
        assert witness.begin({"event": "confirmed", "run": "1", "at": ""}) == {"aws": arn}


def test_secret_without_a_bucket_means_a_local_log_only(deployment: Deployment) -> None:
    deployment.put_secret("geprod", S3_db_bucket=None)
    done = write(deployment)
    assert done.code == 0, done.err
    assert "Audit trail of prod: on this machine only." in done.err
    assert deployment.objects() == []


def test_bucket_and_folder_can_be_configured(deployment: Deployment) -> None:
    done = write(deployment.having(ASPEN_AUDIT_BUCKET_PROD=f"{BUCKET}/records/of/writes"))
    assert done.code == 0, done.err
    assert {key.rpartition("/")[0] for key in deployment.objects()} == {"records/of/writes/prod"}


def test_alias_of_production_is_recorded_in_the_trail_of_production(
    deployment: Deployment,
) -> None:
    address = {
        "ASPEN_DATABASE_URL_PROD": deployment.superuser,
        "ASPEN_DATABASE_URL_LOCAL": deployment.superuser,
    }
    done = deployment.having(**address).run(*create_user("--confirm", "prod"))
    assert done.code == 0, done.err
    assert events(deployment) == [("started", None), ("ended", "written")]
    assert entries(deployment)[0]["event"]["target"] == "local"


def test_target_check_says_where_the_trail_is_and_what_waits(
    deployment: Deployment, gate: Gateway
) -> None:
    there = deployment.through(gate.address)

    def part() -> dict[str, Any]:
        done = there.run("--env", "staging", "target", "check", "-o", "json")
        (found,) = [row for row in json.loads(done.out) if row["part"] == "Audit trail"]
        assert isinstance(found, dict)
        return found

    assert (part()["state"], part()["found"]) == (
        "ok",
        f"s3://{BUCKET}/aspencli/audit/staging/: 0 entries",
    )
    gate.rule = _denied
    assert part()["state"] == "failed"
    assert write(there, "staging").code == 0
    gate.rule = lambda _method, _path: None
    assert part()["found"].endswith("0 entries; 2 more wait")


# Several operators


def test_runs_of_all_operators_are_listed_and_shown(deployment: Deployment) -> None:
    ann, bob = deployment.as_operator("ann"), deployment.as_operator("bob")
    for who in (ann, bob, ann):
        done = write(who)
        assert done.code == 0, done.err
    for reader in (ann, bob):
        found = runs(reader, "--everyone")
        assert [run["aws"].rpartition("/")[2] for run in found] == ["ann", "bob", "ann"]
        assert {run["outcome"] for run in found} == {"written"}
        assert [run["run"] for run in found] == sorted((run["run"] for run in found), reverse=True)
    newest = bob.run("--env", "prod", "history", "list", "--everyone", "--limit", "1", "-o", "json")
    assert len(json.loads(newest.out)) == 1
    assert "Only the newest 1 run shown." in newest.err
    assert len(runs(bob)) == 1
    other = shown(bob, found[0]["run"])
    assert other["aws"] == "arn:aws:iam::123456789012:user/ann"
    assert other["command"] == "users create"
    missing = bob.run("--env", "prod", "history", "show", "20200101-000000-0000")
    assert missing.code == 6
    local = bob.run("history", "show", found[0]["run"])
    assert local.code == 6
    assert "choose its target with --env" in local.err


def test_operators_who_write_at_once_both_succeed(deployment: Deployment, gate: Gateway) -> None:
    there = deployment.through(gate.address)
    operators = [there.as_operator("ann"), there.as_operator("bob")]
    started = [
        zygote.start(
            ("--env", "prod", *create_user("--confirm", "prod")),
            env=dict(who.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for who in operators
        for _ in range(3)
    ]
    for process in started:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert len(entries(deployment)) == 12
    for who in operators:
        assert verify(who).code == 0
        assert len(runs(who, "--everyone")) == 6


def test_verify_names_an_edited_line_of_the_history(deployment: Deployment) -> None:
    ann = deployment.as_operator("ann")
    assert write(ann).code == 0
    journal = ann.home / "state" / "history" / "journal.jsonl"
    text = journal.read_text()
    journal.write_text(text.replace('"command": "users create"', '"command": "users list"'))
    found = verify(ann)
    assert found.code == 7
    (problem,) = json.loads(found.out)
    assert (problem["place"], problem["entry"]) == ("history", 1)
    assert problem["problem"].startswith("edited")
    assert "1 problem (listed above)" in found.err
    journal.write_text(text)
    assert verify(ann).code == 0


def test_verify_names_changed_objects_of_the_bucket(deployment: Deployment) -> None:
    ann, bob = deployment.as_operator("ann"), deployment.as_operator("bob")
    for who in (ann, bob, ann):
        assert write(who).code == 0
    storage = deployment.client("s3")
    keys = deployment.objects()  # the newest first
    bodies = {key: storage.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}

    def put(key: str, body: bytes) -> None:
        storage.put_object(Bucket=BUCKET, Key=key, Body=body)

    def problems(who: Deployment) -> list[tuple[Any, str]]:
        done = verify(who)
        assert done.code == (7 if done.out.strip() not in {"", "[]"} else 0), done.err
        rows = json.loads(done.out) if done.code else []
        return [(row["entry"], row["problem"].partition(":")[0]) for row in rows]

    put(keys[3], bodies[keys[3]].replace(b"bob", b"ann"))
    assert problems(ann) == problems(bob) == [(3, "edited")]
    put(keys[3], bodies[keys[3]])
    put(keys[0], bodies[keys[0]].replace(b"written", b"refused"))
    assert problems(ann) == [(6, "edited")]
    storage.delete_object(Bucket=BUCKET, Key=keys[0])
    assert problems(ann) == [(6, "missing")]
    put(keys[0], bodies[keys[0]])
    put(f"{_PROD}extra", b"x")
    assert problems(bob) == [(None, "added")]
    storage.delete_object(Bucket=BUCKET, Key=f"{_PROD}extra")
    assert problems(ann) == problems(bob) == []


def test_verify_names_a_run_that_was_removed_from_the_history(deployment: Deployment) -> None:
    ann = deployment.as_operator("ann")
    assert write(ann).code == 0
    journal = ann.home / "state" / "history" / "journal.jsonl"
    journal.write_text("")
    found = verify(ann)
    assert found.code == 7
    assert [row["problem"] for row in json.loads(found.out)] == [
        "this machine made it, but its history does not have it"
    ]
