"""Dumps in S3: written, verified, restored, interrupted, and never overwritten."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import time
from typing import Any

import pytest

from tests import zygote
from tests.copies.lab import MARK, Lab, Storage, ask, content
from tests.copies.test_plain import sql

pytestmark = pytest.mark.unpooled("restores need a direct connection")


def place_in(storage: Storage) -> str:
    return f"s3://{storage.target}/dumps/friday"


def dumped(storage: Storage) -> list[str]:
    return storage.objects(prefix="dumps/")


def test_dump_in_s3_is_verified_and_restored(lab: Lab, storage: Storage) -> None:
    place = place_in(storage)
    lab.ok("--env", "source", "db", "dump", place)
    assert "dumps/friday/manifest.json" in dumped(storage)
    assert all(MARK.encode() not in storage.read(key) for key in dumped(storage))
    lab.ok("--env", "source", "db", "dumps", "verify", place)
    words = ("--env", "staging", "db", "restore", place, "--confirm", "staging")
    lab.ok(*words)
    assert ask(lab.target, "SELECT count(*) FROM aspen.samples") == 1_025

    again = lab("--env", "source", "db", "dump", place_in(storage))
    assert (again.code, "is not empty; nothing was written" in again.err) == (7, True)

    before = content(lab.target)
    data = bytearray(storage.read("dumps/friday/samples.0000.part"))
    data[len(data) // 2] ^= 1
    storage.put("dumps/friday/samples.0000.part", bytes(data))
    refused = lab(*words)
    assert (refused.code, "damaged; nothing was written" in refused.err) == (2, True)
    assert content(lab.target) == before


def test_objects_of_others_are_never_removed(lab: Lab, storage: Storage) -> None:
    storage.put("dumps/friday/notes.txt", b"mine")
    refused = lab("--env", "source", "db", "dump", place_in(storage))
    assert (refused.code, "is not empty" in refused.err) == (7, True)
    assert dumped(storage) == ["dumps/friday/notes.txt"]


def test_dump_that_was_killed_is_no_dump_and_the_next_one_completes(
    lab: Lab, storage: Storage
) -> None:
    words = ("--env", "source", "db", "dump", place_in(storage))
    silent: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    env = lab.environment()
    with zygote.start(words, env=env, **silent) as process:
        deadline = time.monotonic() + 60
        while not dumped(storage) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    if "dumps/friday/manifest.json" not in dumped(storage):
        verify = ("--env", "source", "db", "dumps", "verify", place_in(storage))
        none = lab(*verify)
        assert (none.code, "No complete dump found" in none.err) == (6, True)
        lab.ok(*words)
    document = json.loads(storage.read("dumps/friday/manifest.json"))
    parts = {part["file"] for table in document["tables"] for part in table["parts"]}
    parts |= {tree["part"]["file"] for tree in document["tree_files"]}
    assert {key.rpartition("/")[2] for key in dumped(storage)} == parts | {"manifest.json"}


def test_plain_sql_in_s3_is_restored_and_sets_up_a_database(lab: Lab, storage: Storage) -> None:
    storage.put("old/db.sql.gz", gzip.compress(sql().encode()))
    place = f"s3://{storage.target}/old/db.sql.gz"
    words = ("--env", "staging", "db", "restore", place, "--confirm", "staging")
    lab.ok(*words)
    assert ask(lab.target, "SELECT count(*) FROM aspen.locations") == 2
    missing = lab(*words[:-3], f"s3://{storage.target}/old/none.sql", *words[-2:])
    assert (missing.code, "none.sql" in missing.err) == (6, True)


def test_invalid_s3_address_is_refused(lab: Lab) -> None:
    refused = lab("--env", "source", "db", "dump", "s3://Not_A_Bucket!/x")
    assert (refused.code, "Invalid S3 address" in refused.err) == (2, True)
