"""Record many queries, summarize them, and write the HTML page, to measure the process's memory.

Usage: ``python -m benchmarks.speed.many_queries URL COUNT [--plain]``.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from aspen.database.profiling.recorder import Recorder
from aspen.database.profiling.report import as_document, as_page
from aspen.database.profiling.summary import summarize

_TRANSACTION = 100  # queries
_KINDS = 500


def ask(engine: Engine, count: int) -> None:
    """Run queries on the driver's cursor, to leave out SQLAlchemy's own time."""
    texts = [f"SELECT %s AS kind_{kind}" for kind in range(_KINDS)]
    for begun in range(0, count, _TRANSACTION):
        with engine.begin() as connection:
            cursor = connection.connection.cursor()
            for number in range(begun, min(begun + _TRANSACTION, count)):
                cursor.execute(texts[number % _KINDS], (number,))
                cursor.fetchall()
            cursor.close()


def main() -> int:
    """Run the queries, then build the summary and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("count", type=int)
    parser.add_argument("--plain", action="store_true", help="do not record")
    chosen = parser.parse_args()
    engine = sa.create_engine(chosen.url, pool_size=1)
    with nullcontext() if chosen.plain else Recorder(engine) as recorder:
        ask(engine, chosen.count)
    engine.dispose()
    if recorder is None:
        return 0
    profile = summarize(recorder)
    page = as_page(profile, as_document(profile, f"{chosen.count:,} queries"))
    sys.stdout.write(f"{profile.totals.queries:,} queries, a page of {len(page):,} characters\n")
    return 0 if profile.totals.queries == chosen.count else 1


if __name__ == "__main__":
    sys.exit(main())
