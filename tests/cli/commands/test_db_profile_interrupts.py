"""``db profile`` interrupted: it ends at once, shows what ran, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from aspen.database.engine import Database
from tests import zygote
from tests.cli.commands.profile_lab import Profiling, plug_in
from tests.conftest import cli_environment

RENAME = "update users set name = 'renamed' where id = 1"
SLEEP = "select pg_sleep(50)"
SCRIPT = f"""
with engine.begin() as first:
    first.execute(sa.text("{RENAME}"))
with engine.begin() as second:
    second.execute(sa.text("{SLEEP}"))
"""
ENDPOINT = f"""
import sqlalchemy as sa
from fastapi import APIRouter

from aspen.api.deps import Db

router = APIRouter()


@router.get("/v2/slow")
async def slow(db: Db) -> None:
    await db.execute(sa.text("{RENAME}"))
    await db.commit()
    await db.execute(sa.text("{SLEEP}"))
"""
ASKED = {
    "sql": ("--write", "--explain", "--budget", "queries=0", "--sql", f"{RENAME}; {SLEEP}"),
    "script": ("--write", "--explain", "--budget", "queries=0", "-c", SCRIPT),
    "request": ("--request", "GET /v2/slow"),
}

_DIRECT = pytest.mark.unpooled("a request is profiled on the server itself")


@pytest.fixture
def server(seeded: Database) -> Iterator[Engine]:
    engine = sa.create_engine(seeded.url, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


def others(server: Engine, words: str = "") -> int:
    """Return the number of other connections, optionally only those with a matching statement."""
    query = sa.text(
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and pid <> pg_backend_pid() and query ~ :words"
    )
    with server.connect() as connection:
        return int(connection.execute(query, {"words": words}).scalar_one())


def until(server: Engine, words: str, *, there: bool) -> None:
    deadline = time.monotonic() + 120
    while (others(server, words) > 0) is not there:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("asked", "number", "code"),
    [
        ("sql", signal.SIGINT, 130),
        ("script", signal.SIGINT, 130),
        pytest.param("request", signal.SIGINT, 130, marks=_DIRECT),
        pytest.param("request", signal.SIGTERM, 143, marks=_DIRECT),
    ],
)
def test_interrupted_profile_shows_what_ran_and_rolls_back(
    seeded: Database,
    server: Engine,
    aspen_home: Path,
    tmp_path: Path,
    asked: str,
    number: signal.Signals,
    code: int,
) -> None:
    seeded.dispose()
    process = zygote.start(
        ["-o", "json", "db", "profile", *ASKED[asked]],
        env={**os.environ, **cli_environment(seeded), **plug_in(tmp_path, ENDPOINT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(server, "pg_sleep", there=True)
    process.send_signal(number)
    began = time.monotonic()
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert time.monotonic() - began < 45
    until(server, "", there=False)
    document = json.loads(out)
    assert document["interrupted"]
    statements = {one["fingerprint"]: one for one in document["statements"]}
    assert {"update users set name = ? where id = ?", "select pg_sleep(?)"} <= set(statements)
    assert statements["select pg_sleep(?)"]["failed"] == 1
    assert all(one["plan"] is None for one in statements.values())
    assert "budget" not in err
    with server.connect() as connection:
        names = connection.execute(sa.text("select name from aspen.users where id = 1")).scalars()
        assert list(names) != ["renamed"]


def test_comparison_with_interrupted_profile_warns(profile: Profiling, tmp_path: Path) -> None:
    done = profile("--sql", "select 1")
    assert done.json["interrupted"] is False
    (tmp_path / "before.json").write_text(json.dumps({**done.json, "interrupted": True}))
    done = profile("--compare", str(tmp_path / "before.json"), "--sql", "select 1")
    assert done.code == 0
    assert (
        "The earlier run was interrupted; queries that it did not reach are not compared"
        in done.err
    )
