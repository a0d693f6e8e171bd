"""The service's list and bulk change of samples, compared with PostgreSQL's own time for them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.local.postgres.binaries import find_binaries
from aspen.local.seed import seed_base, seed_samples
from benchmarks.speed.lab import running
from benchmarks.speed.measuring import Comparison, Sample, compare, run
from benchmarks.speed.serving import Server, free_port, serving
from tests.api.conftest import Provider, settings_of_tests

SMALL, FULL = (10_000,), (10_000, 100_000)  # the number of samples in group 1, and in group 2
LIST, FIRST_BYTE, PUT = "GET samples", "GET samples, first byte", "PUT samples, all renamed"
_BARE, _BY_HAND = "PostgreSQL's JSON, bare ASGI app", r"psql: \copy, UPDATE by id"
_MEMBERS = {1: "gadmin", 2: "g2admin"}
_FIRST_BYTE_S, _MOST_MB = 1.0, 200.0
_LIST_GOAL, _PUT_GOAL = 2.0, 4.0
_SCRIPT = """
BEGIN;
CREATE TEMPORARY TABLE mapping (id integer, public_identifier varchar);
\\copy mapping FROM '{mapping}' WITH (FORMAT csv)
UPDATE aspen.samples s SET public_identifier = m.public_identifier FROM mapping m
 WHERE s.submitting_group_id = 1 AND s.id = m.id;
COMMIT;
"""
_KEPT = ("id", "collection_date", "private", "private_identifier", "sequencing_date")


class Bench:
    """Groups of samples, the service that serves them, and the baseline.

    Args:
        folder: The folder for files.
        owner: The database.
        ours: The service, as called by a member of each group.
        bare: The baseline for lists.
    """

    def __init__(self, folder: Path, owner: Database, ours: Mapping[int, Server], bare: Server):
        self._folder = folder
        self._owner = owner
        self._ours = ours
        self._bare = bare
        self._runs = 0

    def lists(self, group: int, rounds: int) -> Iterator[Comparison]:
        """Measure the list of a group: all of it, and its first byte.

        Raises:
            RuntimeError: It differs from the baseline's answer.
        """
        path = f"/v2/orgs/{group}/pathogens/SC2/samples/"
        listed = self._ours[group].json(path)
        if listed != self._bare.json(f"/{group}"):
            raise RuntimeError(f"the list of group {group} is not what the baseline has")
        rows = len(listed["samples"])
        del listed
        firsts: list[float] = []

        def ours() -> Sample:
            sample, first = self._ours[group].get(path)
            firsts.append(first)
            return sample

        def theirs() -> Sample:
            return self._bare.get(f"/{group}")[0]

        whole = compare(LIST, ours, _BARE, theirs, goal=_LIST_GOAL, rounds=rounds)
        yield replace(whole, rows=rows, samples=rows, goal_mb=_MOST_MB)
        first = Sample(median(firsts), whole.ours.peak_mb)
        limit = Sample(_FIRST_BYTE_S, 0.0)
        seconds = f"{_FIRST_BYTE_S:g} s"
        yield Comparison(FIRST_BYTE, seconds, first, limit, 1.0, rows, rows, rounds)

    def renames(self, rounds: int) -> Comparison:
        """Measure one request that gives all samples of group 1 new public identifiers."""
        rows = len(self._ids())
        found = compare(PUT, self._put, _BY_HAND, self._by_hand, goal=_PUT_GOAL, rounds=rounds)
        return replace(found, rows=rows, samples=rows)

    def _put(self) -> Sample:
        self._runs += 1
        path = "/v2/orgs/1/pathogens/SC2/samples/"
        records = [self._record(sample) for sample in self._ours[1].json(path)["samples"]]
        body = json.dumps({"samples": records}).encode()
        self._settle()
        return self._ours[1].put(path, body)

    def _record(self, sample: dict[str, Any]) -> dict[str, Any]:
        return {
            **{key: sample[key] for key in _KEPT},
            "collection_location": sample["collection_location"]["id"],
            "public_identifier": self._name(sample["id"]),
        }

    def _by_hand(self) -> Sample:
        self._runs += 1
        mapping, script = self._folder / "mapping.csv", self._folder / "by_hand.sql"
        mapping.write_text("".join(f"{number},{self._name(number)}\n" for number in self._ids()))
        script.write_text(_SCRIPT.format(mapping=mapping))
        url = self._owner.url
        environment = {
            "PGHOST": url.host or "",
            "PGPORT": str(url.port),
            "PGUSER": url.username or "",
            "PGPASSWORD": str(url.password),
            "PGDATABASE": url.database or "",
        }
        psql = str(find_binaries().bindir / "psql")
        self._settle()
        return run([psql, "-qX", "-v", "ON_ERROR_STOP=1", "-f", str(script)], environment)

    def _ids(self) -> list[int]:
        with self._owner.reading() as session:
            query = sa.text("SELECT id FROM aspen.samples WHERE submitting_group_id = 1")
            return list(session.scalars(query))

    def _name(self, number: int) -> str:
        return f"hCoV-19/USA/CA-RUN{self._runs}-{number}/2026"

    def _settle(self) -> None:
        """Vacuum and write a checkpoint, so that both start from the same state."""
        engine = self._owner.engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sa.text("VACUUM ANALYZE aspen.samples"))
            connection.execute(sa.text("CHECKPOINT"))


def measure(sizes: tuple[int, ...], rounds: int) -> Iterator[Comparison]:
    """Measure lists of groups of the given sizes, and a change of all samples of the first."""
    groups = range(1, len(sizes) + 1)
    with running() as (folder, cluster, owner), ExitStack() as stack:
        _seed(owner, dict(zip(groups, sizes, strict=True)))
        bench = stack.enter_context(_opened(folder, owner, cluster.url()))
        for group in groups:
            yield from bench.lists(group, rounds)
        yield bench.renames(rounds)


def _seed(owner: Database, sizes: Mapping[int, int]) -> None:
    seed_base(owner)
    with owner.begin() as session:  # samples shared between groups would be in both lists
        session.execute(sa.text("DELETE FROM aspen.group_roles"))
    for group, count in sizes.items():
        seed_samples(owner, count, group=group)


@contextmanager
def _opened(folder: Path, owner: Database, dsn: str) -> Iterator[Bench]:
    """Start both servers: one process each, with no limit on connections."""
    with ExitStack() as stack:
        provider = Provider()
        stack.callback(provider.close)
        port = free_port()
        settings = settings_of_tests(dsn, provider.url, f"http://127.0.0.1:{port}")
        ours = stack.enter_context(serving(["-m", "aspen.api"], port, settings, "/v2/health/"))
        bare = stack.enter_context(
            serving(
                ["-m", "uvicorn", "benchmarks.speed.bare:app"],
                free_port(),
                {"BARE_DSN": dsn.replace("postgresql+psycopg2://", "postgresql://")},
                "/0",
            )
        )
        asked = {
            group: ours.asked_by(provider.token(f"auth0|{member}"))
            for group, member in _MEMBERS.items()
        }
        yield Bench(folder, owner, asked, bare)
