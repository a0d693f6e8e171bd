"""The AWS stand-in, as boto3 sees it."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from aspencli.errors import AspenError
from local.aws.content import (
    BUCKETS,
    JOBS,
    REGION,
    Content,
    Surroundings,
    made_values,
    parameter,
    read_content,
    standard_content,
)
from local.aws.objects import OBJECTS, ObjectFolder
from local.ports import HOST, free_port

AROUND = Surroundings(
    database="127.0.0.1:5432",
    passwords={"postgres": "p", "user_rw": "w", "user_ro": "r"},
    issuer="http://127.0.0.1:3031",
)
TREE = ("genepi-db-data", "phylo_runs/1/tree.json", b'{"version": "v2"}')


@dataclass
class StandIn:
    """A running one."""

    folder: Path
    address: str
    process: subprocess.Popen[bytes]

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.address,
            region_name=REGION,
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    folder = tmp_path_factory.mktemp("aws")
    standard_content(folder, AROUND).write(folder)
    ObjectFolder(folder / OBJECTS).put(*TREE)
    port = free_port(hash(folder))
    words = [sys.executable, "-m", "local.aws", "--port", str(port), "--folder", str(folder)]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        address = f"http://{HOST}:{port}"
        while not answers(address):
            assert process.poll() is None
            time.sleep(0.02)
        yield StandIn(folder, address, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/moto-api/", timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_the_secret_tells_how_the_service_is_configured(stand_in: StandIn) -> None:
    found = stand_in.client("secretsmanager").get_secret_value(SecretId="genepi-config")
    config = json.loads(found["SecretString"])
    assert config["DB_address"] == "127.0.0.1:5432"
    assert (config["DB_rw_username"], config["DB_rw_password"]) == ("user_rw", "w")
    assert config["AUTH0_DOMAIN"] == "http://127.0.0.1:3031"
    assert config["AUTH0_CLIENT_ID"] == "aspencli-local"
    assert config["S3_db_bucket"] in BUCKETS
    assert len(config["FLASK_SECRET"]) >= 32
    assert all(config.values())  # the service takes an empty value for an absent one


def test_each_job_has_its_parameter_and_can_be_started(stand_in: StandIn) -> None:
    for job in JOBS:
        name = f"/genepi/local/localstack/{job}"
        assert name == parameter(job)
        found = stand_in.client("ssm").get_parameter(Name=name)
        told = json.loads(found["Parameter"]["Value"])
        assert told["Input"]["Run"]["genepi_config_secret_name"] == "genepi-config"
        functions = stand_in.client("stepfunctions")
        started = functions.start_execution(
            stateMachineArn=told["StateMachineArn"], name=f"run-{job}", input="{}"
        )
        told = functions.describe_execution(executionArn=started["executionArn"])
        assert told["status"] in {"RUNNING", "SUCCEEDED"}


def test_the_buckets_hold_the_kept_files(stand_in: StandIn) -> None:
    s3 = stand_in.client("s3")
    assert {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]} == set(BUCKETS)
    bucket, key, body = TREE
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == body


def test_a_signed_address_can_be_fetched_without_credentials(stand_in: StandIn) -> None:
    s3 = stand_in.client("s3")
    s3.put_object(Bucket=BUCKETS[0], Key="a b/ü.fasta", Body=b">a\nACGT\n")
    where = {"Bucket": BUCKETS[0], "Key": "a b/ü.fasta"}
    address = s3.generate_presigned_url("get_object", Params=where, ExpiresIn=60)
    with urllib.request.urlopen(address, timeout=10) as answer:
        assert answer.read() == b">a\nACGT\n"


def test_what_is_made_up_stays_and_is_for_the_owners_eyes(tmp_path: Path) -> None:
    made = made_values(tmp_path)
    assert made_values(tmp_path) == made
    content = standard_content(tmp_path, AROUND)
    content.write(tmp_path)
    assert read_content(tmp_path) == content
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    assert made_values(tmp_path / "another") != made


@pytest.mark.parametrize("text", [None, "{", "[]", '{"secrets": {}}'])
def test_a_damaged_content_is_told(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "content.json").write_text(text)
    with pytest.raises(AspenError, match="cannot be read"):
        read_content(tmp_path)
    words = [sys.executable, "-m", "local.aws", "--port", "1", "--folder", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_content_of_ones_own(tmp_path: Path) -> None:
    own = Content(secrets={"s": {"a": "b"}}, parameters={}, machines=(), buckets=("one",))
    own.write(tmp_path)
    assert read_content(tmp_path) == own
