"""Lists of samples at a size where memory and indexes matter."""

from __future__ import annotations

import io
import signal
import subprocess
import time
import tracemalloc
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection

from aspen.database.cancel import read_ahead
from aspen.database.engine import Database
from aspencli.cli.commands.samples import LIST_COLUMNS
from aspencli.cli.output.console import Output, show_page
from aspencli.samples import listing
from aspencli.samples.database import match_samples
from aspencli.samples.listing import SampleList
from aspencli.samples.models import SampleQuery
from tests import zygote

MANY = 50_000
FORMS = pytest.mark.parametrize("form", ["table", "json", "jsonl", "csv", "tsv"])


@pytest.fixture
def big(seeded: Database) -> Database:
    with seeded.begin() as session:
        session.execute(
            sa.text(
                "INSERT INTO aspen.samples (submitting_group_id, private_identifier,"
                " original_submission, public_identifier, sample_collected_by, collection_date,"
                " organism, private, uploaded_by_id, pathogen_id)"
                " SELECT 2, 'LAB-' || n, '{}', 'PUB-' || n, 'x', date '2023-01-01' + n % 300,"
                " 'SARS-CoV-2', false, 2, 1 FROM generate_series(1, :many) AS n"
            ),
            {"many": MANY},
        )
        session.execute(sa.text("ANALYZE aspen.samples"))
    return seeded


def test_sample_list_streams_in_constant_memory(big: Database) -> None:
    with big.reading() as session:
        rows = SampleList(session, SampleQuery()).rows()
        next(rows)  # everything that is loaded only once is loaded now
        tracemalloc.start()
        count = 1 + sum(1 for _ in rows)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert count == MANY + 60
    assert peak < 8_000_000  # bytes; all rows at once take about 40 MB


def test_sample_lookup_uses_index_across_groups(big: Database) -> None:
    with big.reading() as session:
        statements: list[str] = []

        @sa.event.listens_for(session.connection(), "before_cursor_execute")
        def _keep(_connection: object, cursor: object, statement: str, *rest: object) -> None:
            statements.append(cursor.mogrify(statement, rest[0]).decode())  # type: ignore[attr-defined] # psycopg2's

        match_samples(session, ["PUB-77"], group=None, by=None)
        plans = [
            "\n".join(session.scalars(sa.text("EXPLAIN " + statement.replace(":", r"\:"))))
            for statement in list(statements)
            if "samples" in statement
        ]
    (plan,) = plans  # for all ways to name a sample
    assert "Seq Scan on samples" not in plan


class Sink(io.StringIO):
    """A stream that counts its lines, and keeps nothing."""

    def __init__(self, note: Callable[[], object] = lambda: None):
        super().__init__()
        self.lines = 0
        self._note = note

    def write(self, text: str) -> int:
        self.lines += text.count("\n")
        self._note()
        return len(text)


@FORMS
def test_long_list_prints_in_constant_memory(big: Database, form: str) -> None:
    stream = Sink()
    output = Output(form, stdout=stream, stderr=Sink())
    with big.reading() as session:
        show_page(output, LIST_COLUMNS, SampleList(session, SampleQuery()), 1, noun="samples")
        tracemalloc.start()
        show_page(output, LIST_COLUMNS, SampleList(session, SampleQuery()), None, noun="samples")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert stream.lines >= MANY + 60
    assert peak < 8_000_000  # bytes; all rows at once take about 40 MB


@FORMS
def test_first_rows_are_written_before_more_than_two_parts_are_fetched(
    big: Database, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = 0
    at_write: list[int] = []

    def counted(parts: Iterator[Any]) -> Iterator[Any]:
        nonlocal fetched
        for part in parts:
            fetched += 1
            yield part

    def ahead(connection: Connection, parts: Iterator[Any]) -> Generator[Any, None, None]:
        return read_ahead(connection, counted(parts))

    monkeypatch.setattr(listing, "read_ahead", ahead)
    stream = Sink(lambda: at_write.append(fetched) if stream.lines > 1 else None)
    output = Output(form, stdout=stream, stderr=Sink())
    with big.reading() as session:
        show_page(output, LIST_COLUMNS, SampleList(session, SampleQuery()), None, noun="samples")
    assert at_write[0] <= 2
    assert at_write[-1] > 50


def test_rows_are_the_same_whether_fetched_at_once_or_in_parts(
    big: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with big.reading() as session:
        samples = SampleList(session, SampleQuery(reverse=True))
        monkeypatch.setattr(listing, "BATCH", MANY)
        at_once = [row._asdict() for row in samples.rows(2_500)]
        monkeypatch.setattr(listing, "BATCH", 1_000)
        assert [row._asdict() for row in samples.rows(2_500)] == at_once
    assert len(at_once) == 2_500


@contextmanager
def list_running(database: Database, env: dict[str, str], *words: str) -> Iterator[Any]:
    """Start a list of samples, and check that it ends its session."""
    process = zygote.start(
        ["samples", "list", *words],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
        wait_until(lambda: not others(database))
    finally:
        process.kill()
        process.communicate()


def others(database: Database, condition: str = "true") -> int:
    """Return the number of other sessions in the database."""
    query = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        f" AND application_name LIKE 'aspencli/%' AND {condition}"
    )
    with database.reading() as session:
        return int(session.scalar(query) or 0)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("form", ["table", "jsonl", "csv"])
def test_list_whose_reader_leaves_early_exits_with_0(
    big: Database, cli_env: Callable[[Database], dict[str, str]], form: str
) -> None:
    with list_running(big, cli_env(big), "--all", "-o", form) as process:
        assert [process.stdout.readline() for _ in range(3)]
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (0, "")


def test_ctrl_c_ends_list_in_the_middle(
    big: Database, cli_env: Callable[[Database], dict[str, str]]
) -> None:
    with list_running(big, cli_env(big), "--all", "-o", "csv") as process:
        assert process.stdout.readline().startswith("id,private_identifier,")
        assert all(process.stdout.readline() for _ in range(2_000))
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert (process.wait(60), "Interrupted" in process.stderr.read()) == (130, True)
    assert rest.count("\n") < MANY - 2_000


@pytest.mark.parametrize("limit", [["--limit", "50"], ["--all"]], ids=["few", "all"])
def test_ctrl_c_ends_list_that_waits_for_lock(
    big: Database, cli_env: Callable[[Database], dict[str, str]], limit: list[str]
) -> None:
    with big.begin() as session:
        session.execute(sa.text("LOCK TABLE aspen.samples IN ACCESS EXCLUSIVE MODE"))
        with list_running(big, cli_env(big), *limit) as process:
            wait_until(lambda: others(big, "wait_event_type = 'Lock'"))
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
