"""Lists of samples at a size where memory and indexes matter."""

from __future__ import annotations

import tracemalloc

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspencli.samples.database import match_samples
from aspencli.samples.listing import SampleList
from aspencli.samples.models import SampleQuery

MANY = 50_000


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
