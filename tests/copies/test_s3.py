"""Dumps in S3: written, verified, restored, interrupted, and never overwritten."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests import zygote
from tests.copies.lab import MARK, Lab, ask, content
from tests.copies.test_plain import sql

pytestmark = pytest.mark.unpooled("restores need a direct connection")
BUCKET, PLACE = "copies-of-tests", "s3://copies-of-tests/dumps/friday"


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class Storage:
    """A bucket, and the variables with which commands reach it."""

    def __init__(self, aws: str):
        self.client = boto3.client(
            "s3",
            endpoint_url=aws,
            region_name="us-west-2",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )
        self.environment: dict[str, str | None] = {
            **{f"ASPEN_AWS_ENDPOINT_URL_{name}": aws for name in ("SOURCE", "STAGING", "LOCAL")},
            "ASPEN_AWS_REGION_SOURCE": "us-west-2",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_DEFAULT_REGION": "us-west-2",
        }

    def objects(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=BUCKET).get("Contents", ())
        return [each["Key"] for each in found]

    def read(self, key: str) -> bytes:
        body: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return body

    def put(self, key: str, body: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=body)


@pytest.fixture
def storage(aws: str) -> Iterator[Storage]:
    storage = Storage(aws)
    where: Any = {"LocationConstraint": "us-west-2"}
    storage.client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=where)
    yield storage
    for key in storage.objects():
        storage.client.delete_object(Bucket=BUCKET, Key=key)
    storage.client.delete_bucket(Bucket=BUCKET)


def test_dump_in_s3_is_verified_and_restored(lab: Lab, storage: Storage) -> None:
    env = storage.environment
    lab.ok("--env", "source", "db", "dump", PLACE, env=env)
    assert "dumps/friday/manifest.json" in storage.objects()
    assert all(MARK.encode() not in storage.read(key) for key in storage.objects())
    lab.ok("--env", "source", "db", "dumps", "verify", PLACE, env=env)
    words = ("--env", "staging", "db", "restore", PLACE, "--confirm", "staging")
    lab.ok(*words, env=env)
    assert ask(lab.target, "SELECT count(*) FROM aspen.samples") == 1_025

    again = lab("--env", "source", "db", "dump", PLACE, env=env)
    assert (again.code, "is not empty; nothing was written" in again.err) == (7, True)

    before = content(lab.target)
    data = bytearray(storage.read("dumps/friday/samples.0000.part"))
    data[len(data) // 2] ^= 1
    storage.put("dumps/friday/samples.0000.part", bytes(data))
    refused = lab(*words, env=env)
    assert (refused.code, "damaged; nothing was written" in refused.err) == (2, True)
    assert content(lab.target) == before


def test_objects_of_others_are_never_removed(lab: Lab, storage: Storage) -> None:
    storage.put("dumps/friday/notes.txt", b"mine")
    refused = lab("--env", "source", "db", "dump", PLACE, env=storage.environment)
    assert (refused.code, "is not empty" in refused.err) == (7, True)
    assert storage.objects() == ["dumps/friday/notes.txt"]


def test_dump_that_was_killed_is_no_dump_and_the_next_one_completes(
    lab: Lab, storage: Storage
) -> None:
    words = ("--env", "source", "db", "dump", PLACE)
    silent: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    env = lab.environment(**storage.environment)
    with zygote.start(words, env=env, **silent) as process:
        deadline = time.monotonic() + 60
        while not storage.objects() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    if "dumps/friday/manifest.json" not in storage.objects():
        verify = ("--env", "source", "db", "dumps", "verify", PLACE)
        none = lab(*verify, env=storage.environment)
        assert (none.code, "No complete dump found" in none.err) == (6, True)
        lab.ok(*words, env=storage.environment)
    document = json.loads(storage.read("dumps/friday/manifest.json"))
    parts = {part["file"] for table in document["tables"] for part in table["parts"]}
    assert {key.rpartition("/")[2] for key in storage.objects()} == parts | {"manifest.json"}


def test_plain_sql_in_s3_is_restored_and_sets_up_a_database(lab: Lab, storage: Storage) -> None:
    storage.put("old/db.sql.gz", gzip.compress(sql().encode()))
    place = f"s3://{BUCKET}/old/db.sql.gz"
    words = ("--env", "staging", "db", "restore", place, "--confirm", "staging")
    lab.ok(*words, env=storage.environment)
    assert ask(lab.target, "SELECT count(*) FROM aspen.locations") == 2
    missing = lab(*words[:-3], f"s3://{BUCKET}/old/none.sql", *words[-2:], env=storage.environment)
    assert (missing.code, "none.sql" in missing.err) == (6, True)


def test_invalid_s3_address_is_refused(lab: Lab) -> None:
    refused = lab("--env", "source", "db", "dump", "s3://Not_A_Bucket!/x")
    assert (refused.code, "Invalid S3 address" in refused.err) == (2, True)
