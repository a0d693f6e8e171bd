"""Outputs of jobs in the local deployment, which outlive its restarts and crashes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config

from aspen.local.deployment import Deployment
from aspencli.machine import Endpoints, read_endpoints

if TYPE_CHECKING:
    from tests.conftest import CliRunner

BUCKET = "genepi-db-data"
FOLDER = "phylo_run/Redwood County/OVERVIEW/{}"
UPLOADS = {
    f"{FOLDER}/builds.yaml": b"builds: []\n",
    f"{FOLDER}/include.txt": b"",
    f"{FOLDER}/logs/ncov/a b+c%20d.txt": "naïve 🌲\n".encode(),
    "raw_genbank_dump/20260101-0100/genbank.ndjson.zst": bytes(range(256)) * 40_000,
    "../../outside": b"a key is not a path",
    "pangolin_lineages/2026-01-01_0100+00:00_lineage_notes.txt": b"Lineage\tDescription\n",
}
META = {"ContentType": "text/x-output", "Metadata": {"made-by": "a job", "size": "1"}}


@pytest.fixture
def home(aspen_home: Path) -> Iterator[Path]:
    """Yield the folder of a deployment that runs, and delete it at the end."""
    yield aspen_home / "data"
    Deployment(aspen_home / "data").reset()


def endpoints(home: Path) -> Endpoints:
    found = read_endpoints(home)
    assert found is not None
    return found


def storage(home: Path) -> Any:
    """Return a client with the emulator's own credentials, as they are now."""
    from botocore.session import Session

    found = endpoints(home)
    core = Session()
    for kind in ("credentials_file", "config_file"):
        core.set_config_variable(kind, found.aws_credentials)
    session = boto3.Session(profile_name="default", botocore_session=core)
    return session.client(
        "s3",
        endpoint_url=found.services["aws"],
        config=Config(s3={"addressing_style": "path"}),
    )


def stored(home: Path) -> dict[tuple[str, str], tuple[Any, ...]]:
    """Return everything about all objects, by bucket and key."""
    s3 = storage(home)
    found = {}
    for bucket in s3.list_buckets()["Buckets"]:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket["Name"])
        for key in (one["Key"] for page in pages for one in page.get("Contents", ())):
            answer = s3.get_object(Bucket=bucket["Name"], Key=key)
            digest = hashlib.sha256(answer["Body"].read()).hexdigest()
            about = (answer["ContentLength"], digest, answer["LastModified"])
            found[bucket["Name"], key] = (*about, answer["ContentType"], answer["Metadata"])
    return found


def listed(run_cli: CliRunner) -> list[dict[str, Any]]:
    done = run_cli("files", "list", "-o", "json")
    assert done.code == 0, done.err
    rows: list[dict[str, Any]] = json.loads(done.out)
    return rows


def part(run_cli: CliRunner, name: str) -> dict[str, Any]:
    rows = json.loads(run_cli("local", "status", "-o", "json").out)
    return next(row for row in rows if row["part"] == name)


def wait_until_restarted(run_cli: CliRunner, name: str, pid: int) -> None:
    deadline = time.monotonic() + 90
    while True:
        found = part(run_cli, name)
        if found["state"] == "running" and found["pid"] != pid:
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def token() -> str:
    """Return a sign-in of a member of group 1."""
    script = Path(__file__).parents[3] / "scripts" / "demo_token.py"
    words = [sys.executable, str(script), "member@example.org"]
    return subprocess.run(words, capture_output=True, check=True, text=True).stdout


def tree(run_cli: CliRunner, number: int, out: Path) -> bytes:
    words = ("phylo-trees", "download", str(number), "--group", "1", "-O", str(out), "--force")
    done = run_cli(*words, env={"ASPEN_TOKEN": token()})
    assert done.code == 0, done.err
    return out.read_bytes()


@pytest.mark.timeout(600)
def test_outputs_are_identical_after_restart_and_after_crash_of_emulator(
    run_cli: CliRunner, home: Path, tmp_path: Path
) -> None:
    up = ("local", "up", "-o", "json")
    assert run_cli(*up, timeout=240).code == 0
    first = next(row for row in listed(run_cli) if row["kind"] == "tree")
    number = first["tree"]
    uploads = {key.format(first["run"]): body for key, body in UPLOADS.items()}
    s3 = storage(home)
    for key, body in uploads.items():
        s3.put_object(Bucket=BUCKET, Key=key, Body=body, **META)
    check = run_cli("files", "check", "--min-age", "0s", "-o", "json")
    assert [row["key"] for row in json.loads(check.out)] == [
        "raw_genbank_dump/20260101-0100/genbank.ndjson.zst"
    ]

    objects, rows = stored(home), listed(run_cli)
    saved = tree(run_cli, number, tmp_path / "tree.json")
    assert {key for bucket, key in objects if bucket == BUCKET} >= uploads.keys()
    assert {row["key"] for row in rows} == {key for bucket, key in objects if bucket == BUCKET}

    for _ in range(2):
        pid = part(run_cli, "aws")["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until_restarted(run_cli, "aws", pid)
        assert (stored(home), listed(run_cli)) == (objects, rows)
    assert tree(run_cli, number, tmp_path / "tree.json") == saved

    assert run_cli("local", "down").code == 0
    stopped = run_cli("files", "list")
    assert (stopped.code, stopped.out) == (5, "")
    assert run_cli(*up, timeout=240).code == 0
    assert (stored(home), listed(run_cli)) == (objects, rows)
    assert tree(run_cli, number, tmp_path / "tree.json") == saved

    for key, body in uploads.items():
        out = tmp_path / "saved"
        got = run_cli("files", "download", key, "-O", str(out), "--force")
        assert got.code == 0, got.err
        assert out.read_bytes() == body

    copy = tmp_path / "auspice" / "dist"
    copy.mkdir(parents=True)
    (copy / "index.html").write_text("<title>a stand-in</title>")
    words = ("--auspice", str(copy), "--print-url", "--for", "0s")
    shown = run_cli(
        *("phylo-trees", "open", str(number), "--group", "1", *words), env={"ASPEN_TOKEN": token()}
    )
    assert shown.code == 0, shown.err
    assert shown.out.startswith("url\nhttp://127.0.0.1:")


@pytest.mark.timeout(300)
def test_object_is_whole_or_absent_after_crash_of_emulator(
    run_cli: CliRunner, home: Path, tmp_path: Path
) -> None:
    assert run_cli("local", "up", "-o", "json", timeout=240).code == 0
    before = stored(home)
    script = (
        "import sys; from pathlib import Path; from tests.cli.commands.test_files_local import *\n"
        "s3 = storage(Path(sys.argv[1]))\n"
        "for number in range(1000):\n"
        "    s3.put_object(Bucket=BUCKET, Key=f'x/{number}', Body=str(number).encode() * 50_000)\n"
        "    print(number, flush=True)\n"
    )
    root = Path(__file__).parents[3]
    writer = subprocess.Popen(
        [sys.executable, "-c", script, str(home)],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert writer.stdout is not None
    written = [int(writer.stdout.readline()) for _ in range(5)]
    pid = part(run_cli, "aws")["pid"]
    os.kill(pid, signal.SIGKILL)
    written += [int(line) for line in writer.communicate(timeout=120)[0].split()]
    wait_until_restarted(run_cli, "aws", pid)
    after = stored(home)
    assert {place: after[place] for place in before} == before
    new = {key: about for (_bucket, key), about in after.items() if key.startswith("x/")}
    assert new.keys() >= {f"x/{number}" for number in written}
    assert len(new) <= len(written) + 1  # the answer of the last may have been lost
    for key, about in new.items():
        body = key.removeprefix("x/").encode() * 50_000
        assert about[:2] == (len(body), hashlib.sha256(body).hexdigest()), key
