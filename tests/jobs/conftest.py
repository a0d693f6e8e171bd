"""A cloud deployment with jobs, and an operator whose commands run in this process."""

from __future__ import annotations

import datetime as dt
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspencli.cli.main import run
from tests.cli.commands.ending import Ended, ended
from tests.jobs.lab import CloudLab, add_run, reset
from tests.moto import running_moto

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
"""The time at the start of a test; `current_time` sets it: modules are loaded much earlier."""


@dataclass
class Operator:
    """An operator, with the database and the jobs of the target ``staging``."""

    cloud: CloudLab
    database: Database
    _monkeypatch: pytest.MonkeyPatch
    _capsys: pytest.CaptureFixture[str]
    target: Sequence[str] = ("--env", "staging")

    def __call__(self, *words: str, **env: str) -> Ended:
        """Run a command in this process."""
        for name, value in env.items():
            self._monkeypatch.setenv(name, value)
        given = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        self._monkeypatch.setattr(sys, "stdin", given)
        self._capsys.readouterr()
        arguments = (*self.target, *words)
        return ended(arguments, run(arguments), self._capsys)

    def json(self, *words: str) -> Any:
        ended = self(*words, "-o", "json")
        assert ended.code == 0, ended.err
        return ended.json

    def add_run(
        self,
        status: str,
        started: dt.datetime,
        *,
        ended: dt.datetime | None = None,
        group: int = 1,
        name: str = "Cannery",
        kind: str = "PHYLO_RUN",
    ) -> int:
        """Insert a run, and return its ID."""
        return add_run(
            self.database, status, started, ended=ended, group=group, name=name, kind=kind
        )

    def row(self, run: int) -> tuple[str, dt.datetime | None]:
        """Return the status and the end of a run."""
        query = "SELECT workflow_status, end_datetime FROM aspen.workflows WHERE id = :id"
        with self.database.reading() as session:
            status, ended = session.execute(sa.text(query), {"id": run}).one()
        return str(status), ended

    def statuses(self) -> dict[int, str]:
        """Return the status of every run."""
        query = "SELECT id, workflow_status FROM aspen.workflows ORDER BY id"
        with self.database.reading() as session:
            return {row[0]: row[1] for row in session.execute(sa.text(query))}

    def prefix(self, group: int = 1) -> str:
        with self.database.reading() as session:
            query = sa.text("SELECT prefix FROM aspen.groups WHERE id = :id")
            return str(session.scalar(query, {"id": group}))

    def group(self, group: int = 1) -> str:
        with self.database.reading() as session:
            query = sa.text("SELECT name FROM aspen.groups WHERE id = :id")
            return str(session.scalar(query, {"id": group}))


@pytest.fixture(autouse=True)
def current_time(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    for module in (sys.modules[__name__], request.module):
        if hasattr(module, "NOW"):
            monkeypatch.setattr(module, "NOW", now)


@pytest.fixture(scope="session")
def _aws() -> Iterator[str]:
    with running_moto() as address:
        yield address


@pytest.fixture
def cloud(_aws: str) -> CloudLab:
    reset(_aws)
    lab = CloudLab(_aws)
    lab.deploy()
    return lab


@pytest.fixture
def operator(
    cloud: CloudLab,
    seeded: Database,
    aspen_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Operator:
    for name, value in cloud.environment(seeded.url).items():
        monkeypatch.setenv(name, value)
    config = aspen_home / "config" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(cloud.config())
    monkeypatch.setenv("ASPEN_CONFIG", str(config))
    return Operator(cloud, seeded, monkeypatch, capsys)
